"""An amount of money or seconds as it is carried by the batch: read once, remembered by its text."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from schemas.binary import binary_text
from schemas.money import ledger_cost

_MILLIONTHS: Final = 10**6


class Amount(NamedTuple):
    """An amount as it was sent, and as the ledger holds it: a whole number of millionths, rounded half-up.

    `exact`: the field that tells it from every other amount; 180.000 and 180 are the same, and so are -0 and 0.
    """

    value: Decimal | None
    millionths: int
    exact: bytes
    negative: bool = False  # however little: -0.0000001 comes to 0 millionths


@lru_cache(maxsize=65_536)
def amount_of(value: Decimal | None) -> Amount:
    """An amount, or that none was sent: which counts as 0, and is told apart from it."""
    if value is None:
        return Amount(None, 0, binary_text(None))
    told = value.normalize() if value else Decimal(0)  # -0 equals 0, and so must be told as 0
    millionths = int(ledger_cost(value) * _MILLIONTHS)
    return Amount(value, millionths, binary_text(format(told, "f")), negative=value < 0)


def from_millionths(millionths: int) -> Decimal:
    """The amount, exactly."""
    return Decimal(millionths).scaleb(-6)

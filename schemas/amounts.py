"""Amounts of money or seconds by column: whole millionths, exactly as many as the ledger holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from schemas.binary import Integers, binary_text, numbers
from schemas.money import ledger_cost

_MILLIONTHS: Final = 10**6
_decimals_max: Final = 6
_digits_max: Final = 9
_SCALES: Final = np.array([10 ** (_decimals_max - decimals) for decimals in range(_decimals_max + 1)])
_PLAIN: Final = re.compile(rf"[0-9]{{1,{_digits_max}}}(\.[0-9]{{1,{_decimals_max}}})?")
_BLANK, _DOT, _ZERO, _NINE = b" .09"


def millionths_each(values: Iterable[Decimal | None]) -> Integers:
    """Amounts as the ledger holds them, rounded half-up; `NEVER` where none was sent."""
    return numbers([None if each is None else int(ledger_cost(each) * _MILLIONTHS) for each in values])


def finer(*values: Decimal | None) -> bytes:
    """What tells amounts from all others of as many millionths, whatever was rounded; empty where nothing was.

    180.000 and 180 are the same, and so are -0 and 0.
    """
    if all(value is None or ledger_cost(value) == value for value in values):
        return b""
    return b"".join([binary_text(None if each is None else _shortest(each)) for each in values])


def _shortest(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"


def is_plain_amount(text: str) -> bool:
    """Whether an amount is written as `read_millionths` reads it."""
    return _PLAIN.fullmatch(text) is not None


def read_millionths(texts: Sequence[str]) -> Integers:
    """Amounts that are written plainly (up to nine digits, then perhaps a point and up to six), all at once.

    Raises:
        ValueError: one of them is written otherwise; whatever else it may mean.
    """
    if not texts:
        return np.zeros(0, dtype=np.int64)
    together = " ".join(texts)
    written = np.frombuffer(together.encode(), dtype=np.uint8)
    ends = np.append(np.flatnonzero(written == _BLANK), len(written))
    dots = np.flatnonzero(written == _DOT)
    digits = np.count_nonzero((written >= _ZERO) & (written <= _NINE))
    if len(ends) != len(texts) or digits + len(dots) + len(texts) - 1 != len(written):
        raise ValueError("an amount is not written in digits")
    has_dot = ends.searchsorted(dots)
    points, decimals = ends.copy(), np.zeros(len(texts), dtype=np.int64)
    points[has_dot] = dots
    decimals[has_dot] = ends[has_dot] - dots - 1
    wholes = points - np.append(0, ends[:-1] + 1)
    if (
        (np.diff(has_dot) == 0).any()
        or (decimals[has_dot] == 0).any()
        or decimals.max() > _decimals_max
        or wholes.min() < 1
        or wholes.max() > _digits_max
    ):
        raise ValueError("an amount is not written plainly")
    read: Integers = np.fromstring(together.replace(".", ""), dtype=np.int64, sep=" ") * _SCALES[decimals]
    return read

"""How amounts are held and rounded.

Money is Decimal everywhere. A cost in the ledger has six decimals; an invoice amount has the currency's own
minor unit. Each is rounded half-up, once, here.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Final

COST_PLACES: Final = Decimal("0.000001")

# ISO 4217 currencies that Stripe treats as having no minor unit, or three digits of it (Stripe docs, "Currencies").
_ZERO_DECIMAL: Final = frozenset(
    "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF".split()  # noqa: SIM905
)
_THREE_DECIMAL: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


@lru_cache(maxsize=65_536)
def ledger_cost(amount: Decimal) -> Decimal:
    """A cost as the ledger holds it: six decimals, half-up (L8)."""
    return amount.quantize(COST_PLACES, rounding=ROUND_HALF_UP)


def minor_unit_digits(currency: str) -> int:
    """How many decimals the currency's smallest unit has: 2 for USD, 0 for JPY."""
    if currency in _ZERO_DECIMAL:
        return 0
    return 3 if currency in _THREE_DECIMAL else 2


def minor_units(amount: Decimal, currency: str) -> int:
    """An amount as the whole number of the currency's smallest units, half-up: 1.005 USD is 101 cents (I3)."""
    scaled = amount.scaleb(minor_unit_digits(currency))
    return int(scaled.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def plain(amount: Decimal) -> str:
    """An amount as text without exponent, as it is written on the wire: `0.025500`."""
    return format(amount, "f")

"""What a phantom tenant costs its account (I6).

An invoice sent for a statement with next to no usage costs the account, not the tenant, a fixed fee. Both figures
are constants: no setting changes them, no command takes a fee back.
"""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import Final

# Per currency of the account: usage strictly under this sum costs this sum. Another currency needs an entry here.
PHANTOM_USAGE: Final = MappingProxyType({"USD": Decimal("5.00")})


class CurrencyWithoutFeeError(ValueError):
    """An account's currency has no entry in the table of phantom fees, so its invoices cannot be sent."""


def phantom_fee(usage_cost: Decimal, currency: str) -> Decimal | None:
    """The fee for sending an invoice on that usage (late usage included), in the same currency; None: no fee.

    Raises:
        CurrencyWithoutFeeError: the currency has no entry in the table.
    """
    limit = PHANTOM_USAGE.get(currency)
    if limit is None:
        raise CurrencyWithoutFeeError(
            f"no phantom fee is set for {currency}; known: {', '.join(sorted(PHANTOM_USAGE))}"
        )
    return limit if usage_cost < limit else None

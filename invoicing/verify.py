"""Is the draft in Stripe exactly the invoice we meant (I7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from invoicing.lines import InvoiceLine
from invoicing.remote import RemoteInvoice, RemoteLine
from schemas.money import minor_unit_digits

_Line = tuple[str | None, int, str]


def difference(
    ours: Sequence[InvoiceLine],
    subtotal_minor: int,
    currency: str,
    remote: RemoteInvoice,
    remote_lines: Sequence[RemoteLine],
) -> str | None:
    """What is not as it should be, for people; None: line set, amounts, currency and subtotal are ours."""
    wanted: Counter[_Line] = Counter((line.key, line.amount_minor, currency) for line in ours)
    found: Counter[_Line] = Counter((line.key, line.amount_minor, line.currency) for line in remote_lines)
    if remote.currency != currency:
        return f"the draft is in {remote.currency}, the invoice in {currency}"
    if wanted != found:
        return f"lines differ: {_lines(wanted - found)} missing, {_lines(found - wanted)} not ours"
    if remote.subtotal_minor != subtotal_minor:
        return f"subtotal differs: {_sum(remote.subtotal_minor, currency)} instead of {_sum(subtotal_minor, currency)}"
    return None


def tax_trouble(taxes: bool, remote: RemoteInvoice) -> str | None:  # noqa: FBT001 (the profile's own word)
    """Why the draft's taxes are not as the profile asks; None: they are (I4)."""
    if remote.tax_enabled != taxes:
        return (
            f"automatic tax is {'on' if remote.tax_enabled else 'off'} in Stripe, the profile says otherwise"
        )
    if taxes and remote.tax_status != "complete":
        return f"tax cannot be calculated: {remote.tax_status or 'no status yet'}"
    return None


def _lines(lines: Counter[_Line]) -> str:
    named = sorted(
        f"{key or 'unnamed'} ({_sum(amount, currency)})" for key, amount, currency in lines.elements()
    )
    return ", ".join(named) or "none"


def _sum(minor: int, currency: str) -> str:
    digits = minor_unit_digits(currency)
    return f"{currency} {minor / 10**digits:.{digits}f}"

"""What came out, as tables for people and as a summary for programs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from deploy.sample.comparison import Outcome
from deploy.sample.outcome_store import ClosedStatement, IgnoredHeader, UnattributedUsage
from invoicing.listing_store import InvoiceListing
from schemas.money import minor_unit_digits, plain
from schemas.statements import Statement

_MEANINGS: Final = {
    "number_not_assigned": "nobody owns the called number",
    "ip_not_assigned": "nobody owns the source address",
    "no_source_ip": "neither the record nor an INVITE names a source",
    "ambiguous_context": "INVITEs from several addresses, the record names none",
    "number_without_tenant": "the account gave the number to no tenant",
    "no_tenant_header": "shared address, no X-Tenant, no default tenant",
    "unknown_tenant": "shared address, X-Tenant names no tenant of the account",
}
_headers_shown_max: Final = 8


def show_statements(console: Console, statements: tuple[ClosedStatement, ...]) -> None:
    """A line for each statement, a table for each account."""
    for account, currency in dict.fromkeys(
        (each.statement.account, each.statement.currency) for each in statements
    ):
        table = _table(f"Statements: what the carrier charges {account}, in {currency}, tenant by tenant")
        _columns(table, "tenant", right=("attempts", "calls", "minutes", "numbers", "peak", "usage", "total"))
        for each in statements:
            if each.statement.account == account:
                table.add_row(*_statement_cells(each.statement))
        total = sum(
            (each.statement.totals.total_cost for each in statements if each.statement.account == account),
            Decimal(0),
        )
        table.add_section()
        table.add_row("account total", *[""] * 6, f"{total:,.2f}")
        _show(console, table)


def show_invoices(console: Console, outcome: Outcome) -> None:
    """Invoices and the fees that phantoms cost their account."""
    table = _table("Invoices: what an account charges its tenants, through its own Stripe account")
    _columns(table, "tenant", "state", "reason", right=("amount", "sent on"))
    for each in outcome.invoices:
        sent = f"{each.send_at:%Y-%m-%d}" if each.send_at else ""
        table.add_row(each.tenant, each.state, each.reason or "", _amount(each), sent)
    _show(console, table)
    fees = _table("Phantom fees: on the account, for an invoice sent on usage under 5.00")
    _columns(fees, "account", "tenant", right=("fee",))
    for fee in outcome.fees:
        fees.add_row(fee.account, fee.tenant, _money(fee.amount, fee.currency))
    _show(console, fees)


def show_unattributed(console: Console, usage: list[UnattributedUsage], headers: list[IgnoredHeader]) -> None:
    """What has no tenant and why, and who tried to be someone else."""
    table = _table("Usage without a tenant, and why")
    _columns(table, "account", "reason", "meaning", right=("records", "cost"))
    for each in usage:
        cost = plain(each.cost.quantize(Decimal("0.01")))
        table.add_row(
            each.account or "(nobody)", each.reason, _MEANINGS.get(each.reason, ""), str(each.records), cost
        )
    _show(console, table)
    ignored = _table("X-Tenant headers that were ignored: the address is another tenant's own")
    _columns(ignored, "source address", "header named", "charged to", right=("records",))
    for header in headers[:_headers_shown_max]:
        ignored.add_row(header.source_ip, header.named, header.tenant, str(header.records))
    if len(headers) > _headers_shown_max:
        ignored.caption = f"and {len(headers) - _headers_shown_max} more"
    _show(console, ignored)


def show_quarantine(console: Console, examples: list[tuple[str, int, str]]) -> None:
    """What could not be read or must not be posted, by reason."""
    table = _table("Quarantine: kept with its bytes, never repaired, replayable")
    _columns(table, "reason", right=("records",))
    table.add_column("most often")
    for reason, records, detail in examples:
        table.add_row(reason, str(records), detail)
    _show(console, table)


def conservation_line(outcome: Outcome) -> str:
    """`received = posted + duplicate + …`, with the figures."""
    line = outcome.conservation
    parts = ("posted", "duplicate", "held", "quarantined", "ignored", "context")
    return f"received {line.received:,} = " + " + ".join(f"{part} {getattr(line, part):,}" for part in parts)


def summary(outcome: Outcome) -> dict[str, Any]:
    """The same for programs: stable names, money as text."""
    return {
        "conservation": {**outcome.conservation._asdict(), "holds": outcome.conservation.holds},
        "acknowledged": outcome.acknowledged,
        "gap_records": outcome.gap_records,
        "outcomes": [
            {"outcome": name, "reason": reason, "records": records}
            for (name, reason), records in sorted(outcome.outcomes.items())
        ],
        "statements": [
            {**each.statement.model_dump(mode="json"), "sha256": each.sha256} for each in outcome.statements
        ],
        "late_usage": [
            {
                "account": owner.account,
                "tenant": owner.tenant,
                "attempts": usage.attempts,
                "cost": plain(usage.cost),
            }
            for owner, usage in sorted(outcome.late_usage.items(), key=str)
        ],
        "invoices": [
            {
                "account": each.account,
                "tenant": each.tenant,
                "state": each.state,
                "reason": each.reason,
                "subtotal_minor": each.subtotal_minor,
                "currency": each.currency,
                "stripe_invoice": each.stripe_invoice,
                "send_at": each.send_at,
            }
            for each in outcome.invoices
        ],
        "phantom_fees": [
            {
                "account": each.account,
                "tenant": each.tenant,
                "amount": plain(each.amount),
                "currency": each.currency,
            }
            for each in outcome.fees
        ],
        "unattributed": dict(outcome.unattributed),
        "headers_ignored": dict(outcome.headers_ignored),
    }


def _statement_cells(statement: Statement) -> tuple[str, ...]:
    totals = statement.totals
    return (
        statement.tenant or "(unassigned)",
        f"{totals.attempts:,}",
        f"{totals.calls:,}",
        f"{totals.answered_seconds / 60:,.1f}",
        str(sum(held.count for held in statement.numbers)),
        str(statement.peak_concurrent_channels),
        f"{totals.usage_cost:,.2f}",
        f"{totals.total_cost:,.2f}",
    )


def _show(console: Console, table: Table) -> None:
    console.print(table)
    console.print()


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        caption_justify="left",
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def _columns(table: Table, *left: str, right: tuple[str, ...] = ()) -> None:
    for name in left:
        table.add_column(name, no_wrap=name in {"tenant", "reason"})
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)


def _money(amount: Decimal, currency: str) -> str:
    return f"{currency} {amount:,.2f}"


def _amount(invoice: InvoiceListing) -> str:
    if invoice.subtotal_minor is None:
        return ""
    return _money(
        Decimal(invoice.subtotal_minor).scaleb(-minor_unit_digits(invoice.currency)), invoice.currency
    )

"""What people ask about invoices: which there are, where each stands and why, what an account pays for phantoms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class InvoiceListing:
    """One invoice as `invoice list` shows it; `paused_reason` is its account's."""

    statement_id: UUID | None
    account: str
    tenant: str
    period: date
    state: str
    reason: str | None
    notice: str | None
    currency: str
    subtotal_minor: int | None
    stripe_account: str | None
    stripe_invoice: str | None
    send_at: datetime | None
    due_at: datetime
    attempts: int
    paused_reason: str | None


@dataclass(frozen=True, slots=True)
class StepListing:
    """One outside step of an invoice: when it was intended, when it was done, and Stripe's id."""

    step: str
    intended_at: datetime
    done_at: datetime | None
    result: str | None


@dataclass(frozen=True, slots=True)
class InvoiceExplanation:
    """An invoice, each of its lines (as `lines.InvoiceLine` in JSON, naming the statement's lines), and its steps."""

    invoice: InvoiceListing
    lines: tuple[dict[str, Any], ...]
    steps: tuple[StepListing, ...]


@dataclass(frozen=True, slots=True)
class FeeListing:
    """One phantom fee: on the account, for an invoice sent on next to no usage."""

    account: str
    tenant: str
    period: date
    statement_id: UUID
    stripe_invoice: str
    amount: Decimal
    currency: str
    evidence: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that the invoicing consumer could not read, still waiting for someone."""

    topic: str
    partition: int
    kafka_offset: int
    reason: str
    detail: str
    refused_at: datetime


_LISTING = (
    "select i.id, i.statement_id, a.code as account, t.code as tenant, i.period, i.state, i.reason, i.notice, i.currency, "
    "i.subtotal_minor, i.stripe_account, i.stripe_invoice, i.send_at, i.due_at, i.attempts, l.paused_reason, i.lines "
    "from invoices i join accounts a on a.id = i.account_id join tenants t on t.id = i.tenant_id "
    "left join stripe_links l on l.account_id = i.account_id and l.unlinked_at is null "
)


def list_invoices(
    connection: Connection,
    *,
    account: str | None = None,
    tenant: str | None = None,
    period: date | None = None,
    state: str | None = None,
) -> list[InvoiceListing]:
    """Invoices by month, account and tenant; each filter that is given narrows the list (codes, first day of month)."""
    rows = connection.execute(
        text(
            _LISTING + "where (cast(:account as text) is null or a.code = :account) "
            "and (cast(:tenant as text) is null or t.code = :tenant) "
            "and (cast(:period as date) is null or i.period = :period) "
            "and (cast(:state as text) is null or i.state = :state) order by i.period, a.code, t.code"
        ),
        {"account": account, "tenant": tenant, "period": period, "state": state},
    )
    return [_listing(row) for row in rows]


def explain_invoice(connection: Connection, statement_id: UUID) -> InvoiceExplanation | None:
    """How a statement's invoice came to be what it is; None: there is none."""
    row = connection.execute(
        text(_LISTING + "where i.statement_id = :id"), {"id": statement_id}
    ).one_or_none()
    if row is None:
        return None
    steps = connection.execute(
        text(
            "select step, intended_at, done_at, result from invoice_steps where invoice_id = :id "
            "order by intended_at, step"
        ),
        {"id": row.id},
    )
    return InvoiceExplanation(
        _listing(row),
        tuple(row.lines or ()),
        tuple(StepListing(each.step, each.intended_at, each.done_at, each.result) for each in steps),
    )


def list_fees(
    connection: Connection, *, account: str | None = None, period: date | None = None
) -> list[FeeListing]:
    """Phantom fees by month and account (I6)."""
    rows = connection.execute(
        text(
            "select a.code as account, t.code as tenant, f.period, f.statement_id, f.stripe_invoice, f.amount, f.currency, "
            "f.evidence, f.made_at from phantom_fees f join accounts a on a.id = f.account_id "
            "join tenants t on t.id = f.tenant_id where (cast(:account as text) is null or a.code = :account) "
            "and (cast(:period as date) is null or f.period = :period) order by f.period, a.code, t.code"
        ),
        {"account": account, "period": period},
    )
    return [FeeListing(**row._mapping) for row in rows]  # noqa: SLF001 (SQLAlchemy's public name)


def count_by_state(connection: Connection) -> dict[str, int]:
    """How many invoices stand in each state: what the gauges and `invoice list` sum up."""
    rows = connection.execute(text("select state, count(*) as invoices from invoices group by 1 order by 1"))
    return {row.state: row.invoices for row in rows}


def list_refused_events(connection: Connection) -> list[RefusedEvent]:
    """Events that could not be read and that nobody has resolved yet."""
    rows = connection.execute(
        text(
            "select topic, partition, kafka_offset, reason, detail, refused_at from refused_events "
            "where resolved_at is null order by refused_at, topic, partition, kafka_offset"
        )
    )
    return [RefusedEvent(**row._mapping) for row in rows]  # noqa: SLF001 (same)


def _listing(row: Any) -> InvoiceListing:  # noqa: ANN401 (a row of `_LISTING`)
    return InvoiceListing(
        **{name: getattr(row, name) for name in InvoiceListing.__dataclass_fields__},
    )

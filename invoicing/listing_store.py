"""What people ask about invoices: which there are, where each stands and why, what an account pays for phantoms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from invoicing.lines import InvoiceLine, exact_charge, shown_exact
from invoicing.remedies import remedy
from invoicing.sources import sources
from invoicing.states import State, due_step
from schemas.statements import Statement


@dataclass(frozen=True, slots=True)
class InvoiceListing:
    """One invoice as `invoice list` shows it; `paused_reason` is its account's.

    `due_step` is what is done next, at `due_at`; `remedy` the command that resolves what it stands still for.
    """

    invoice_id: UUID
    statement_id: UUID | None
    kind: str
    one_time_key: str | None
    account: str
    tenant: str
    period: date
    state: str
    due_step: str | None
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
    remedy: str | None


@dataclass(frozen=True, slots=True)
class StepListing:
    """One outside step of an invoice: when it was intended, when it was done, and Stripe's id."""

    step: str
    intended_at: datetime
    done_at: datetime | None
    result: str | None


@dataclass(frozen=True, slots=True)
class InvoiceExplanation:
    """An invoice, each of its lines, and its steps.

    A line is `lines.InvoiceLine` in JSON, with the `exact` amount that was rounded and the statement's lines it is `made_from`.
    """

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


class MonthlyInvoice(NamedTuple):
    """Where a tenant's invoice of a month stands, and the profile version that decided."""

    state: str
    profile_id: int | None


@dataclass(frozen=True, slots=True)
class FeeTotal:
    """What an account pays for phantoms in a month."""

    account: str
    period: date
    fees: int
    amount: Decimal
    currency: str


_LISTING = (
    "select i.id as invoice_id, i.statement_id, i.kind, i.one_time_key, a.code as account, t.code as tenant, i.period, "
    "i.state, i.reason, i.notice, i.currency, i.subtotal_minor, i.stripe_account, i.stripe_invoice, i.send_at, i.due_at, "
    "i.attempts, l.paused_reason, i.lines, i.tenant_id, substr(o.step, strpos(o.step, '.') + 1) as open_step "
    "from invoices i join accounts a on a.id = i.account_id join tenants t on t.id = i.tenant_id "
    "left join stripe_links l on l.account_id = i.account_id and l.unlinked_at is null "
    "left join lateral (select step from invoice_steps where invoice_id = i.id and done_at is null "
    "and step like i.generation || '.%' order by intended_at, step limit 1) o on i.state = 'drafting' "
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
            "and (cast(:state as text) is null or i.state = :state) order by i.period, a.code, t.code, i.received_at, i.id"
        ),
        {"account": account, "tenant": tenant, "period": period, "state": state},
    )
    return [_listing(row) for row in rows]


def invoice_of(connection: Connection, tenant_id: int, period: date) -> MonthlyInvoice | None:
    """A tenant's monthly invoice; None: the month is not closed, or its event has not come yet."""
    row = connection.execute(
        text(
            "select state, profile_id from invoices "
            "where tenant_id = :tenant_id and period = :period and kind = 'monthly'"
        ),
        {"tenant_id": tenant_id, "period": period},
    ).one_or_none()
    return None if row is None else MonthlyInvoice(*row)


def tenant_of(connection: Connection, invoice: UUID) -> int | None:
    """Whose an invoice is, named by its own id or its statement's."""
    tenant_id: int | None = connection.scalar(
        text("select tenant_id from invoices where statement_id = :id or id = :id"), {"id": invoice}
    )
    return tenant_id


def explain_invoice(connection: Connection, invoice: UUID) -> InvoiceExplanation | None:
    """How an invoice, named by its own id or its statement's, came to be what it is; None: there is none."""
    row = connection.execute(
        text(_LISTING + "where i.statement_id = :id or i.id = :id"), {"id": invoice}
    ).one_or_none()
    if row is None:
        return None
    steps = connection.execute(
        text(
            "select step, intended_at, done_at, result from invoice_steps where invoice_id = :id "
            "order by intended_at, step"
        ),
        {"id": row.invoice_id},
    )
    counted = _counted_statement(connection, row)
    return InvoiceExplanation(
        _listing(row),
        tuple(_explained(InvoiceLine.model_validate(line), counted) for line in row.lines or ()),
        tuple(StepListing(each.step, each.intended_at, each.done_at, each.result) for each in steps),
    )


def _counted_statement(connection: Connection, row: Any) -> Statement | None:  # noqa: ANN401 (a row of `_LISTING`)
    """The statement that an invoice's lines count; a one-time invoice's is that of its month, where there is one."""
    body = connection.scalar(
        text(
            "select body from statements where id = :id or (cast(:id as uuid) is null "
            "and tenant_id = :tenant_id and period = :period)"
        ),
        {"id": row.statement_id, "tenant_id": row.tenant_id, "period": row.period},
    )
    return None if body is None else Statement.model_validate_json(bytes(body))


def _explained(line: InvoiceLine, counted: Statement | None) -> dict[str, Any]:
    exact = exact_charge(line.quantity, line.unit, line.unit_price)
    made_from = [] if counted is None else sources(line, counted)
    return line.model_dump(mode="json") | {"exact": shown_exact(exact), "made_from": made_from}


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


def fee_totals(
    connection: Connection, *, account: str | None = None, period: date | None = None
) -> list[FeeTotal]:
    """Phantom fees added up by month and account."""
    rows = connection.execute(
        text(
            "select a.code as account, f.period, count(*) as fees, sum(f.amount) as amount, f.currency "
            "from phantom_fees f join accounts a on a.id = f.account_id "
            "where (cast(:account as text) is null or a.code = :account) "
            "and (cast(:period as date) is null or f.period = :period) "
            "group by a.code, f.period, f.currency order by f.period, a.code"
        ),
        {"account": account, "period": period},
    )
    return [FeeTotal(**row._mapping) for row in rows]  # noqa: SLF001 (same)


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
    state = State(row.state)
    told: dict[str, Any] = {
        "due_step": due_step(state, row.open_step),
        "remedy": remedy(state, row.reason, paused=row.paused_reason is not None),
    }
    stored = {name: getattr(row, name) for name in InvoiceListing.__dataclass_fields__ if name not in told}
    return InvoiceListing(**stored, **told)

"""Phantom fees as rows: by which statement a sent invoice is judged, and what its account owes for it (I6)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, text

from invoicing.phantom import phantom_fee


@dataclass(frozen=True, slots=True)
class Judged:
    """The statement that says whether a tenant is a phantom; a fee is owed once for each."""

    statement_id: UUID
    period: date
    usage_cost: Decimal
    currency: str

    @property
    def fee(self) -> Decimal | None:
        """What sending an invoice on that usage costs its account; None: nothing."""
        return phantom_fee(self.usage_cost, self.currency)


def judged_by(connection: Connection, invoice_id: UUID) -> Judged | None:
    """The statement that an invoice is judged by: its own; a one-time invoice's, see `judged_at`."""
    asked = connection.execute(
        text("select statement_id, tenant_id, period, received_at from invoices where id = :id"),
        {"id": invoice_id},
    ).one()
    if asked.statement_id is None:
        return judged_at(connection, asked.tenant_id, asked.period, asked.received_at)
    row = connection.execute(
        text("select id, period, usage_cost, currency from statements where id = :id"),
        {"id": asked.statement_id},
    ).one()
    return Judged(*row)


def judged_at(connection: Connection, tenant_id: int, month: date, asked_at: datetime) -> Judged | None:
    """The statement that a one-time invoice is judged by: of the month it bills, else the newest before it was asked for.

    None: the tenant had no statement yet, so nothing says that it is a phantom.
    """
    row = connection.execute(
        text(
            "select id, period, usage_cost, currency from statements where tenant_id = :tenant_id and kind = 'tenant' "
            "and period <= :month and generated_at <= :asked_at order by period desc limit 1"
        ),
        {"tenant_id": tenant_id, "month": month, "asked_at": asked_at},
    ).one_or_none()
    return None if row is None else Judged(*row)


def is_charged(connection: Connection, statement_id: UUID) -> bool:
    """Whether the fee of a statement was charged already."""
    query = text("select exists (select from phantom_fees where statement_id = :id)")
    return bool(connection.scalar(query, {"id": statement_id}))


def record_fee(
    connection: Connection,
    invoice_id: UUID,
    judged: Judged,
    amount: Decimal,
    evidence: Literal["sent", "assumed"],
    now: datetime,
) -> None:
    """Charge the account the phantom fee of a statement, once, for this invoice (I6)."""
    connection.execute(
        text(
            "insert into phantom_fees (statement_id, account_id, tenant_id, period, stripe_invoice, amount, currency, "
            "evidence, made_at) select :statement_id, account_id, tenant_id, :period, stripe_invoice, :amount, currency, "
            ":evidence, :now from invoices where id = :id on conflict (statement_id) do nothing"
        ),
        {
            "id": invoice_id,
            "statement_id": judged.statement_id,
            "period": judged.period,
            "amount": amount,
            "evidence": evidence,
            "now": now,
        },
    )

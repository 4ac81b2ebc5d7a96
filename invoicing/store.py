"""Invoices as rows: what is due, how far each came, and what was asked of Stripe.

Each change of state is a compare-and-set on the row's present state and generation: of two invoicers that meet on
one row, one wins and the other leaves it. Each outside step is a row of its own, written before the call with the
idempotency key it will use, and again after it with Stripe's id (I7).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection, text

from invoicing.lines import InvoiceLine
from invoicing.plan import InvoiceTerms, ToBill
from invoicing.states import State
from schemas.locks import Lock
from schemas.statements import Statement, sha256_hex

_LINES: Final = TypeAdapter(tuple[InvoiceLine, ...])
_COLUMNS: Final = (
    "id, statement_id, account_id, tenant_id, period, state, reason, generation, profile_id, stripe_account, "
    "stripe_invoice, currency, subtotal_minor, terms, lines, send_at, due_at, attempts"
)

_NOT_PAUSED: Final = (
    "not exists (select from stripe_links l where l.account_id = i.account_id "
    "and l.unlinked_at is null and l.paused_at is not null)"
)


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice as stored. `lines`, `terms` and what follows from them are set when drafting begins."""

    id: UUID
    statement_id: UUID | None
    account_id: int
    tenant_id: int
    state: State
    generation: int
    profile_id: int | None
    stripe_account: str | None
    stripe_invoice: str | None
    currency: str
    subtotal_minor: int | None
    terms: InvoiceTerms | None
    lines: tuple[InvoiceLine, ...]
    send_at: datetime | None
    due_at: datetime
    attempts: int

    @property
    def reference(self) -> str:
        """How Stripe's metadata names this invoice: a remade one has another generation."""
        return f"{self.id}.{self.generation}"


@dataclass(frozen=True, slots=True)
class StatementFacts:
    """A stored statement; `intact` is false where its bytes no longer match their hash."""

    statement: Statement
    generated_at: datetime
    usage_cost: Decimal
    currency: str
    intact: bool


def due_accounts(connection: Connection, now: datetime) -> list[int]:
    """Accounts with something to do now: rows to work on, or scheduled invoices to read."""
    rows = connection.execute(
        text(
            f"select account_id from invoices i where state in ('received', 'drafting', 'drafted') and due_at <= :now "  # noqa: S608 (a constant)
            f"and {_NOT_PAUSED} "
            "union select account_id from invoices where state in ('scheduled', 'finalization_failed') "
            "and due_at <= :now and send_at <= :now order by 1"
        ),
        {"now": now},
    )
    return [row.account_id for row in rows]


def unread_invoices(
    connection: Connection, account_id: int, now: datetime, *, due_only: bool, rows_max: int
) -> list[UUID]:
    """An account's scheduled invoices whose day has passed (I9); `due_only` leaves out those read a short while ago."""
    rows = connection.execute(
        text(
            "select id from invoices where account_id = :account_id "
            "and state in ('scheduled', 'finalization_failed') and send_at <= :now "
            "and (not :due_only or due_at <= :now) order by due_at, id limit :rows_max"
        ),
        {"account_id": account_id, "now": now, "due_only": due_only, "rows_max": rows_max},
    )
    return [row.id for row in rows]


def invoice_row(connection: Connection, invoice_id: UUID) -> InvoiceRow:
    """One invoice.

    Raises:
        NoResultFound: there is none of that id.
    """
    row = connection.execute(
        text(f"select {_COLUMNS} from invoices where id = :id"),  # noqa: S608 (a constant)
        {"id": invoice_id},
    ).one()
    return InvoiceRow(
        id=row.id,
        statement_id=row.statement_id,
        account_id=row.account_id,
        tenant_id=row.tenant_id,
        state=State(row.state),
        generation=row.generation,
        profile_id=row.profile_id,
        stripe_account=row.stripe_account,
        stripe_invoice=row.stripe_invoice,
        currency=row.currency,
        subtotal_minor=row.subtotal_minor,
        terms=None if row.terms is None else InvoiceTerms.model_validate(row.terms),
        lines=() if row.lines is None else _LINES.validate_python(row.lines),
        send_at=row.send_at,
        due_at=row.due_at,
        attempts=row.attempts,
    )


def statement_facts(connection: Connection, statement_id: UUID) -> StatementFacts:
    """The statement an invoice is made from, as it was closed.

    Raises:
        NoResultFound: there is none of that id.
    """
    row = connection.execute(
        text("select body, sha256, generated_at, usage_cost, currency from statements where id = :id"),
        {"id": statement_id},
    ).one()
    body = bytes(row.body)
    return StatementFacts(
        statement=Statement.model_validate_json(body),
        generated_at=row.generated_at,
        usage_cost=row.usage_cost,
        currency=row.currency,
        intact=sha256_hex(body) == row.sha256,
    )


def move(
    connection: Connection,
    row: InvoiceRow,
    state: State,
    now: datetime,
    *,
    reason: str | None = None,
    due_at: datetime | None = None,
    changes: dict[str, Any] | None = None,
) -> bool:
    """Bring an invoice from the state it was read in to another. False: someone else moved it meanwhile."""
    values = {"reason": reason, "due_at": due_at or now, **(changes or {})}
    assignments = ", ".join(f"{column} = :{column}" for column in values)
    moved = connection.execute(
        text(
            f"update invoices set state = :new_state, attempts = 0, changed_at = :now, {assignments} "  # noqa: S608 (names from code)
            "where id = :id and state = :old_state and generation = :old_generation"
        ),
        {
            **values,
            "id": row.id,
            "now": now,
            "new_state": state,
            "old_state": row.state,
            "old_generation": row.generation,
        },
    )
    return moved.rowcount == 1


def begin_drafting(
    connection: Connection, row: InvoiceRow, stripe_account: str, plan: ToBill, now: datetime
) -> bool:
    """Fix what the invoice will say, before Stripe hears of it. False: someone else moved the row."""
    changes = {
        "stripe_account": stripe_account,
        "profile_id": plan.profile_id,
        "subtotal_minor": plan.subtotal_minor,
        "send_at": plan.send_at,
    }
    if not move(connection, row, State.DRAFTING, now, changes=changes):
        return False
    lines = orjson.dumps([line.model_dump(mode="json") for line in plan.lines]).decode()
    connection.execute(
        text(
            "update invoices set terms = cast(:terms as jsonb), lines = cast(:lines as jsonb) where id = :id"
        ),
        {"id": row.id, "terms": plan.terms.model_dump_json(), "lines": lines},
    )
    return True


def keep_draft(connection: Connection, row: InvoiceRow, stripe_invoice: str) -> bool:
    """Keep the draft's id on the row. False: someone else moved it, or began it anew, meanwhile."""
    kept = connection.execute(
        text(
            "update invoices set stripe_invoice = :stripe_invoice "
            "where id = :id and state = :state and generation = :generation"
        ),
        {"id": row.id, "state": row.state, "generation": row.generation, "stripe_invoice": stripe_invoice},
    )
    return kept.rowcount == 1


def postpone(connection: Connection, row: InvoiceRow, wait: timedelta, reason: str, now: datetime) -> None:
    """Keep the row and try it later (I8)."""
    connection.execute(
        text(
            "update invoices set due_at = :due_at, attempts = attempts + 1, reason = :reason, changed_at = :now "
            "where id = :id and state = :state"
        ),
        {"id": row.id, "state": row.state, "due_at": now + wait, "reason": reason, "now": now},
    )


def hold_account(connection: Connection, account_id: int) -> bool:
    """Keep an account's invoices to this transaction until it ends. False: someone is at work on them."""
    keys = {"kind": Lock.INVOICE_ACCOUNT, "account": account_id}
    return bool(connection.scalar(text("select pg_try_advisory_xact_lock(:kind, :account)"), keys))

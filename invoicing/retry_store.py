"""Someone says: try that one again. Where an invoice goes on from (I8, I9)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from invoicing.setup_store import link_in_force
from invoicing.states import State
from invoicing.steps_store import distrust_keys, perhaps_scheduled
from invoicing.store import InvoiceRow, invoice_row, move
from schemas.periods import Period


def retry_invoice(
    connection: Connection, invoice: UUID, now: datetime, *, profile_id: int | None = None
) -> State | None:
    """Someone says: try that one again. Gives the state it goes on from; None: it is not one that can be retried.

    A waiting row is due at once. A blocked one is decided anew; a held or unfinalised one is compared and scheduled
    again; a failed one goes on with fresh keys; a deleted one is made anew, under a new generation (I9).

    Args:
        connection: in a transaction; the caller commits.
        invoice: the invoice's id, or its statement's.
        now: the present instant.
        profile_id: decide by this version of the profile instead of the one that was in force; only an invoice that
            was blocked before anything was drafted can be.
    """
    invoice_id = connection.scalar(
        text("select id from invoices where statement_id = :id or id = :id for update"), {"id": invoice}
    )
    if invoice_id is None:
        return None
    row = invoice_row(connection, invoice_id)
    target = _goes_on_from(connection, row)
    if target is None or (profile_id is not None and (row.state is not State.BLOCKED or row.lines)):
        return None
    changes: dict[str, Any] = {} if profile_id is None else {"profile_id": profile_id}
    if _is_made_anew(row, target):
        changes |= {"generation": row.generation + 1, "stripe_invoice": None, "notice": None}
    move(connection, row, target, now, changes=changes)
    if row.state is State.FAILED:  # elsewhere a request may still be under way, and its key finds it
        distrust_keys(connection, row, now)
    return target


def wake_linked(connection: Connection, account_id: int, now: datetime) -> int:
    """A Stripe account was linked: take up what only waited for that, of this month's statements (I11).

    What was generated in earlier months stays blocked, since its tenants may long have been billed elsewhere. Gives how
    many go on.
    """
    rows = connection.execute(
        text(
            "select i.id from invoices i left join statements s on s.id = i.statement_id "
            "where i.account_id = :account_id and i.state = 'blocked' and i.reason in ('no_stripe_link', 'unlinked', "
            "'perhaps_scheduled_elsewhere') "
            "and coalesce(s.generated_at, i.received_at) >= :month order by i.id"
        ),
        {"account_id": account_id, "month": Period.of(now).starts_at},
    )
    woken = [retry_invoice(connection, row.id, now) for row in rows.all()]
    return sum(state is not None for state in woken)


def stopped_invoices(connection: Connection, account_id: int, reason: str | None = None) -> list[UUID]:
    """An account's invoices that stand still until someone retries them; `reason` is the beginning of theirs."""
    rows = connection.execute(
        text(
            "select id from invoices where account_id = :account_id "
            "and state in ('blocked', 'held', 'failed', 'finalization_failed') "
            "and (cast(:reason as text) is null or starts_with(reason, :reason)) order by period, id"
        ),
        {"account_id": account_id, "reason": reason},
    )
    return [row.id for row in rows]


def _goes_on_from(connection: Connection, row: InvoiceRow) -> State | None:
    match row.state:
        case State.RECEIVED | State.DRAFTING | State.DRAFTED:
            return row.state
        case State.BLOCKED | State.FAILED:
            return _where_it_stood(connection, row)
        case State.HELD | State.FINALIZATION_FAILED:
            return (
                State.DRAFTING
            )  # nothing is made twice; the customer is told what changed, then it is compared
        case State.DELETED:
            return State.RECEIVED
        case _:
            return None


def _where_it_stood(connection: Connection, row: InvoiceRow) -> State:
    """Where a stopped row goes on: from the decision, or, once its lines were fixed, from its draft.

    A draft that stayed in another Stripe account never sends itself, unless it was perhaps scheduled there.
    """
    if not row.lines:
        return State.RECEIVED
    link = link_in_force(connection, row.account_id)
    moved_house = link is not None and link.stripe_account != row.stripe_account
    return State.RECEIVED if moved_house and not perhaps_scheduled(connection, row) else State.DRAFTING


def _is_made_anew(row: InvoiceRow, target: State) -> bool:
    return row.state is State.DELETED or (bool(row.lines) and target is State.RECEIVED)

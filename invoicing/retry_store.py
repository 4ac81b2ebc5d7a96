"""Someone says: try that one again. Where an invoice goes on from (I8, I9)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text

from invoicing.setup_store import link_in_force
from invoicing.states import State
from invoicing.steps_store import distrust_keys, steps
from invoicing.store import InvoiceRow, invoice_row, move


def retry_invoice(connection: Connection, statement_id: UUID, now: datetime) -> State | None:
    """Someone says: try that one again. Gives the state it goes on from; None: it is not one that can be retried.

    A waiting row is due at once. A blocked one is decided anew; a held or unfinalised one is compared and scheduled
    again; a failed one goes on with fresh keys; a deleted one is made anew, under a new generation (I9).
    """
    invoice_id = connection.scalar(
        text("select id from invoices where statement_id = :id for update"), {"id": statement_id}
    )
    if invoice_id is None:
        return None
    row = invoice_row(connection, invoice_id)
    target = _goes_on_from(connection, row)
    if target is None:
        return None
    anew = {"generation": row.generation + 1, "stripe_invoice": None, "notice": None}
    move(connection, row, target, now, changes=anew if _is_made_anew(row, target) else {})
    distrust_keys(connection, row, now)
    return target


def _goes_on_from(connection: Connection, row: InvoiceRow) -> State | None:
    match row.state:
        case State.RECEIVED | State.DRAFTING | State.DRAFTED:
            return row.state
        case State.BLOCKED | State.FAILED:
            return _where_it_stood(connection, row)
        case State.HELD | State.FINALIZATION_FAILED:
            return State.DRAFTED
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
    perhaps_scheduled = any(name.startswith("schedule:") for name in steps(connection, row))
    return State.RECEIVED if moved_house and not perhaps_scheduled else State.DRAFTING


def _is_made_anew(row: InvoiceRow, target: State) -> bool:
    return row.state is State.DELETED or (bool(row.lines) and target is State.RECEIVED)

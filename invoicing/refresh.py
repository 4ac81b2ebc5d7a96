"""Did it go out? The daily read of scheduled invoices whose day has passed (I9).

No webhook is needed: what Stripe says when asked is enough. Here, and nowhere else, a phantom tenant's fee arises.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, assert_never
from uuid import UUID

from sqlalchemy import Connection

from invoicing import fee_store, setup_store, store
from invoicing.invoicer import Invoicer, backoff
from invoicing.outcomes import Ok, Outcome, RefusedForGood, RefusedPermission, TemporaryFailure
from invoicing.remote import RemoteInvoice
from invoicing.states import AWAITED, State
from invoicing.store import InvoiceRow

FINALIZATION_PATIENCE: Final = timedelta(days=1)  # a draft without an error may still go out by itself
READING_PATIENCE: Final = timedelta(days=3)  # shut out for longer: what was scheduled is taken for sent
UNTAXED: Final = "sent without tax: Stripe switched automatic tax off"

CHANGED: Final = "sent with another subtotal: someone changed it in Stripe after it was scheduled"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a read says: the state the invoice is in now, why, and whether its account pays the fee on that evidence."""

    state: State
    reason: str | None = None
    notice: str | None = None
    evidence: Literal["sent", "assumed"] | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be said yet: look again after `wait`. `shut_out`: Stripe refuses us the account (I8)."""

    wait: timedelta
    reason: str
    shut_out: bool = False


def refresh_invoice(invoicer: Invoicer, invoice_id: UUID) -> State | None:
    """Read one scheduled invoice in Stripe and note what became of it. None: its day has not passed, or no answer."""
    now = invoicer.clock()
    with invoicer.engine.begin() as connection:
        row = store.invoice_row(connection, invoice_id)
        link = setup_store.link_in_force(connection, row.account_id)
    if row.state not in AWAITED or row.send_at is None or row.send_at > now:
        return None
    if row.stripe_account is None or row.stripe_invoice is None:
        raise ValueError(f"invoice {row.id} was scheduled without being in Stripe")
    if link is None or link.stripe_account != row.stripe_account:
        reading: Reading | Wait = Reading(State.ASSUMED_SENT, "unlinked", evidence="assumed")
    else:
        reading = read_outcome(invoicer.gateway.invoice(row.stripe_account, row.stripe_invoice), row, now)
    with invoicer.engine.begin() as connection:
        if isinstance(reading, Wait):
            if reading.shut_out and link is not None:
                setup_store.pause_link(connection, link, reading.reason, now)
            store.postpone(connection, row, reading.wait, reading.reason, now)
            return None
        return _note(connection, row, reading, now)


def read_outcome(outcome: Outcome[RemoteInvoice | None], row: InvoiceRow, now: datetime) -> Reading | Wait:
    """What Stripe's answer says about an invoice whose day has passed."""
    match outcome:
        case Ok(remote):
            if remote is None:
                return Reading(State.DELETED, "deleted in Stripe before it was sent")
            return _read_remote(remote, row, now)
        case RefusedPermission(reason=reason):
            if row.state is State.FINALIZATION_FAILED or _is_recent(row, now):
                return Wait(FINALIZATION_PATIENCE, reason, shut_out=True)
            return Reading(State.ASSUMED_SENT, reason, evidence="assumed")
        case TemporaryFailure(reason=reason) | RefusedForGood(reason=reason):
            return Wait(backoff(row.attempts), reason)
        case _:
            assert_never(outcome)


def _is_recent(row: InvoiceRow, now: datetime) -> bool:
    return row.send_at is not None and now - row.send_at < READING_PATIENCE


def _read_remote(remote: RemoteInvoice, row: InvoiceRow, now: datetime) -> Reading | Wait:
    if remote.status != "draft":
        return Reading(State.SENT, remote.status, notice=_notice(remote, row), evidence="sent")
    if remote.finalization_error is not None:
        return Reading(State.FINALIZATION_FAILED, remote.finalization_error)
    if not remote.auto_advance:
        return Reading(State.FINALIZATION_FAILED, "someone stopped it in Stripe: auto_advance is off")
    if row.send_at is not None and now - row.send_at < FINALIZATION_PATIENCE:
        return Wait(backoff(row.attempts), "not finalised yet")
    return Reading(State.FINALIZATION_FAILED, "its day has passed and Stripe has not finalised it")


def _notice(remote: RemoteInvoice, row: InvoiceRow) -> str | None:
    if row.terms is not None and row.terms.taxes and not remote.tax_enabled:
        return UNTAXED
    return None if remote.subtotal_minor == row.subtotal_minor else CHANGED


def _note(connection: Connection, row: InvoiceRow, reading: Reading, now: datetime) -> State | None:
    changes = {} if reading.notice is None else {"notice": reading.notice}
    next_look = now + FINALIZATION_PATIENCE
    if not store.move(
        connection, row, reading.state, now, reason=reading.reason, due_at=next_look, changes=changes
    ):
        return None
    if reading.evidence is not None:
        judged = fee_store.judged_by(connection, row.id)
        if judged is not None and judged.fee is not None:
            fee_store.record_fee(connection, row.id, judged, judged.fee, reading.evidence, now)
    return reading.state

"""One statement to at most one invoice, whatever breaks on the way (I2, I7, I8).

A row is worked from wherever it stands: decide, begin a draft that does not send itself, put the lines on it, compare,
and only then let Stripe send it. Each outside step goes through `steps.Steps`, so that doing it twice does it once. A
one-time invoice takes the same steps; its lines were fixed when it was asked for (I10).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, assert_never
from uuid import UUID

from sqlalchemy import Connection, Engine

from invoicing import setup_store, steps_store, store
from invoicing.customer_store import billing_details, obstacle
from invoicing.drafting import Drafts, fixed
from invoicing.gateway import StripeGateway
from invoicing.outcomes import Ok, Refusal, RefusedForGood, RefusedPermission, TemporaryFailure
from invoicing.plan import (
    Blocked,
    NotBilled,
    NothingToBill,
    Plan,
    ToBill,
    plan_by,
    plan_invoice,
)
from invoicing.remote import RemoteInvoice
from invoicing.schedule import due_instant
from invoicing.setup_store import StripeLink
from invoicing.states import State
from invoicing.steps import Steps, StoppedError, TakenError, UnlinkedError, value
from invoicing.store import InvoiceRow, StatementFacts
from invoicing.verify import difference, tax_trouble

COMPARED_FOR: Final = timedelta(minutes=10)  # so long a draft is taken for what it was when it was compared
AT_ONCE_DELAY: Final = timedelta(minutes=5)  # Stripe wants an instant ahead of it
READ_DELAY: Final = timedelta(hours=1)  # from the sending instant until we look whether it went out
BACKOFF_FIRST: Final = timedelta(seconds=5)
BACKOFF_MAX: Final = timedelta(hours=1)
NO_PAYMENT_METHOD: Final = "auto charge asked for, but the customer has no payment method: sent with terms"


class Worked(Enum):
    """What came of working a row, as far as the account's other rows are concerned."""

    DONE = auto()  # it stands where it needs no more work now, or someone else has it
    LATER = auto()  # Stripe did not answer; the row is kept
    PAUSED = auto()  # Stripe refuses the account: leave all its rows


@dataclass(frozen=True, slots=True)
class Invoicer:
    """Works rows off, one at a time; any number may run, on any number of machines.

    `clock` gives the present instant (aware, UTC).
    """

    engine: Engine
    gateway: StripeGateway
    clock: Callable[[], datetime]

    def work(self, invoice_id: UUID) -> Worked:
        """Bring one invoice as far as it goes now; safe to repeat, and to be killed in, at any point."""
        row = self._read(invoice_id)
        try:
            while self._advance(row):
                row = self._read(invoice_id)
        except TakenError:
            return Worked.DONE
        except UnlinkedError:
            return self._unlinked(row)
        except StoppedError as stopped:
            return self._stop(row, stopped.refusal)
        return Worked.DONE

    def _advance(self, row: InvoiceRow) -> bool:
        """Take a row one state further. False: it stands where nothing more is to be done now."""
        match row.state:
            case State.RECEIVED:
                return self._decide(row)
            case State.DRAFTING:
                return self._draft(row)
            case State.DRAFTED:
                return self._schedule(row)
            case _:
                return False

    def _decide(self, row: InvoiceRow) -> bool:
        with self.engine.begin() as connection:
            facts = None if row.statement_id is None else store.statement_facts(connection, row.statement_id)
            plan = None if facts is None else _plan(connection, row, facts)
            link = setup_store.link_in_force(connection, row.account_id)
        if facts is not None and not facts.intact:
            return self._move(row, State.BLOCKED, reason="statement_altered")
        match plan:
            case None | ToBill():
                return self._begin(row, plan, link)
            case NotBilled():
                return self._move(row, State.NOT_BILLED, reason="no_profile")
            case NothingToBill(profile_id=profile_id):
                return self._move(row, State.NOTHING_TO_BILL, reason="no_lines", profile_id=profile_id)
            case Blocked(reason=reason, profile_id=profile_id):
                return self._move(row, State.BLOCKED, reason=reason, profile_id=profile_id)
            case _:
                assert_never(plan)

    def _begin(self, row: InvoiceRow, plan: ToBill | None, link: StripeLink | None) -> bool:
        """Begin drafting in the linked account; without a plan, with the lines that a one-time invoice has already."""
        with self.engine.begin() as connection:
            reason = obstacle(billing_details(connection, row.tenant_id))
        if link is None or reason is not None:
            decided = {} if plan is None else {"profile_id": plan.profile_id}
            return self._move(row, State.BLOCKED, reason=reason or "no_stripe_link", **decided)
        if plan is None:
            return self._move(row, State.DRAFTING, stripe_account=link.stripe_account)
        with self.engine.begin() as connection:
            if not store.begin_drafting(connection, row, link.stripe_account, plan, self.clock()):
                raise TakenError
        return True

    def _draft(self, row: InvoiceRow) -> bool:
        drafts = Drafts(self.engine, self.gateway, self.clock)
        still = drafts.fill(row, self._account(row))
        if still is not None:
            return self._move(row, still.state, reason=still.reason)
        return self._move(row, State.DRAFTED)

    def _schedule(self, row: InvoiceRow) -> bool:
        account = self._account(row)
        stripe_invoice, terms, compared_at = fixed(row.stripe_invoice), fixed(row.terms), self.clock()
        remote = value(self.gateway.invoice(account, stripe_invoice))
        if (
            remote is not None
            and terms.taxes
            and remote.status == "draft"
            and remote.tax_status != "complete"
        ):
            remote = self._calculated_anew(row, account, stripe_invoice)
        if remote is None:
            return self._move(row, State.DELETED, reason="the draft was deleted in Stripe")
        if remote.status != "draft":
            return self._move(row, State.SCHEDULED, send_at=self.clock(), notice=_notice(row, remote))
        lines = value(self.gateway.invoice_lines(account, stripe_invoice))
        trouble = difference(
            row.lines, fixed(row.subtotal_minor), row.currency, remote, lines
        ) or tax_trouble(terms.taxes, remote)
        if trouble is not None:
            return self._move(row, State.HELD, reason=trouble)
        return self._let_go(row, account, remote, compared_at)

    def _calculated_anew(self, row: InvoiceRow, account: str, stripe_invoice: str) -> RemoteInvoice | None:
        """The draft after its taxes were calculated once more: the address may have been mended since."""
        self._steps.take(
            row,
            f"taxes:{self.clock():%Y%m%dT%H%M%S}",
            lambda key: self.gateway.restate_taxes(account, stripe_invoice, key, taxes=True),
            lambda: Ok(None),
        )
        return value(self.gateway.invoice(account, stripe_invoice))

    def _let_go(self, row: InvoiceRow, account: str, remote: RemoteInvoice, compared_at: datetime) -> bool:
        finalizes_at = max(fixed(row.send_at), self.clock() + AT_ONCE_DELAY)
        sends = remote.collection == "send_invoice"
        due_at = due_instant(finalizes_at, fixed(row.terms).terms_days) if sends else None
        name = f"schedule:{finalizes_at:%Y%m%dT%H%M%S}"
        step = self._steps.intend(row, [name])[name]
        with self.gateway.only_while(lambda: self.clock() - compared_at < COMPARED_FOR):
            outcome = self.gateway.schedule(account, remote.id, finalizes_at, due_at, step.idempotency_key)
            if isinstance(outcome, TemporaryFailure) and outcome.key_is_spent:
                step = self._steps.renew(row, step)  # saying the same again does no harm
                outcome = self.gateway.schedule(
                    account, remote.id, finalizes_at, due_at, step.idempotency_key
                )
        if isinstance(outcome, RefusedForGood) and self._went_out(account, remote.id):
            return self._move(row, State.SCHEDULED, send_at=self.clock(), notice=_notice(row, remote))
        value(outcome)
        with self.engine.begin() as connection:
            steps_store.finish_step(connection, row, step, remote.id, self.clock())
            changes = {"send_at": finalizes_at, "notice": _notice(row, remote)}
            look_at = finalizes_at + READ_DELAY
            if not store.move(
                connection, row, State.SCHEDULED, self.clock(), due_at=look_at, changes=changes
            ):
                raise TakenError
        return False

    def _went_out(self, account: str, stripe_invoice: str) -> bool:
        """Whether Stripe has finalised it since it was compared: an earlier update was done, and its reply lost."""
        remote = value(self.gateway.invoice(account, stripe_invoice))
        return remote is not None and remote.status != "draft"

    def _stop(self, row: InvoiceRow, refusal: Refusal) -> Worked:
        now = self.clock()
        with self.engine.begin() as connection:
            match refusal:
                case TemporaryFailure(reason=reason):
                    store.postpone(connection, row, backoff(row.attempts), reason, now)
                    return Worked.LATER
                case RefusedPermission(reason=reason):
                    link = setup_store.link_in_force(connection, row.account_id)
                    if link is not None and link.stripe_account == row.stripe_account:
                        setup_store.pause_link(connection, link, reason, now)
                    return Worked.PAUSED
                case RefusedForGood(reason=reason):
                    store.move(connection, row, State.FAILED, now, reason=reason)
                    return Worked.DONE
                case _:
                    assert_never(refusal)

    def _read(self, invoice_id: UUID) -> InvoiceRow:
        with self.engine.begin() as connection:
            return store.invoice_row(connection, invoice_id)

    def _account(self, row: InvoiceRow) -> str:
        """The Stripe account the row is being made in, while it is still linked (I11)."""
        with self.engine.begin() as connection:
            link = setup_store.link_in_force(connection, row.account_id)
        if link is None or link.stripe_account != row.stripe_account:
            raise UnlinkedError
        return link.stripe_account

    def _unlinked(self, row: InvoiceRow) -> Worked:
        with self.engine.begin() as connection:
            elsewhere = setup_store.link_in_force(connection, row.account_id) is not None
            stays = elsewhere and steps_store.perhaps_scheduled(connection, row)
            reason = "perhaps_scheduled_elsewhere" if stays else "unlinked"
            store.move(connection, row, State.BLOCKED, self.clock(), reason=reason)
        return Worked.DONE

    def _move(self, row: InvoiceRow, state: State, *, reason: str | None = None, **changes: object) -> bool:
        with self.engine.begin() as connection:
            if not store.move(connection, row, state, self.clock(), reason=reason, changes=changes):
                raise TakenError
        return True

    @property
    def _steps(self) -> Steps:
        return Steps(self.engine, self.gateway, self.clock)


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many failures in a row: doubling, up to an hour."""
    return min(BACKOFF_MAX, BACKOFF_FIRST * (1 << min(attempts, 16)))


def _plan(connection: Connection, row: InvoiceRow, facts: StatementFacts) -> Plan:
    """By the version in force when the statement was generated, or the one that a retry chose."""
    versions = setup_store.profile_versions(connection, row.tenant_id)
    for version in versions:
        if version.id == row.profile_id:
            return plan_by(version, facts.statement, facts.generated_at)
    return plan_invoice(facts.statement, facts.generated_at, versions)


def _notice(row: InvoiceRow, remote: RemoteInvoice) -> str | None:
    """What went otherwise than the profile asked (I4): told by the draft itself, however often it was taken up."""
    charged_by_hand = fixed(row.terms).auto_charge and remote.collection == "send_invoice"
    return NO_PAYMENT_METHOD if charged_by_hand else None

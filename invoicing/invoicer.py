"""One statement to at most one invoice, whatever breaks on the way (I2, I7, I8).

A row is worked from wherever it stands: decide, begin a draft that does not send itself, put the lines on it, compare,
and only then let Stripe send it. Before each outside step its intent and idempotency key are committed, after it
Stripe's id; whoever comes after a crash repeats the last step under the same key. Where that key may have been
forgotten, or gives no answer any more, what was done is read from Stripe's lists before a fresh key is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, TypeVar, assert_never
from uuid import UUID

from sqlalchemy import Engine

from invoicing import setup_store, steps_store, store
from invoicing.gateway import StripeGateway
from invoicing.outcomes import Ok, Outcome, Refusal, RefusedForGood, RefusedPermission, TemporaryFailure
from invoicing.plan import Blocked, InvoiceTerms, NotBilled, NothingToBill, ToBill, plan_invoice
from invoicing.remote import Collection, Customer, DraftFacts, ItemFacts, RemoteInvoice
from invoicing.schedule import due_instant
from invoicing.setup_store import StripeLink
from invoicing.states import State
from invoicing.steps_store import Step
from invoicing.store import InvoiceRow
from invoicing.verify import difference, tax_trouble

AT_ONCE_DELAY: Final = timedelta(minutes=5)  # Stripe wants an instant ahead of it
READ_DELAY: Final = timedelta(hours=1)  # from the sending instant until we look whether it went out
BACKOFF_FIRST: Final = timedelta(seconds=5)
BACKOFF_MAX: Final = timedelta(hours=1)
NO_PAYMENT_METHOD: Final = "auto charge asked for, but the customer has no payment method: sent with terms"

_T = TypeVar("_T")


class Worked(Enum):
    """What came of working a row, as far as the account's other rows are concerned."""

    DONE = auto()  # it stands where it needs no more work now, or someone else has it
    LATER = auto()  # Stripe did not answer; the row is kept
    PAUSED = auto()  # Stripe refuses the account: leave all its rows


class _StoppedError(Exception):
    """A step was refused; caught where the row's state is changed for it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class _TakenError(Exception):
    """Someone else moved the row meanwhile: leave it to them."""


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
        try:
            while self._advance(row := self._read(invoice_id)):
                pass
        except _TakenError:
            return Worked.DONE
        except _StoppedError as stopped:
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
        if row.statement_id is None:
            raise ValueError(f"invoice {row.id} has no statement to be decided from")
        with self.engine.begin() as connection:
            facts = store.statement_facts(connection, row.statement_id)
            versions = setup_store.profile_versions(connection, row.tenant_id)
            link = setup_store.link_in_force(connection, row.account_id)
        if not facts.intact:
            return self._move(row, State.BLOCKED, reason="statement_altered")
        plan = plan_invoice(facts.statement, facts.generated_at, versions)
        match plan:
            case NotBilled():
                return self._move(row, State.NOT_BILLED, reason="no_profile")
            case NothingToBill(profile_id=profile_id):
                return self._move(row, State.NOTHING_TO_BILL, reason="no_lines", profile_id=profile_id)
            case Blocked(reason=reason, profile_id=profile_id):
                return self._move(row, State.BLOCKED, reason=reason, profile_id=profile_id)
            case ToBill():
                return self._begin(row, plan, link)
            case _:
                assert_never(plan)

    def _begin(self, row: InvoiceRow, plan: ToBill, link: StripeLink | None) -> bool:
        if link is None:
            return self._move(row, State.BLOCKED, reason="no_stripe_link", profile_id=plan.profile_id)
        with self.engine.begin() as connection:
            if not store.begin_drafting(connection, row, link.stripe_account, plan, self.clock()):
                raise _TakenError
        return True

    def _draft(self, row: InvoiceRow) -> bool:
        account = self._account(row)
        if account is None:
            return self._move(row, State.BLOCKED, reason="unlinked")
        if (
            row.stripe_invoice is not None
            and _value(self.gateway.invoice(account, row.stripe_invoice)) is None
        ):
            return self._move(row, State.DELETED, reason="the draft was deleted in Stripe")
        terms = _set(row.terms)
        customer = self._customer(row, account)
        if customer is None:
            return self._move(row, State.BLOCKED, reason="no_tenant_details")
        collection, notice = self._collection(account, customer, terms)
        stripe_invoice = self._create_draft(row, account, customer, collection)
        with self.engine.begin() as connection:
            store.note(connection, row, notice, stripe_invoice)
        self._add_items(row, account, customer, stripe_invoice)
        return self._move(row, State.DRAFTED)

    def _customer(self, row: InvoiceRow, account: str) -> str | None:
        with self.engine.begin() as connection:
            known = setup_store.customer_of(connection, row.tenant_id, account)
            facts = setup_store.customer_facts(connection, row.tenant_id)
        if known is not None or facts is None:
            return known

        def find() -> Outcome[str | None]:
            return _name(self.gateway.find_customer(account, facts))

        # listed even before the first try: an invoice of another month may have been killed right after making it
        made = _value(find()) or self._take(
            row, "customer", lambda key: _named(self.gateway.create_customer(account, facts, key)), find
        )
        with self.engine.begin() as connection:
            setup_store.save_customer(connection, row.tenant_id, account, made, "ours", self.clock())
            return setup_store.customer_of(connection, row.tenant_id, account)

    def _collection(self, account: str, customer: str, terms: InvoiceTerms) -> tuple[Collection, str | None]:
        if not terms.auto_charge:
            return "send_invoice", None
        if _value(self.gateway.customer(account, customer)).chargeable:
            return "charge_automatically", None
        return "send_invoice", NO_PAYMENT_METHOD

    def _create_draft(self, row: InvoiceRow, account: str, customer: str, collection: Collection) -> str:
        terms = _set(row.terms)
        finalizes_at = max(_set(row.send_at), self.clock() + AT_ONCE_DELAY)
        sends = collection == "send_invoice"
        facts = DraftFacts(
            reference=row.reference,
            statement_id=row.statement_id,
            customer=customer,
            currency=row.currency,
            collection=collection,
            due_at=due_instant(finalizes_at, terms.terms_days) if sends else None,
            taxes=terms.taxes,
        )
        return self._take(
            row,
            "draft",
            lambda key: self.gateway.create_draft(account, facts, key),
            lambda: self.gateway.find_invoice(account, customer, row.reference),
        )

    def _add_items(self, row: InvoiceRow, account: str, customer: str, stripe_invoice: str) -> None:
        taxes = _set(row.terms).taxes
        with self.engine.begin() as connection:
            intended = steps_store.intend(
                connection, row, [_item(line.key) for line in row.lines], self.clock()
            )
        for line in row.lines:
            if intended[_item(line.key)].result is None:
                self._add_item(row, account, ItemFacts(customer, stripe_invoice, row.currency, line, taxes))

    def _add_item(self, row: InvoiceRow, account: str, facts: ItemFacts) -> None:
        self._take(
            row,
            _item(facts.line.key),
            lambda key: self.gateway.add_item(account, facts, key),
            lambda: self._find_item(account, facts.stripe_invoice, facts.line.key),
        )

    def _find_item(self, account: str, stripe_invoice: str, line_key: str) -> Outcome[str | None]:
        outcome = self.gateway.invoice_lines(account, stripe_invoice)
        if not isinstance(outcome, Ok):
            return outcome
        return Ok(next((line.item for line in outcome.value if line.key == line_key), None))

    def _schedule(self, row: InvoiceRow) -> bool:
        account = self._account(row)
        if account is None:
            return self._move(row, State.BLOCKED, reason="unlinked")
        stripe_invoice = _set(row.stripe_invoice)
        remote = _value(self.gateway.invoice(account, stripe_invoice))
        if remote is None:
            return self._move(row, State.DELETED, reason="the draft was deleted in Stripe")
        if remote.status != "draft":
            return self._move(row, State.SCHEDULED, send_at=self.clock())
        lines = _value(self.gateway.invoice_lines(account, stripe_invoice))
        terms = _set(row.terms)
        trouble = difference(row.lines, _set(row.subtotal_minor), row.currency, remote, lines) or tax_trouble(
            terms.taxes, remote
        )
        if trouble is not None:
            return self._move(row, State.HELD, reason=trouble)
        return self._let_go(row, account, remote)

    def _let_go(self, row: InvoiceRow, account: str, remote: RemoteInvoice) -> bool:
        finalizes_at = max(_set(row.send_at), self.clock() + AT_ONCE_DELAY)
        sends = remote.collection == "send_invoice"
        due_at = due_instant(finalizes_at, _set(row.terms).terms_days) if sends else None
        name = f"schedule:{finalizes_at:%Y%m%dT%H%M%S}"
        with self.engine.begin() as connection:
            step = steps_store.intend(connection, row, [name], self.clock())[name]
        outcome = self.gateway.schedule(account, remote.id, finalizes_at, due_at, step.idempotency_key)
        if isinstance(outcome, TemporaryFailure) and outcome.key_is_spent:
            step = self._renew(row, step)  # saying the same again does no harm
            outcome = self.gateway.schedule(account, remote.id, finalizes_at, due_at, step.idempotency_key)
        _value(outcome)
        with self.engine.begin() as connection:
            steps_store.finish_step(connection, row, step, remote.id, self.clock())
            changes = {"send_at": finalizes_at}
            look_at = finalizes_at + READ_DELAY
            if not store.move(
                connection, row, State.SCHEDULED, self.clock(), due_at=look_at, changes=changes
            ):
                raise _TakenError
        return False

    def _take(
        self,
        row: InvoiceRow,
        name: str,
        call: Callable[[str], Outcome[str]],
        find: Callable[[], Outcome[str | None]],
    ) -> str:
        """Take an outside step once: intent, call, result; gives Stripe's id (I7).

        `find` reads from Stripe's lists what an earlier try may have done.
        """
        with self.engine.begin() as connection:
            step = steps_store.intend(connection, row, [name], self.clock())[name]
        if step.result is not None:
            return step.result
        if self.clock() - step.intended_at >= steps_store.KEY_TRUST:
            return self._take_afresh(row, step, call, find)
        outcome = call(step.idempotency_key)
        if isinstance(outcome, TemporaryFailure) and outcome.key_is_spent:
            return self._take_afresh(row, step, call, find)
        return self._finish(row, step, _value(outcome))

    def _take_afresh(
        self,
        row: InvoiceRow,
        step: Step,
        call: Callable[[str], Outcome[str]],
        find: Callable[[], Outcome[str | None]],
    ) -> str:
        found = _value(find())
        if found is not None:
            return self._finish(row, step, found)
        renewed = self._renew(row, step)
        return self._finish(row, renewed, _value(call(renewed.idempotency_key)))

    def _renew(self, row: InvoiceRow, step: Step) -> Step:
        with self.engine.begin() as connection:
            renewed = steps_store.renew_key(connection, row, step, self.clock())
        if renewed is None:
            raise _TakenError
        return renewed

    def _finish(self, row: InvoiceRow, step: Step, result: str) -> str:
        with self.engine.begin() as connection:
            if steps_store.finish_step(connection, row, step, result, self.clock()):
                return result
            settled = steps_store.steps(connection, row)[step.name].result
        if settled is None:
            raise _TakenError
        return settled

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

    def _account(self, row: InvoiceRow) -> str | None:
        """The Stripe account the row is being made in, while it is still linked."""
        with self.engine.begin() as connection:
            link = setup_store.link_in_force(connection, row.account_id)
        return row.stripe_account if link is not None and link.stripe_account == row.stripe_account else None

    def _move(self, row: InvoiceRow, state: State, *, reason: str | None = None, **changes: object) -> bool:
        with self.engine.begin() as connection:
            if not store.move(connection, row, state, self.clock(), reason=reason, changes=changes):
                raise _TakenError
        return True


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many failures in a row: doubling, up to an hour."""
    return min(BACKOFF_MAX, BACKOFF_FIRST * (1 << min(attempts, 16)))


def _value(outcome: Outcome[_T]) -> _T:
    if isinstance(outcome, Ok):
        return outcome.value
    raise _StoppedError(outcome)


def _set(value: _T | None) -> _T:
    if value is None:
        raise ValueError("a row that is being drafted lacks what was fixed when drafting began")
    return value


def _named(outcome: Outcome[Customer]) -> Outcome[str]:
    return Ok(outcome.value.id) if isinstance(outcome, Ok) else outcome


def _name(outcome: Outcome[Customer | None]) -> Outcome[str | None]:
    if isinstance(outcome, Ok):
        return Ok(None if outcome.value is None else outcome.value.id)
    return outcome


def _item(line_key: str) -> str:
    return f"item:{line_key}"

"""A draft in Stripe that does not send itself, with every line on it (I2, I4, I5).

It is begun once and filled from wherever it stands; each request is a step that is taken once (I7). Once it is begun its
customer stays, whomever the tenant is linked to meanwhile: Stripe takes no line of another customer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Engine

from invoicing import customer_store, steps_store, store
from invoicing.customer_store import obstacle
from invoicing.customers import Customers
from invoicing.gateway import StripeGateway
from invoicing.lines import InvoiceLine
from invoicing.outcomes import Ok, Outcome
from invoicing.remote import Collection, DraftFacts, ItemFacts, RemoteInvoice
from invoicing.schedule import due_instant
from invoicing.states import State
from invoicing.steps import Steps, TakenError, value
from invoicing.store import InvoiceRow

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Standstill:
    """Why an invoice cannot be gone on with, and the state it is in for that."""

    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class _Draft:
    """What was begun in Stripe, and for which customer."""

    id: str
    customer: str


@dataclass(frozen=True, slots=True)
class Drafts:
    """Begins and fills the drafts of invoices. `clock` gives the present instant (aware, UTC)."""

    engine: Engine
    gateway: StripeGateway
    clock: Callable[[], datetime]

    def fill(self, row: InvoiceRow, account: str) -> Standstill | None:
        """Begin the draft where there is none, and put its missing lines on it. None: it is whole.

        Raises:
            StoppedError: Stripe refused, or did not answer.
            TakenError: someone else is at it.
            UnlinkedError: the account is not linked any more.
        """
        begun = None
        if row.stripe_invoice is not None:
            begun = value(self.gateway.invoice(account, row.stripe_invoice))
            if begun is None:
                return Standstill(State.DELETED, "the draft was deleted in Stripe")
        with self.engine.begin() as connection:
            details = customer_store.billing_details(connection, row.tenant_id)
        reason = obstacle(details)
        if reason is not None:
            return Standstill(State.BLOCKED, reason)
        customers = Customers(self.engine, self.gateway, self.clock)
        customer = customers.of_invoice(row, account, fixed(details), taxes=fixed(row.terms).taxes)
        draft = self._begin(row, account, customer) if begun is None else _Draft(begun.id, begun.customer)
        missing = self._missing(row)
        if missing and begun is not None and begun.status != "draft":
            return _finalised_too_early(begun)
        for line in missing:
            self._add_item(row, account, draft, line)
        return None

    def _begin(self, row: InvoiceRow, account: str, customer: str) -> _Draft:
        terms = fixed(row.terms)
        collection = self._collection(account, customer) if terms.auto_charge else "send_invoice"
        facts = DraftFacts(
            reference=row.reference,
            statement_id=row.statement_id,
            customer=customer,
            currency=row.currency,
            collection=collection,
            due_at=self._due_meanwhile(row) if collection == "send_invoice" else None,
            taxes=terms.taxes,
        )
        stripe_invoice = self._steps.take(
            row,
            "draft",
            lambda key: self.gateway.create_draft(account, facts, key),
            lambda: self.gateway.find_invoice(account, customer, row.reference),
        )
        with self.engine.begin() as connection:
            if not store.keep_draft(connection, row, stripe_invoice):
                raise TakenError
        return _Draft(stripe_invoice, customer)

    def _collection(self, account: str, customer: str) -> Collection:
        chargeable = value(self.gateway.customer(account, customer)).chargeable
        return "charge_automatically" if chargeable else "send_invoice"

    def _due_meanwhile(self, row: InvoiceRow) -> datetime:
        """A draft's due date until it is scheduled: one key always asks for the same, and never for a day gone by."""
        intended_at, now = self._steps.intend(row, ["draft"])["draft"].intended_at, self.clock()
        asked_at = intended_at if now - intended_at < steps_store.KEY_TRUST else now
        return due_instant(max(fixed(row.send_at), asked_at), fixed(row.terms).terms_days + 2)

    def _missing(self, row: InvoiceRow) -> list[InvoiceLine]:
        """The lines that are not known to be on the draft, written down as steps."""
        intended = self._steps.intend(row, [_item(line.key) for line in row.lines])
        return [line for line in row.lines if intended[_item(line.key)].result is None]

    def _add_item(self, row: InvoiceRow, account: str, draft: _Draft, line: InvoiceLine) -> None:
        facts = ItemFacts(draft.customer, draft.id, row.currency, line, fixed(row.terms).taxes)
        self._steps.take(
            row,
            _item(line.key),
            lambda key: self.gateway.add_item(account, facts, key),
            lambda: self._find_item(account, draft.id, line.key),
        )

    def _find_item(self, account: str, stripe_invoice: str, line_key: str) -> Outcome[str | None]:
        outcome = self.gateway.invoice_lines(account, stripe_invoice)
        if not isinstance(outcome, Ok):
            return outcome
        return Ok(next((line.item for line in outcome.value if line.key == line_key), None))

    @property
    def _steps(self) -> Steps:
        return Steps(self.engine, self.gateway, self.clock)


def fixed(given: _T | None) -> _T:
    """What was fixed on a row when its drafting began."""
    if given is None:
        raise ValueError("a row that is being drafted lacks what was fixed when drafting began")
    return given


def _finalised_too_early(begun: RemoteInvoice) -> Standstill:
    """Someone finalised it in Stripe before all lines were on it: once they have voided it, it can be made anew."""
    if begun.status == "void":
        return Standstill(State.DELETED, "voided in Stripe before it was whole")
    return Standstill(State.HELD, "finalised in Stripe before it was whole: void it there")


def _item(line_key: str) -> str:
    return f"item:{line_key}"

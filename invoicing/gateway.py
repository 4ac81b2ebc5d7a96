"""Stripe: what can be asked of it, and the only module that asks (through `door`).

Each call names the account's own Stripe account (I11) and gives an outcome as a type, never Stripe's exception (I8).
Each call that changes something takes an idempotency key from its caller, who wrote it down first (I7). The API key
stays inside: it is in no representation, reason or log. There is no application fee, and nothing is ever deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import stripe

from invoicing import readings, wording
from invoicing.door import TIMEOUT_SECONDS, Door, Limiter, Unlimited
from invoicing.outcomes import Ok, Outcome, RefusedForGood, TemporaryFailure
from invoicing.refusals import refusal
from invoicing.remote import (
    Customer,
    CustomerFacts,
    DraftFacts,
    ItemFacts,
    RemoteInvoice,
    RemoteLine,
    RemoteTaxes,
)

API_BASE: Final = "https://api.stripe.com"
PAGE_SIZE: Final = 100  # Stripe's maximum

_T = TypeVar("_T")


class StripeGateway:
    """Stripe's API for the accounts linked to us; safe to use from several threads.

    `limiter` is asked before each request, the library's own repeats included.
    """

    def __init__(
        self,
        api_key: str,
        *,
        api_base: str = API_BASE,
        network_retries_max: int = 2,
        timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
        limiter: Limiter | None = None,
    ) -> None:
        stripe.enable_telemetry = False
        self._door = Door(timeout_seconds, limiter or Unlimited())
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base.rstrip("/")},
            max_network_retries=network_retries_max,
            http_client=self._door,
        )

    def __repr__(self) -> str:
        return "StripeGateway()"

    def only_while(self, allowed: Callable[[], bool]) -> AbstractContextManager[None]:
        """Within the block, in this thread, let requests go only while this is still so when their turn has come (I7).

        One that may not go is a temporary failure: it never left.
        """
        return self._door.only_while(allowed)

    def create_customer(
        self, account: str, facts: CustomerFacts, key: str, *, locate: bool = False
    ) -> Outcome[Customer]:
        """Make the tenant's customer, with the fields of I5 and nothing more.

        `locate`: Stripe refuses an address that it cannot calculate taxes for (I1).
        """
        params = wording.new_customer(facts, locate=locate)
        options = _options(account, key)
        return self._call(
            account, lambda: readings.customer(self._client.v1.customers.create(params, options))
        )

    def update_customer(
        self, account: str, customer: str, facts: CustomerFacts, key: str, *, locate: bool = False
    ) -> Outcome[Customer]:
        """Tell Stripe a tenant's changed details: the same fields, and nothing of how it pays (I5)."""
        params = wording.customer(facts, locate=locate)
        options = _options(account, key)
        return self._call(
            account, lambda: readings.customer(self._client.v1.customers.update(customer, params, options))
        )

    def tax_location(self, account: str, customer: str) -> Outcome[str]:
        """Whether Stripe can calculate taxes where a customer is: `supported`, `not_collecting`, or why not (I1)."""
        options = _options(account)
        return self._call(
            account,
            lambda: readings.tax_location(
                self._client.v1.customers.retrieve(customer, {"expand": ["tax"]}, options)
            ),
        )

    def customer(self, account: str, customer: str) -> Outcome[Customer]:
        """Read a customer; one deleted in Stripe is refused for good."""
        options = _options(account)
        outcome = self._call(account, lambda: self._client.v1.customers.retrieve(customer, options=options))
        match outcome:
            case Ok(found) if getattr(found, "deleted", False):
                return RefusedForGood(f"customer {customer} was deleted in Stripe")
            case Ok(found):
                return Ok(readings.customer(found))
            case refusal:
                return refusal

    def find_customer(self, account: str, facts: CustomerFacts) -> Outcome[Customer | None]:
        """The customer made earlier for this reference, by listing all pages, never by search (I7)."""
        wanted = str(facts.reference)
        return self._first(
            account,
            self._client.v1.customers.list,
            {"email": facts.email},
            lambda each: (
                readings.customer(each) if readings.metadata(each).get("tenant_reference") == wanted else None
            ),
        )

    def create_draft(self, account: str, facts: DraftFacts, key: str) -> Outcome[str]:
        """Begin an invoice that does not send itself (`auto_advance` off, I2); gives its id."""
        params = wording.draft(facts)
        options = _options(account, key)
        return self._call(account, lambda: _id(self._client.v1.invoices.create(params, options)))

    def find_invoice(self, account: str, customer: str, reference: str) -> Outcome[str | None]:
        """The id of the invoice begun earlier under this reference: all states, all pages, never search (I7)."""
        return self._first(
            account,
            self._client.v1.invoices.list,
            {"customer": customer},
            lambda each: _id(each) if readings.metadata(each).get("request") == reference else None,
        )

    def add_item(self, account: str, facts: ItemFacts, key: str) -> Outcome[str]:
        """Put one line on a draft; gives the item's id. The amount is sent as a whole number, rounded by us (I3)."""
        params = wording.item(facts)
        options = _options(account, key)
        return self._call(account, lambda: _id(self._client.v1.invoice_items.create(params, options)))

    def invoice(self, account: str, stripe_invoice: str) -> Outcome[RemoteInvoice | None]:
        """Read an invoice; None where it was deleted in Stripe."""
        return self._read_invoice(account, stripe_invoice, readings.invoice)

    def invoice_lines(self, account: str, stripe_invoice: str) -> Outcome[tuple[RemoteLine, ...]]:
        """All lines of an invoice, all pages."""
        pages = self._pages(
            account,
            lambda params, options: self._client.v1.invoices.line_items.list(stripe_invoice, params, options),
            {},
        )
        lines: list[RemoteLine] = []
        for page in pages:
            match page:
                case Ok(found):
                    lines.extend(readings.line(each) for each in found)
                case refusal:
                    return refusal
        return Ok(tuple(lines))

    def restate_taxes(self, account: str, stripe_invoice: str, key: str, *, taxes: bool) -> Outcome[str]:
        """State a draft's automatic tax again, which has Stripe calculate it anew (I4)."""
        params: Any = {"automatic_tax": {"enabled": taxes}}
        options = _options(account, key)
        return self._call(
            account, lambda: _id(self._client.v1.invoices.update(stripe_invoice, params, options))
        )

    def taxes(self, account: str, stripe_invoice: str) -> Outcome[RemoteTaxes | None]:
        """What Stripe says of an invoice's taxes; None where it was deleted in Stripe."""
        return self._read_invoice(account, stripe_invoice, readings.taxes)

    def schedule(
        self, account: str, stripe_invoice: str, finalizes_at: datetime, due_at: datetime | None, key: str
    ) -> Outcome[None]:
        """The one last update: from here on Stripe finalises and sends the invoice by itself (I2)."""
        params = wording.schedule(finalizes_at, due_at)
        options = _options(account, key)
        return self._call(
            account, lambda: _nothing(self._client.v1.invoices.update(stripe_invoice, params, options))
        )

    def _read_invoice(
        self, account: str, stripe_invoice: str, take: Callable[[Any], _T]
    ) -> Outcome[_T | None]:
        options = _options(account)

        def read() -> _T | None:
            try:
                found = self._client.v1.invoices.retrieve(stripe_invoice, options=options)
            except stripe.InvalidRequestError as error:
                if error.http_status == 404 and error.code == "resource_missing":
                    return None
                raise
            return None if getattr(found, "deleted", False) else take(found)

        return self._call(account, read)

    def _first(
        self,
        account: str,
        lister: Callable[..., Any],
        params: dict[str, Any],
        take: Callable[[Any], _T | None],
    ) -> Outcome[_T | None]:
        for page in self._pages(account, lister, params):
            match page:
                case Ok(found):
                    for each in found:
                        if (taken := take(each)) is not None:
                            return Ok(taken)
                case refusal:
                    return refusal
        return Ok(None)

    def _pages(
        self, account: str, lister: Callable[..., Any], params: dict[str, Any]
    ) -> Iterator[Outcome[list[Any]]]:
        """Page by page, each admitted by itself; ends after the last page or the first refusal."""
        after: dict[str, str] = {}
        while True:
            query = {**params, **after, "limit": PAGE_SIZE}
            page = self._call(account, partial(lister, query, _options(account)))
            if not isinstance(page, Ok):
                yield page
                return
            found = list(page.value.data)
            yield Ok(found)
            if not page.value.has_more or not found:
                return
            after = {"starting_after": found[-1].id}

    def _call(self, account: str, request: Callable[[], _T]) -> Outcome[_T]:
        if not account:
            raise ValueError("a request that names no Stripe account would be done in our own")
        try:
            return Ok(request())
        except stripe.StripeError as error:
            return refusal(error)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return TemporaryFailure(f"Stripe's answer was not understood ({type(error).__name__})")


def _options(account: str, key: str | None = None) -> stripe.RequestOptions:
    options: stripe.RequestOptions = {"stripe_account": account}
    if key is not None:
        options["idempotency_key"] = key
    return options


def _id(found: Any) -> str:  # noqa: ANN401 (Stripe's objects are typed loosely)
    return str(found.id)


def _nothing(_found: object) -> None:
    return None

"""What the contract is tried with: who speaks Stripe's API, and every request that the gateway makes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar
from uuid import UUID, uuid5

import pytest
import requests
import stripe

from invoicing.gateway import StripeGateway
from invoicing.outcomes import Ok, Outcome
from invoicing.remote import Customer, CustomerFacts, DraftFacts, ItemFacts, RemoteInvoice, RemoteTaxes
from tests.invoicing.test_gateway import LINE, WHO

NAMES = UUID("5f6c7a52-6f3c-4d6e-9b58-6a3f5d1f6d11")
STARTED_AT = datetime.now(UTC)  # noqa: TID251 (the run's own instant, which Stripe compares with its present)
_serial = count(1)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Api:
    """One thing that speaks Stripe's API. `stateful`: what was made can be read again."""

    name: str
    url: str
    key: str
    account: str
    stateful: bool
    gateway: StripeGateway

    def fresh(self) -> str:
        """A name that nothing had before, in this run or an earlier one."""
        return f"contract-{STARTED_AT:%Y%m%dT%H%M%S}-{next(_serial)}"

    def send(self, method: str, path: str, body: Mapping[str, str], **headers: str) -> requests.Response:
        sent = {"Authorization": f"Bearer {self.key}", "Stripe-Account": self.account, **headers}
        place = {"params": body} if method == "GET" else {"data": body}
        return requests.request(method, self.url + path, headers=sent, timeout=30, **place)  # type: ignore[arg-type]

    def client(self) -> stripe.StripeClient:
        return stripe.StripeClient(
            self.key,
            stripe_account=self.account,
            base_addresses={"api": self.url},
            http_client=stripe.RequestsClient(timeout=30),
        )


def api(name: str, url: str, key: str, account: str, *, stateful: bool) -> Api:
    gateway = StripeGateway(key, api_base=url, network_retries_max=0)
    return Api(name, url, key, account, stateful, gateway)


def stripe_itself() -> tuple[str, str] | None:
    """A test key and a connected test account, where someone has set both for this very purpose."""
    key = os.environ.get("STRIPE_CONTRACT_TEST_KEY", "")  # noqa: TID251 (the run's own switch)
    account = os.environ.get("STRIPE_CONTRACT_TEST_ACCOUNT", "")  # noqa: TID251 (same)
    if not key:
        return None
    if not re.fullmatch(r"[sr]k_test_\w+", key) or not re.fullmatch(r"acct_\w+", account):
        pytest.fail("the contract is tried with a test key and a connected account only", pytrace=False)
    return key, account


@dataclass(frozen=True)
class Made:
    """A customer with a draft of one line."""

    who: CustomerFacts
    customer: str
    reference: str
    draft: str
    item: str


def got(outcome: Outcome[_T]) -> _T:
    assert isinstance(outcome, Ok), outcome
    return outcome.value


def days_ahead(days: int) -> datetime:
    return (STARTED_AT + timedelta(days=days)).replace(microsecond=0)


def somebody(api: Api) -> CustomerFacts:
    name = api.fresh()
    return replace(WHO, reference=uuid5(NAMES, name), email=f"{name}@example.com")


def new_draft(api: Api, customer: str, **fields: Any) -> DraftFacts:
    sent: dict[str, Any] = {"collection": "send_invoice", "due_at": days_ahead(30), "taxes": False, **fields}
    return DraftFacts(
        reference=api.fresh(), statement_id=UUID(int=9), customer=customer, currency="USD", **sent
    )


def line_for(customer: str, draft: str, *, taxes: bool = False) -> ItemFacts:
    return ItemFacts(customer, draft, "USD", LINE, taxes)


def made(api: Api) -> Made:
    who = somebody(api)
    customer = got(api.gateway.create_customer(api.account, who, api.fresh())).id
    facts = new_draft(api, customer)
    draft = got(api.gateway.create_draft(api.account, facts, api.fresh()))
    item = got(api.gateway.add_item(api.account, line_for(customer, draft), api.fresh()))
    return Made(who, customer, facts.reference, draft, item)


def is_customer(found: Any) -> bool:
    return isinstance(found, Customer) and found.id.startswith("cus_") and isinstance(found.chargeable, bool)


def is_invoice(found: Any) -> bool:
    return (
        isinstance(found, RemoteInvoice)
        and found.id.startswith("in_")
        and found.status in {"draft", "open", "paid", "uncollectible", "void"}
        and isinstance(found.subtotal_minor, int)
        and found.currency == "USD"
    )


Asking = Callable[[Api, Made], Outcome[Any]]
ASKED: dict[str, list[tuple[Asking, Callable[[Any], bool]]]] = {
    "create_customer": [
        (lambda a, _: a.gateway.create_customer(a.account, somebody(a), a.fresh()), is_customer),
        (
            lambda a, _: a.gateway.create_customer(
                a.account, replace(somebody(a), line2="Suite 4"), a.fresh(), locate=True
            ),
            is_customer,
        ),
    ],
    "update_customer": [
        (
            lambda a, m: a.gateway.update_customer(a.account, m.customer, m.who, a.fresh()),
            is_customer,
        ),
        (
            lambda a, m: a.gateway.update_customer(a.account, m.customer, m.who, a.fresh(), locate=True),
            is_customer,
        ),
    ],
    "customer": [(lambda a, m: a.gateway.customer(a.account, m.customer), is_customer)],
    "tax_location": [
        (lambda a, m: a.gateway.tax_location(a.account, m.customer), lambda x: isinstance(x, str))
    ],
    "find_customer": [
        (
            lambda a, m: a.gateway.find_customer(a.account, m.who),
            lambda x: x is None or is_customer(x),
        )
    ],
    "create_draft": [
        (lambda a, m: a.gateway.create_draft(a.account, new_draft(a, m.customer), a.fresh()), bool),
        (
            lambda a, m: a.gateway.create_draft(
                a.account,
                new_draft(a, m.customer, collection="charge_automatically", due_at=None, taxes=True),
                a.fresh(),
            ),
            bool,
        ),
    ],
    "find_invoice": [
        (
            lambda a, m: a.gateway.find_invoice(a.account, m.customer, m.reference),
            lambda x: x is None or bool(x),
        )
    ],
    "add_item": [
        (lambda a, m: a.gateway.add_item(a.account, line_for(m.customer, m.draft), a.fresh()), bool),
        (
            lambda a, m: a.gateway.add_item(a.account, line_for(m.customer, m.draft, taxes=True), a.fresh()),
            bool,
        ),
    ],
    "invoice": [(lambda a, m: a.gateway.invoice(a.account, m.draft), is_invoice)],
    "invoice_lines": [
        (
            lambda a, m: a.gateway.invoice_lines(a.account, m.draft),
            lambda x: bool(x) and all(isinstance(each.amount_minor, int) and each.item for each in x),
        )
    ],
    "restate_taxes": [
        (lambda a, m: a.gateway.restate_taxes(a.account, m.draft, a.fresh(), taxes=False), bool)
    ],
    "taxes": [(lambda a, m: a.gateway.taxes(a.account, m.draft), lambda x: isinstance(x, RemoteTaxes))],
    "schedule": [
        (
            lambda a, m: a.gateway.schedule(a.account, m.draft, days_ahead(10), days_ahead(40), a.fresh()),
            lambda x: x is None,
        )
    ],
}

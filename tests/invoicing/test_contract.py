"""One contract for the sandbox, for Stripe's published OpenAPI (stripe-mock), and for Stripe itself.

Every request that the gateway makes is taken, and its answer has the shape that we read; what Stripe does not know is
refused. stripe-mock keeps nothing, so what needs a memory runs where there is one: on the sandbox, and on Stripe.

Stripe itself is asked only where both `STRIPE_CONTRACT_TEST_KEY` (a test key) and `STRIPE_CONTRACT_TEST_ACCOUNT` (a
connected test account) are set; no other variable is looked at. Without Go there is no stripe-mock: said aloud, and in
CI (`CI` or `REQUIRE_STRIPE_MOCK` is set) a failure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import requests
import stripe

from deploy.stack.stripe_mock import StripeMock, stripe_mock_available
from invoicing.gateway import API_BASE, StripeGateway
from invoicing.outcomes import Ok, RefusedForGood, RefusedPermission, TemporaryFailure
from invoicing.sandbox import Sandbox
from tests.invoicing.contract import (
    ASKED,
    Api,
    Made,
    api,
    days_ahead,
    got,
    line_for,
    made,
    new_draft,
    somebody,
    stripe_itself,
)
from tests.invoicing.test_gateway import LINE

WITH_MEMORY = ["sandbox", *(["stripe"] if stripe_itself() is not None else [])]


@pytest.fixture(scope="module")
def apis() -> Iterator[Callable[[str], Api]]:
    running: dict[str, Api] = {}
    sandbox, mock = Sandbox(), StripeMock()

    def start(name: str) -> Api:
        if name == "sandbox":
            url = sandbox.start().url
            return api(name, url, "sk_test_sandbox", "acct_reseller", stateful=True)
        if name == "stripe-mock":
            _require_stripe_mock()
            return api(name, mock.start().url, "sk_test_x", "acct_reseller", stateful=False)
        real = stripe_itself()
        assert real is not None
        return api(name, API_BASE, *real, stateful=True)

    def get(name: str) -> Api:
        if name not in running:
            running[name] = start(name)
        return running[name]

    yield get
    mock.stop()
    if "sandbox" in running:
        sandbox.stop()


def _require_stripe_mock() -> None:
    obstacle = stripe_mock_available()
    switches = ("CI", "REQUIRE_STRIPE_MOCK")
    required = any(os.environ.get(each, "").lower() not in {"", "0", "false"} for each in switches)  # noqa: TID251 (same)
    if obstacle is not None and required:
        pytest.fail(f"stripe-mock is required here: {obstacle}", pytrace=False)
    if obstacle is not None:
        pytest.skip(f"NOT RUN against Stripe's OpenAPI: {obstacle}")


@pytest.fixture(params=[*WITH_MEMORY, "stripe-mock"])
def anyone(request: pytest.FixtureRequest, apis: Callable[[str], Api]) -> Api:
    """Each of them in turn."""
    return apis(request.param)


@pytest.fixture(params=WITH_MEMORY)
def someone(request: pytest.FixtureRequest, apis: Callable[[str], Api]) -> Api:
    """Each of them that remembers, in turn."""
    return apis(request.param)


CASES = [(name, position) for name, ways in ASKED.items() for position in range(len(ways))]


@pytest.fixture(scope="module")
def made_in(apis: Callable[[str], Api]) -> Callable[[str], Made]:
    """What each request is about, made once for each API."""
    done: dict[str, Made] = {}

    def get(name: str) -> Made:
        if name not in done:
            done[name] = made(apis(name))
        return done[name]

    return get


@pytest.mark.parametrize(("name", "position"), CASES, ids=[f"{name}-{way}" for name, way in CASES])
def test_each_request_of_ours_is_taken_and_its_answer_understood(
    anyone: Api, made_in: Callable[[str], Made], name: str, position: int
) -> None:
    ask, is_right = ASKED[name][position]
    answer = got(ask(anyone, made_in(anyone.name)))
    assert is_right(answer), answer


def test_no_request_of_the_gateway_is_left_out() -> None:
    public = {name for name in vars(StripeGateway) if not name.startswith("_")}
    assert public - {"only_while"} == ASKED.keys()


def test_each_request_names_its_account_its_key_and_the_librarys_api_version(
    anyone: Api, made_in: Callable[[str], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    about = made_in(anyone.name)
    sent: list[tuple[str, Mapping[str, str]]] = []
    door = anyone.gateway._door
    through = door.request

    def noted(method: str, url: str, headers: Mapping[str, str], post_data: object = None) -> Any:
        sent.append((method.upper(), headers))
        return through(method, url, headers, post_data)

    monkeypatch.setattr(door, "request", noted)
    for ways in ASKED.values():
        for ask, _ in ways:
            got(ask(anyone, about))
    keys = [headers["Idempotency-Key"] for method, headers in sent if method == "POST"]
    assert len(set(keys)) == len(keys) > 6
    assert {headers["Stripe-Account"] for _, headers in sent} == {anyone.account}
    assert {headers["Stripe-Version"] for _, headers in sent} == {stripe.api_version}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/customers", {"colour": "red"}),
        ("/v1/customers", {"tax[validate_location]": "perhaps"}),
        ("/v1/customers/CUSTOMER", {"colour": "red"}),
        ("/v1/invoices", {"customer": "CUSTOMER", "colour": "red"}),
        ("/v1/invoices", {"customer": "CUSTOMER", "collection_method": "barter"}),
        ("/v1/invoices", {"customer": "CUSTOMER", "auto_advance": "perhaps"}),
        ("/v1/invoices", {"customer": "CUSTOMER", "due_date": "tomorrow"}),
        ("/v1/invoices/DRAFT", {"colour": "red"}),
        ("/v1/invoices/DRAFT", {"automatically_finalizes_at": "soon"}),
        ("/v1/invoices/DRAFT/finalize", {"colour": "red"}),
        ("/v1/invoiceitems", {"customer": "CUSTOMER", "colour": "red"}),
        (
            "/v1/invoiceitems",
            {"customer": "CUSTOMER", "invoice": "DRAFT", "currency": "usd", "amount": "ten"},
        ),
        ("/v1/invoiceitems", {"customer": "CUSTOMER", "period[from]": "1"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "&".join(f"{k}={v}" for k, v in value.items()),
)
def test_what_stripe_does_not_know_is_refused(
    anyone: Api, made_in: Callable[[str], Made], path: str, body: dict[str, str]
) -> None:
    about = made_in(anyone.name)
    named = {"CUSTOMER": about.customer, "DRAFT": about.draft}
    place = re.sub("CUSTOMER|DRAFT", lambda found: named[found[0]], path)
    answer = anyone.send("POST", place, {name: named.get(value, value) for name, value in body.items()})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("nested", ["address[planet]", "tax[planet]", "invoice_settings[planet]"])
def test_what_stripe_does_not_know_is_refused_deep_inside_too(someone: Api, nested: str) -> None:
    """Stripe's OpenAPI leaves inner objects open, so stripe-mock has nothing to say here."""
    assert someone.send("POST", "/v1/customers", {nested: "Mars"}).status_code == 400


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/invoices", "/v1/invoiceitems"])
def test_lists_refuse_what_stripe_does_not_know(anyone: Api, path: str) -> None:
    assert anyone.send("GET", path, {"colour": "red"}).status_code == 400
    assert anyone.send("GET", path, {"limit": "1"}).status_code == 200


def test_the_requests_that_people_make_beside_us_are_known_too(anyone: Api) -> None:
    about, client = made(anyone), anyone.client()
    assert client.v1.invoice_items.list({"invoice": about.draft}).data[0].object == "invoiceitem"
    assert (
        client.v1.invoices.list({"customer": about.customer, "created": {"gte": 1}}).data[0].object
        == "invoice"
    )
    assert client.v1.invoice_items.delete(about.item).deleted
    assert client.v1.accounts.retrieve_current().object == "account"
    assert client.v1.invoices.finalize_invoice(about.draft).object == "invoice"
    assert client.v1.invoices.delete(made(anyone).draft).deleted


def test_a_key_that_is_none_is_refused(anyone: Api) -> None:
    answer = anyone.send("GET", "/v1/customers", {}, Authorization="Bearer nonsense")
    assert answer.status_code == 401


def test_a_draft_is_filled_read_back_and_let_go(someone: Api) -> None:
    about, ask, account = made(someone), someone.gateway, someone.account
    before = got(ask.invoice(account, about.draft))
    assert before is not None
    assert (before.status, before.auto_advance, before.subtotal_minor) == ("draft", False, 12_00)
    assert (before.reference, before.customer, before.tax_enabled) == (about.reference, about.customer, False)
    lines = got(ask.invoice_lines(account, about.draft))
    assert [(line.key, line.item, line.amount_minor) for line in lines] == [(LINE.key, about.item, 12_00)]
    got(ask.schedule(account, about.draft, days_ahead(10), days_ahead(40), someone.fresh()))
    after = got(ask.invoice(account, about.draft))
    assert after is not None
    assert (after.status, after.auto_advance, after.finalizes_at) == ("draft", True, days_ahead(10))


def test_what_was_made_is_found_again_by_listing(someone: Api) -> None:
    about, ask, account = made(someone), someone.gateway, someone.account
    found = got(ask.find_customer(account, about.who))
    assert found is not None
    assert found.id == about.customer
    assert got(ask.find_invoice(account, about.customer, about.reference)) == about.draft
    assert got(ask.find_invoice(account, about.customer, "never")) is None


def test_a_key_gives_its_first_answer_again_and_takes_no_other_content(someone: Api) -> None:
    about, ask, account = made(someone), someone.gateway, someone.account
    key, facts = someone.fresh(), new_draft(someone, about.customer)
    first = got(ask.create_draft(account, facts, key))
    assert got(ask.create_draft(account, facts, key)) == first
    other = ask.create_draft(account, replace(facts, due_at=days_ahead(31)), key)
    assert isinstance(other, TemporaryFailure)
    assert other.key_is_spent


def test_a_deleted_draft_is_gone_and_a_deleted_customer_refused(someone: Api) -> None:
    about, ask, account = made(someone), someone.gateway, someone.account
    someone.client().v1.invoices.delete(about.draft)
    assert got(ask.invoice(account, about.draft)) is None
    someone.client().v1.customers.delete(about.customer)
    assert isinstance(ask.customer(account, about.customer), RefusedForGood)


def test_an_invoice_is_finalised_once_and_takes_no_line_afterwards(someone: Api) -> None:
    about, client = made(someone), someone.client()
    assert client.v1.invoices.finalize_invoice(about.draft).status == "open"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.finalize_invoice(about.draft)
    late = someone.gateway.add_item(someone.account, line_for(about.customer, about.draft), someone.fresh())
    assert isinstance(late, RefusedForGood)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.delete(about.draft)


@pytest.mark.parametrize(
    ("amount", "taxes"),
    [(-1_00, True), (100_000_000_00, False)],
    ids=["negative with tax", "over the maximum"],
)
def test_amounts_that_stripe_does_not_take_are_refused(someone: Api, amount: int, *, taxes: bool) -> None:
    about, ask, account = made(someone), someone.gateway, someone.account
    draft = got(ask.create_draft(account, new_draft(someone, about.customer, taxes=taxes), someone.fresh()))
    line = replace(
        line_for(about.customer, draft, taxes=taxes), line=LINE.model_copy(update={"amount_minor": amount})
    )
    assert isinstance(ask.add_item(account, line, someone.fresh()), RefusedForGood)


def test_an_invoice_takes_250_lines_and_no_more(someone: Api) -> None:
    about, ask, account = made(someone), someone.gateway, someone.account
    line = line_for(about.customer, about.draft)
    outcomes = [ask.add_item(account, line, someone.fresh()) for _ in range(250)]
    assert all(isinstance(outcome, Ok) for outcome in outcomes[:249])
    assert isinstance(outcomes[249], RefusedForGood)
    assert len(got(ask.invoice_lines(account, about.draft))) == 250


def test_an_account_that_is_not_ours_lets_us_in_nowhere(someone: Api) -> None:
    if someone.name == "sandbox":
        stranger = "acct_stranger"
        requests.post(
            f"{someone.url}/_sandbox/accounts", json={"account": stranger, "linked": False}, timeout=10
        )
    else:
        stranger = "acct_1000000000000000"
    outcome = someone.gateway.create_customer(stranger, somebody(someone), someone.fresh())
    assert isinstance(outcome, RefusedPermission)

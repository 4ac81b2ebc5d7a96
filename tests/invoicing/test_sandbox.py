"""The sandbox refuses what Stripe refuses, and replays what Stripe replays."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import stripe

from invoicing.sandbox import Sandbox
from invoicing.sandbox.traffic import Traffic

CLIENT_ACCOUNT = "acct_reseller"


@pytest.fixture
def client(sandbox: Sandbox) -> stripe.StripeClient:
    return stripe.StripeClient(
        "sk_test_sandbox",
        stripe_account=CLIENT_ACCOUNT,
        base_addresses={"api": sandbox.url},
        http_client=stripe.RequestsClient(timeout=(3, 10)),
    )


@pytest.fixture
def customer(client: stripe.StripeClient) -> str:
    return client.v1.customers.create({"email": "ada@example.com"}).id


def post(sandbox: Sandbox, path: str, body: dict[str, str], key: str | None = None) -> requests.Response:
    headers = {"Authorization": "Bearer sk_test_sandbox", "Stripe-Account": CLIENT_ACCOUNT}
    if key is not None:
        headers["Idempotency-Key"] = key
    return requests.post(sandbox.url + path, data=body, headers=headers, timeout=10)


def draft(client: stripe.StripeClient, customer: str, **params: Any) -> str:
    body: Any = {"customer": customer, "currency": "usd", **params}
    return client.v1.invoices.create(body).id


@pytest.mark.parametrize("body", [{"colour": "red"}, {"address[planet]": "Mars"}, {"expand[0][x]": "1"}])
def test_parameters_that_stripe_does_not_know_are_refused(sandbox: Sandbox, body: dict[str, str]) -> None:
    answer = post(sandbox, "/v1/customers", body)
    assert answer.status_code == (200 if "expand" in next(iter(body)) else 400)
    if answer.status_code == 400:
        assert answer.json()["error"]["code"] == "parameter_unknown"


def test_an_answer_is_replayed_under_its_key_for_a_day(sandbox: Sandbox) -> None:
    first = post(sandbox, "/v1/customers", {"name": "Ada"}, "key")
    again = post(sandbox, "/v1/customers", {"name": "Ada"}, "key")
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    sandbox.set_clock(sandbox.clock.now() + timedelta(hours=24))
    assert post(sandbox, "/v1/customers", {"name": "Ada"}, "key").json()["id"] != first.json()["id"]


def test_a_key_with_another_body_is_refused(sandbox: Sandbox) -> None:
    post(sandbox, "/v1/customers", {"name": "Ada"}, "key")
    answer = post(sandbox, "/v1/customers", {"name": "Eve"}, "key")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "idempotency_error")


def test_a_key_whose_request_is_under_way_conflicts(sandbox: Sandbox) -> None:
    sandbox.set_faults({"action": "slow", "seconds": 0.6})
    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(lambda _: post(sandbox, "/v1/customers", {"name": "Ada"}, "key"), range(2))
    assert {answer.status_code for answer in answers} == {200, 409}
    assert len(sandbox.books(CLIENT_ACCOUNT).customers) == 1


def test_what_was_refused_leaves_the_key_free(sandbox: Sandbox, customer: str) -> None:
    assert post(sandbox, "/v1/invoices", {"customer": "cus_0"}, "key").status_code == 400
    assert post(sandbox, "/v1/invoices", {"customer": customer}, "key").status_code == 200


def test_a_draft_becomes_open_then_paid_or_void_and_never_a_draft_again(
    client: stripe.StripeClient, customer: str
) -> None:
    first, second = draft(client, customer), draft(client, customer)
    for invoice in (first, second):
        client.v1.invoice_items.create(
            {"customer": customer, "invoice": invoice, "amount": 100, "currency": "usd"}
        )
        assert client.v1.invoices.finalize_invoice(invoice).status == "open"
    with pytest.raises(stripe.InvalidRequestError, match="already finalized"):
        client.v1.invoices.finalize_invoice(first)
    assert client.v1.invoices.pay(first).status == "paid"
    assert client.v1.invoices.void_invoice(second).status == "void"
    with pytest.raises(stripe.InvalidRequestError, match="no longer editable"):
        client.v1.invoices.delete(first)
    with pytest.raises(stripe.InvalidRequestError, match="no longer editable"):
        client.v1.invoice_items.create(
            {"customer": customer, "invoice": first, "amount": 1, "currency": "usd"}
        )


def test_a_scheduled_draft_is_finalised_by_the_sandboxes_clock(
    sandbox: Sandbox, client: stripe.StripeClient, customer: str
) -> None:
    when = sandbox.clock.now() + timedelta(days=10)
    scheduled = draft(client, customer, auto_advance=True, automatically_finalizes_at=int(when.timestamp()))
    idle = draft(client, customer)
    sandbox.set_clock(when - timedelta(seconds=5))
    assert client.v1.invoices.retrieve(scheduled).status == "draft"
    sandbox.set_clock(when + timedelta(seconds=1))
    assert client.v1.invoices.retrieve(scheduled).status == "paid"  # nothing to pay
    assert client.v1.invoices.retrieve(idle).status == "draft"


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"automatically_finalizes_at": 4_000_000_000}, "needs auto_advance"),
        ({"auto_advance": True, "automatically_finalizes_at": 1}, "must be in the future"),
        ({"collection_method": "send_invoice"}, "due_date is needed"),
        ({"due_date": 4_000_000_000}, "only for collection_method send_invoice"),
    ],
)
def test_drafts_that_make_no_sense_are_refused(
    client: stripe.StripeClient, customer: str, params: dict[str, Any], why: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError, match=why):
        draft(client, customer, **params)


def test_negative_lines_with_automatic_tax_are_refused(client: stripe.StripeClient, customer: str) -> None:
    invoice = draft(client, customer, automatic_tax={"enabled": True})
    with pytest.raises(stripe.InvalidRequestError, match="negative"):
        client.v1.invoice_items.create(
            {"customer": customer, "invoice": invoice, "amount": -1, "currency": "usd"}
        )


def test_one_account_does_not_see_anothers_customers(sandbox: Sandbox, customer: str) -> None:
    other = stripe.StripeClient(
        "sk_test_sandbox", stripe_account="acct_other", base_addresses={"api": sandbox.url}
    )
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        other.v1.customers.retrieve(customer)


def test_the_doors_for_tests_are_open_over_http(sandbox: Sandbox, customer: str) -> None:
    def door(name: str, body: dict[str, Any]) -> Any:
        return requests.post(f"{sandbox.url}/_sandbox/{name}", json=body, timeout=10).json()

    assert door("clock", {"now": "2030-01-01T00:00:00+00:00"})["now"].startswith("2030-01-01T00:00:00")
    door("faults", {"faults": [{"action": "status", "status": 503}]})
    assert post(sandbox, "/v1/customers", {}).status_code == 503
    door("accounts", {"account": CLIENT_ACCOUNT, "linked": False})
    assert post(sandbox, "/v1/customers", {}).status_code == 403
    state = requests.get(f"{sandbox.url}/_sandbox/state", timeout=10).json()
    assert [each["id"] for each in state["accounts"][CLIENT_ACCOUNT]["customers"]] == [customer]
    assert door("faults", {"faults": [{"action": "status", "colour": 1}]})["error"]["message"].startswith(
        "TypeError"
    )


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        (
            "/v1/invoices",
            {"collection_method": "barter"},
            "must be one of charge_automatically, send_invoice",
        ),
        ("/v1/invoices", {"due_date": "tomorrow"}, "Invalid integer"),
        ("/v1/invoices", {"auto_advance": "perhaps"}, "Invalid boolean"),
        ("/v1/invoices", {"metadata": "plain"}, "Invalid"),
    ],
)
def test_values_of_another_kind_are_refused(
    sandbox: Sandbox, customer: str, path: str, body: dict[str, str], why: str
) -> None:
    answer = post(sandbox, path, {"customer": customer, **body})
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/customers", {"balance": "5"}), ("/v1/invoices", {"footer": "Thanks", "customer": "CUSTOMER"})],
)
def test_what_stripe_knows_and_the_sandbox_does_not_is_refused_aloud(
    sandbox: Sandbox, customer: str, path: str, body: dict[str, str]
) -> None:
    sent = {name: customer if value == "CUSTOMER" else value for name, value in body.items()}
    answer = post(sandbox, path, sent)
    assert (answer.status_code, "does not know" in answer.json()["error"]["message"]) == (501, True)


def test_an_api_version_that_is_none_is_refused(sandbox: Sandbox) -> None:
    headers = {"Authorization": "Bearer sk_test_sandbox", "Stripe-Version": "1999-01-01"}
    answer = requests.get(f"{sandbox.url}/v1/customers", headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["error"]["message"].split(":")[0]) == (
        400,
        "Invalid Stripe API version",
    )


def test_an_invoice_that_is_sent_needs_an_email(client: stripe.StripeClient) -> None:
    nameless = client.v1.customers.create({}).id
    with pytest.raises(stripe.InvalidRequestError, match="Missing email"):
        draft(client, nameless, collection_method="send_invoice", days_until_due=30)


def test_a_total_over_the_maximum_cannot_be_finalised(client: stripe.StripeClient, customer: str) -> None:
    invoice = draft(client, customer)
    for _ in range(2):
        client.v1.invoice_items.create(
            {"customer": customer, "invoice": invoice, "amount": 99_999_999, "currency": "usd"}
        )
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.invoices.finalize_invoice(invoice)
    assert refused.value.code == "amount_too_large"
    assert client.v1.invoices.retrieve(invoice).status == "draft"


def taxed(client: stripe.StripeClient) -> str:
    address: Any = {"country": "US", "postal_code": "10001", "state": "NY"}
    return client.v1.customers.create({"email": "ada@example.com", "address": address}).id


def test_finalisation_fails_or_loses_its_tax_when_scripted_to(
    sandbox: Sandbox, client: stripe.StripeClient
) -> None:
    who, when = taxed(client), sandbox.clock.now() + timedelta(days=1)
    sends: Any = {"automatic_tax": {"enabled": True}, "auto_advance": True}
    failing, untaxed, right = (
        draft(client, who, automatically_finalizes_at=int(when.timestamp()), **sends) for _ in range(3)
    )
    for invoice in (failing, untaxed, right):
        client.v1.invoice_items.create(
            {"customer": who, "invoice": invoice, "amount": 1_000, "currency": "usd"}
        )
    sandbox.control(
        "/_sandbox/finalization",
        {"account": CLIENT_ACCOUNT, "invoice": failing, "error": "the customer's location is unknown"},
    )
    sandbox.control(
        "/_sandbox/finalization",
        {"account": CLIENT_ACCOUNT, "invoice": untaxed, "switch_tax_off": True},
    )
    sandbox.set_clock(when + timedelta(seconds=1))
    failed, sent_untaxed, sent = (client.v1.invoices.retrieve(each) for each in (failing, untaxed, right))
    assert (failed.status, failed.last_finalization_error.message) == (  # type: ignore[union-attr]
        "draft",
        "the customer's location is unknown",
    )
    assert (sent_untaxed.status, sent_untaxed.total) == ("open", 1_000)
    assert sent_untaxed.automatic_tax.disabled_reason == "finalization_system_error"
    assert (sent.status, sent.total) == ("open", 1_100)


def test_each_time_an_invoice_is_told_to_send_itself_its_lines_are_noted(
    sandbox: Sandbox, client: stripe.StripeClient, customer: str
) -> None:
    invoice = draft(client, customer)
    when = int((sandbox.clock.now() + timedelta(days=1)).timestamp())
    for amount in (100, 200):
        line: Any = {"customer": customer, "invoice": invoice, "amount": amount, "currency": "usd"}
        client.v1.invoice_items.create(line)
        client.v1.invoices.update(invoice, {"auto_advance": True, "automatically_finalizes_at": when})
    noted = sandbox.books(CLIENT_ACCOUNT).schedulings
    assert [[line["amount"] for line in each["lines"]] for each in noted] == [[100], [100, 200]]
    assert {each["finalizes_at"] for each in noted} == {when}


def test_lists_go_by_when_things_were_made(
    sandbox: Sandbox, client: stripe.StripeClient, customer: str
) -> None:
    old = draft(client, customer)
    sandbox.set_clock(sandbox.clock.now() + timedelta(days=10))
    new = draft(client, customer)
    between = sandbox.clock.timestamp() - 86_400
    assert [each.id for each in client.v1.invoices.list({"created": {"gte": between}}).data] == [new]
    assert [each.id for each in client.v1.invoices.list({"created": {"lt": between}}).data] == [old]


@pytest.mark.parametrize(("said", "requests_made"), [(True, 2), (False, 1), (None, 1)])
def test_stripes_library_repeats_a_429_only_when_told_to(
    sandbox: Sandbox, *, said: bool | None, requests_made: int
) -> None:
    patient = stripe.StripeClient(
        "sk_test_sandbox", base_addresses={"api": sandbox.url}, max_network_retries=2
    )
    sandbox.set_faults({"action": "status", "status": 429, "should_retry": said})
    if requests_made == 1:
        with pytest.raises(stripe.RateLimitError):
            patient.v1.customers.create({})
    else:
        patient.v1.customers.create({})
    assert sandbox.requests == requests_made


def test_a_reply_that_comes_too_late_was_done_all_the_same(sandbox: Sandbox) -> None:
    sandbox.set_faults({"action": "slow", "seconds": 0.5, "commit": True})
    hasty = stripe.StripeClient(
        "sk_test_sandbox",
        base_addresses={"api": sandbox.url},
        http_client=stripe.RequestsClient(timeout=0.1),
    )
    with pytest.raises(stripe.APIConnectionError):
        hasty.v1.customers.create({})
    deadline = time.monotonic() + 60
    while not sandbox.books("acct_platform").customers:
        assert time.monotonic() < deadline, "it was never done"
        time.sleep(0.02)


def test_a_client_that_dies_in_the_middle_of_a_request_has_asked_for_nothing(sandbox: Sandbox) -> None:
    address = urlsplit(sandbox.url)
    with socket.create_connection((address.hostname or "", address.port or 0), 10) as connection:
        connection.sendall(
            b"POST /v1/customers HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer sk_test_sandbox\r\n"
            b"Idempotency-Key: key\r\nContent-Length: 18\r\n\r\nname=A"
        )
        connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert sandbox.requests == 0
    assert post(sandbox, "/v1/customers", {"name": "Ada"}, "key").json()["name"] == "Ada"


def test_faults_befall_one_account_or_all_and_are_counted(sandbox: Sandbox) -> None:
    fault = {"action": "status", "status": 503, "times": None, "method": ""}
    sandbox.set_faults({**fault, "account": "acct_other"})
    assert post(sandbox, "/v1/customers", {}).status_code == 200
    sandbox.set_faults(fault)
    assert post(sandbox, "/v1/customers", {}).status_code == 503
    assert sandbox.control("/_sandbox/state", {})["faults"] == {"503": 1}


def test_more_requests_in_a_second_than_permitted_are_one_too_many() -> None:
    now = [0.0]
    traffic = Traffic(lambda: now[0])
    traffic.set_limit(3)

    def ask(account: str) -> bool:
        with traffic.request_of(account) as too_many:
            return too_many

    assert [ask("acct_a") for _ in range(4)] == [False, False, False, True]
    assert not ask("acct_b")
    now[0] = 1.0
    assert not ask("acct_a")

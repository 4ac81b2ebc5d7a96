"""The sandbox refuses what Stripe refuses, and replays what Stripe replays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import requests
import stripe

from invoicing.sandbox import Sandbox

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

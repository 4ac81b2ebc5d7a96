"""An account's own Stripe: linked and unlinked at will, its customers left alone, its key told to no one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from sqlalchemy import text

from invoicing import customer_store
from invoicing.refusals import refusal
from invoicing.sandbox.desk import Answer, Request
from invoicing.states import State
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, usage, utc
from tests.invoicing.conftest import CommandLine
from tests.services import service

BUSY = usage(seconds=60_000, cost="9.50")
APRIL = usage(seconds=60_000, cost="9.50", period="2026-04")
KEY = "sk_test_neverToBeSeen123"
TENANT = "bigcustomer.mypbx.com"


def recorded(world: World) -> list[Request]:
    """Every request that reaches Stripe from here on."""
    seen: list[Request] = []
    answer = world.sandbox.answer

    def record(request: Request) -> Answer:
        seen.append(request)
        return answer(request)

    world.sandbox.answer = record  # type: ignore[method-assign]
    return seen


class UnlinksAtTheFifth:
    """Someone unlinks the account while the fifth request is on its way."""

    def __init__(self, world: World) -> None:
        self.world, self.asked = world, 0

    def admit(self, account: str) -> None:  # noqa: ARG002 (the protocol)
        self.asked += 1
        if self.asked == 5:
            self.world.unlink()

    def slow_down(self, account: str) -> None:  # noqa: ARG002 (same)
        raise AssertionError("Stripe was not asked too fast")


def test_after_unlinking_nothing_more_is_asked_and_what_was_scheduled_stays_stripes(world: World) -> None:
    first, second = world.tenant("a.example.com"), world.tenant("b.example.com")
    for tenant_id in (first, second):
        world.bill(tenant_id, utc(2026, 5, 1))
    scheduled = world.received(BUSY, tenant="a.example.com")
    world.work(scheduled)
    world.unlink()
    requests = recorded(world)
    later = world.received(BUSY, tenant="b.example.com")
    world.work(later)
    assert (world.listed(later).state, world.listed(later).reason) == (State.BLOCKED, "no_stripe_link")
    assert requests == []
    world.clock.move(utc(2026, 6, 20, 12))
    [invoice] = world.in_stripe()
    assert invoice["status"] == "open", "Stripe sends what was scheduled, without us"


def test_one_accounts_stripe_is_linked_to_no_other(world: World, type_: CommandLine) -> None:
    world.account("other", None)
    refused = type_("stripe", "link", "other", STRIPE_ACCOUNT, code=1).err
    assert "is linked to account 'reseller'" in refused
    type_("stripe", "unlink", "reseller")
    type_("stripe", "link", "other", STRIPE_ACCOUNT)


def test_linking_again_resumes_what_is_due_this_month_and_earlier_months_wait_for_a_word(
    world: World,
) -> None:
    world.bill(world.tenant(), utc(2026, 4, 1))
    world.unlink()
    world.clock.move(utc(2026, 5, 3, 1))
    april = world.received(APRIL, period="2026-04")
    world.work(april)
    world.clock.move(utc(2026, 6, 3, 1))
    may = world.received(BUSY)
    world.work(may)
    assert world.link() == 1
    world.work(may)
    world.work(april)
    assert (world.listed(may).state, world.listed(april).state) == (State.SCHEDULED, State.BLOCKED)
    world.retry(april)
    world.work(april)
    assert world.listed(april).state == State.SCHEDULED
    assert len(world.in_stripe()) == 2


def test_unlinked_between_two_requests_the_second_is_not_made(world: World) -> None:
    products = [{**OUTBOUND, "price": str(price)} for price in range(1, 6)]
    world.bill(world.tenant(), utc(2026, 5, 1), profile(*products))
    may = world.received(BUSY)
    limiter = UnlinksAtTheFifth(world)
    world.work(may, world.gateway(limiter=limiter))
    assert limiter.asked == 5
    assert (world.listed(may).state, world.listed(may).reason) == (State.BLOCKED, "unlinked")
    assert [invoice["auto_advance"] for invoice in world.in_stripe()] == [False]
    assert world.link() == 1
    world.work(may)
    [invoice] = world.in_stripe()
    assert (world.listed(may).state, invoice["auto_advance"], len(world.lines_in_stripe(invoice["id"]))) == (
        State.SCHEDULED,
        True,
        5,
    )


def test_what_the_former_stripe_account_may_send_is_never_made_in_the_next_one(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(BUSY)
    world.sandbox.set_faults(
        {"action": "status", "status": 503, "path": "/v1/invoices/", "commit": True}  # it was scheduled
    )
    world.work(may)
    world.unlink()
    assert world.link("acct_next") == 0
    world.work(may)
    listed = world.listed(may)
    assert (listed.state, listed.reason) == (State.BLOCKED, "perhaps_scheduled_elsewhere")
    assert "linked before" in str(listed.remedy)
    world.retry(may)
    world.work(may)
    assert (world.listed(may).reason, world.in_stripe("acct_next")) == ("perhaps_scheduled_elsewhere", [])
    world.unlink()
    assert world.link() == 1
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert [invoice["auto_advance"] for invoice in world.in_stripe()] == [True]


def test_every_request_names_the_accounts_own_stripe_and_none_takes_a_fee_or_touches_payment(
    world: World,
) -> None:
    requests = recorded(world)
    world.bill(world.tenant(), utc(2026, 5, 1), profile(auto_charge=True))
    may = world.received(BUSY)
    world.work(may)
    world.clock.move(utc(2026, 6, 21))
    world.refresh(may)
    assert {request.account for request in requests} == {STRIPE_ACCOUNT}
    told = " ".join(request.encoded for request in requests)
    for forbidden in (
        "application_fee",
        "payment_method",
        "payment_settings",
        "source",
        "transfer",
        "on_behalf",
    ):
        assert forbidden not in told
    assert "pending_invoice_items_behavior=exclude" in told, "what people left pending is not ours to ask for"
    assert {request.path.split("/")[2] for request in requests} == {"customers", "invoices", "invoiceitems"}


def test_a_changed_tenant_is_told_to_stripe_once_and_nothing_of_how_it_pays_is_changed(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 4, 1))
    world.clock.move(utc(2026, 5, 3, 1))
    world.work(world.received(APRIL, period="2026-04"))
    [customer] = world.sandbox.books(STRIPE_ACCOUNT).customers.values()
    customer["invoice_settings"]["default_payment_method"] = "pm_1"
    world.clock.move(utc(2026, 6, 3, 1))
    world.details(tenant_id, billing_email="new@example.com", address_line2="")
    requests = recorded(world)
    world.work(world.received(BUSY))
    assert (customer["email"], customer["invoice_settings"]) == (
        "new@example.com",
        {"default_payment_method": "pm_1"},
    )
    assert sum(request.path == f"/v1/customers/{customer['id']}" for request in requests) == 1
    assert len(world.sandbox.books(STRIPE_ACCOUNT).customers) == 1


def test_a_customer_that_people_linked_is_not_told_anything(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    theirs = world.sandbox.books(STRIPE_ACCOUNT).create_customer({"email": "old@example.com"})
    with world.engine.begin() as connection:
        customer_store.save_customer(
            connection, tenant_id, STRIPE_ACCOUNT, theirs["id"], "theirs", world.clock()
        )
    world.details(tenant_id, billing_email="new@example.com")
    world.work(world.received(BUSY))
    assert (theirs["email"], world.in_stripe()[0]["customer"]) == ("old@example.com", theirs["id"])


def test_an_address_that_changed_holds_invoices_until_it_is_validated_again(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    world.details(tenant_id, validated=False, address_line1="2 Example Street")
    may = world.received(BUSY)
    world.work(may)
    listed = world.listed(may)
    assert (listed.state, listed.reason) == (State.BLOCKED, "address_not_validated")
    assert "validate-address" in str(listed.remedy)
    assert world.in_stripe() == []
    world.details(tenant_id)
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    [customer] = world.sandbox.books(STRIPE_ACCOUNT).customers.values()
    assert customer["address"]["line1"] == "2 Example Street"


def test_an_address_that_changed_while_the_invoice_was_drafted_holds_it_too(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    may = world.received(BUSY)
    world.sandbox.set_faults({"action": "status", "status": 503, "path": "/v1/invoiceitems"})
    world.work(may)
    world.details(tenant_id, validated=False, city="Albany")
    world.work(may)
    assert (world.listed(may).state, world.listed(may).reason) == (State.BLOCKED, "address_not_validated")
    world.details(tenant_id)
    world.retry(may)
    world.work(may)
    assert (world.listed(may).state, len(world.in_stripe())) == (State.SCHEDULED, 1)


def test_an_existing_customer_is_linked_by_command_if_stripe_has_it(world: World, type_: CommandLine) -> None:
    world.tenant()
    theirs = world.sandbox.books(STRIPE_ACCOUNT).create_customer({"email": "old@example.com"})
    before = dict(theirs)
    assert "No such customer" in type_("stripe", "customer", "reseller", TENANT, "cus_none", code=1).err
    assert theirs["id"] in type_("stripe", "customer", "reseller", TENANT, theirs["id"]).err
    assert theirs == before
    type_("stripe", "unlink", "reseller")
    assert "stripe link" in type_("stripe", "customer", "reseller", TENANT, theirs["id"], code=1).err


def test_unlinking_says_what_stays_stripes_and_linking_what_goes_on(world: World, type_: CommandLine) -> None:
    world.bill(world.tenant(), utc(2026, 4, 1))
    old = world.received(APRIL, period="2026-04")
    now = world.clock()
    type_("stripe", "unlink", "reseller")
    world.clock.move(utc(2026, 5, 3, 1))
    with world.engine.begin() as connection:
        connection.execute(text("alter table statements disable trigger all"))
        connection.execute(text("update statements set generated_at = '2026-05-03Z'"))
    new = world.close_at(now, BUSY)
    for statement in (old, new):
        world.work(statement)
    said = type_("stripe", "link", "reseller", STRIPE_ACCOUNT).err
    assert "1 invoices of this month go on" in said
    assert "invoice retry --account reseller" in said
    assert "1 invoices go on" in type_("invoice", "retry", "--account", "reseller").err
    world.clock.move(now)
    for statement in (old, new):
        assert world.work_until_settled(statement).state == State.SCHEDULED
    assert "2 scheduled ones stay Stripe's" in type_("stripe", "unlink", "reseller").err


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "stripe.key"
    file.write_text(f"{KEY}\n")
    return file


def _tables(world: World) -> Iterator[str]:
    with world.engine.connect() as connection:
        names = connection.execute(
            text("select table_name from information_schema.tables where table_schema = 'public'")
        )
        for (name,) in names.all():
            for row in connection.execute(text(f'select * from "{name}"')):
                yield repr(tuple(row))


def test_the_key_is_in_no_output_no_table_and_no_command_line_of_a_run_that_fails(
    world: World, key_file: Path, database_url: str, tmp_path: Path
) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(BUSY)
    faults: list[dict[str, Any]] = [
        {"action": "status", "method": "GET", "status": status} for status in (401, 403, 500, 404, 400)
    ]
    world.sandbox.set_faults(*faults)
    environment = {
        **{name: each for name, each in os.environ.items() if name != "STRIPE_API_KEY"},  # noqa: TID251 (passed on)
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "STRIPE_API_BASE": world.sandbox.url,
        "STRIPE_API_KEY_FILE": str(key_file),
        "STRIPE_LOG": "debug",
        "TENANT_BILLING_LOG_LEVEL": "debug",
        "TENANT_BILLING_INVOICER_INTERVAL_SECONDS": "0.05",
    }
    log = tmp_path / "invoicer.log"
    with service("invoicer", environment, log) as child:
        deadline = time.monotonic() + 120
        while world.sandbox.requests < 1 or world.listed(may).reason is None:
            assert time.monotonic() < deadline, "it never failed"
            time.sleep(0.05)
        command_line = Path(f"/proc/{child.process.pid}/cmdline").read_bytes().decode()
    seen = [log.read_text(), command_line, *_tables(world)]
    assert any("Stripe" in each for each in seen), "there is something to look through"
    assert not [each for each in seen if KEY in each or "neverToBeSeen" in each]


def test_a_reason_that_stripe_gives_never_repeats_a_key() -> None:
    told = stripe.InvalidRequestError(f"Invalid key {KEY} or rk_live_abc", "key", http_status=400)  # type: ignore[no-untyped-call]
    reason = refusal(told).reason
    assert reason == "Invalid key sk_… or sk_…"


@pytest.mark.parametrize(
    ("content", "environment", "said"),
    [
        (None, {}, "cannot be read"),
        ("", {}, "is empty"),
        (KEY, {"STRIPE_API_KEY": KEY}, "not both"),
    ],
)
def test_a_key_file_that_gives_no_key_is_refused_without_showing_one(
    type_: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
    environment: dict[str, str],
    said: str,
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("STRIPE_API_KEY_FILE", str(file))
    for name, each in environment.items():
        monkeypatch.setenv(name, each)
    err = type_("invoice", "refresh", code=2).err
    assert said in err
    assert KEY not in err


def test_no_module_of_ours_can_write_to_people() -> None:
    root = Path(__file__).parents[2]
    for package in ("attribution", "invoicing", "pipeline", "rollup", "schemas"):
        for module in (root / package).rglob("*.py"):
            assert "smtplib" not in module.read_text(), f"{module} could write to a tenant"

"""Asked for once: whatever breaks, and wherever, a statement gives one whole invoice, and no partial one sends itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from invoicing import setup_store
from invoicing.door import Unlimited
from invoicing.gateway import StripeGateway
from invoicing.invoicer import Worked
from invoicing.outcomes import Outcome
from invoicing.states import State
from invoicing.steps_store import KEY_REST, KEY_TRUST
from pipeline.invoicer import FROZEN_SECONDS_MAX
from schemas.identity import fact_id
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, usage, utc

LINES = 4
# find the customer, make it, begin the draft, each line, read the draft, read its lines, let it go
CALLS = 3 + LINES + 3
WHOLE = {f"{position}.2026-05": position * 1_00 for position in range(1, LINES + 1)}


class Killed(BaseException):
    """SIGKILL, as far as the code under test can tell: nothing of ours runs after it."""


class DyingGateway(StripeGateway):
    """Dies at its n-th call to Stripe, just before it or just after Stripe has done it."""

    def __init__(self, url: str, dies_at: int, *, after: bool) -> None:
        super().__init__("sk_test_sandbox", api_base=url, network_retries_max=0)
        self.calls, self._dies_at, self._after = 0, dies_at, after

    def _call(self, account: str, request: Callable[[], Any]) -> Outcome[Any]:
        self.calls += 1
        if self.calls == self._dies_at and not self._after:
            raise Killed
        outcome = super()._call(account, request)
        if self.calls == self._dies_at:
            raise Killed
        return outcome


@pytest.fixture
def may(world: World) -> UUID:
    """A statement whose invoice has four lines, of 1 to 4 dollars."""
    products = [{**OUTBOUND, "price": str(position)} for position in range(1, LINES + 1)]
    world.bill(world.tenant(), utc(2026, 5, 1), profile(*products))
    return world.received(usage(seconds=60, cost="9"))


def partial_invoices_that_send_themselves(world: World) -> Iterator[dict[str, Any]]:
    for invoice in world.in_stripe():
        if invoice["auto_advance"] and world.lines_in_stripe(invoice["id"]) != WHOLE:
            yield invoice


def assert_one_whole_invoice(world: World, statement_id: UUID) -> None:
    sending = [invoice for invoice in world.in_stripe() if invoice["auto_advance"]]
    assert [world.lines_in_stripe(invoice["id"]) for invoice in sending] == [WHOLE]
    assert sending[0]["subtotal"] == sum(WHOLE.values())  # no line is there twice
    assert world.listed(statement_id).stripe_invoice == sending[0]["id"]
    assert world.listed(statement_id).state == State.SCHEDULED


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dies_at", range(1, CALLS + 1))
def test_killed_at_any_call_to_stripe_another_invoicer_finishes_the_one_invoice(
    world: World, may: UUID, dies_at: int, *, after: bool
) -> None:
    with pytest.raises(Killed):
        world.work(may, DyingGateway(world.sandbox.url, dies_at, after=after))
    assert list(partial_invoices_that_send_themselves(world)) == []
    world.work(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1
    assert len(world.sandbox.books(STRIPE_ACCOUNT).customers) == 1


def test_an_invoice_takes_the_calls_that_these_tests_die_at(world: World, may: UUID) -> None:
    gateway = DyingGateway(world.sandbox.url, 0, after=False)
    world.work(may, gateway)
    assert gateway.calls == CALLS


@pytest.mark.parametrize("dies_at", range(1, CALLS + 1))
def test_killed_and_resumed_after_the_keys_expired_what_was_done_is_found_by_listing(
    world: World, may: UUID, dies_at: int
) -> None:
    with pytest.raises(Killed):
        world.work(may, DyingGateway(world.sandbox.url, dies_at, after=True))
    world.clock.move(world.clock() + timedelta(hours=25))
    world.work(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1


def test_a_key_is_distrusted_before_stripe_forgets_it() -> None:
    assert timedelta(hours=24) > KEY_TRUST + timedelta(seconds=FROZEN_SECONDS_MAX)


def test_between_a_keys_last_use_and_its_replacement_nothing_is_asked_under_it(
    world: World, may: UUID
) -> None:
    """A request sent at the last moment may still be under way, and no list would show it."""
    with pytest.raises(Killed):
        world.work(may, DyingGateway(world.sandbox.url, 4, after=False))
    world.clock.move(world.clock() + KEY_TRUST + KEY_REST / 2)
    assert world.work(may) is Worked.LATER
    assert (world.listed(may).state, world.lines_in_stripe(world.in_stripe()[0]["id"])) == (
        State.DRAFTING,
        {},
    )
    world.clock.move(world.clock() + KEY_REST)
    world.work(may)
    assert_one_whole_invoice(world, may)


class FreezingLimiter(Unlimited):
    """Before the n-th request, lets something else happen: the process was frozen there."""

    def __init__(self, at: int, meanwhile: Callable[[], object]) -> None:
        self._left, self._meanwhile = at, meanwhile

    def admit(self, account: str) -> None:
        super().admit(account)
        self._left -= 1
        if self._left == 0:
            self._meanwhile()


@pytest.mark.parametrize("at", range(1, CALLS + 1))
def test_frozen_before_any_request_until_the_key_is_forgotten_and_another_has_finished(
    world: World, may: UUID, at: int
) -> None:
    def meanwhile() -> None:
        world.clock.move(world.clock() + timedelta(hours=25))
        world.work(may)

    world.work(may, world.gateway(limiter=FreezingLimiter(at, meanwhile)))
    world.work(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1
    assert len(world.sandbox.books(STRIPE_ACCOUNT).customers) == 1


def test_a_draft_that_was_compared_long_ago_is_not_let_go(world: World, may: UUID) -> None:
    def meanwhile() -> None:
        world.clock.move(world.clock() + timedelta(minutes=30))
        (invoice,) = world.in_stripe()
        (item, *_) = world.sandbox.books(STRIPE_ACCOUNT).items[invoice["id"]]
        world.sandbox.books(STRIPE_ACCOUNT).delete_item(item["id"])

    assert world.work(may, world.gateway(limiter=FreezingLimiter(CALLS, meanwhile))) is Worked.LATER
    assert world.in_stripe()[0]["auto_advance"] is False
    world.work(may)
    assert world.listed(may).state == State.HELD


def test_an_invoice_that_went_out_while_it_was_being_let_go_again_is_not_failed(
    world: World, may: UUID
) -> None:
    world.clock.move(utc(2026, 6, 25, 12))  # past its billing day: to be sent in five minutes

    def meanwhile() -> None:
        world.clock.move(world.clock() + timedelta(seconds=10))
        with suppress(Killed):
            world.work(may, DyingGateway(world.sandbox.url, 3, after=True))  # it lets the drafted one go
        world.clock.move(world.clock() + timedelta(minutes=6))

    world.work(may, world.gateway(limiter=FreezingLimiter(CALLS, meanwhile)))
    assert world.in_stripe()[0]["status"] == "open"
    assert world.listed(may).state == State.SCHEDULED


def test_two_invoicers_across_midnight_ask_for_the_same_draft(world: World, may: UUID) -> None:
    world.clock.move(utc(2026, 6, 25, 23, 59))  # past its billing day: to be sent at once

    world.sandbox.set_faults({"action": "slow", "seconds": 1.0, "path": "/v1/invoices$"})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(world.work, may)
        while world.sandbox.requests < 3 and not first.done():  # find the customer, make it, begin the draft
            time.sleep(0.01)
        world.clock.move(utc(2026, 6, 26, 0, 1))
        world.work(may)
        first.result()
    world.work_until_settled(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1


@pytest.mark.parametrize("commit", [False, True], ids=["request lost", "reply lost"])
@pytest.mark.parametrize(
    "fault",
    [
        {"action": "reset"},
        {"action": "status", "status": 503},
        {"action": "status", "status": 500, "saved": True},
        {"action": "status", "status": 429},
    ],
    ids=["reset", "503", "500 kept", "429"],
)
@pytest.mark.parametrize("path", ["/v1/customers", "/v1/invoices$", "/v1/invoiceitems", "/v1/invoices/"])
def test_any_request_may_fail_once_or_lose_its_reply(
    world: World, may: UUID, path: str, fault: dict[str, Any], *, commit: bool
) -> None:
    world.sandbox.set_faults({**fault, "path": path, "commit": commit})
    assert world.work(may) is Worked.LATER
    world.work_until_settled(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1


def test_the_library_itself_repeats_a_lost_request_under_the_same_key(world: World, may: UUID) -> None:
    world.sandbox.set_faults({"action": "reset", "path": "/v1/invoices$", "commit": True})
    assert world.work(may, world.gateway(network_retries_max=2)) is Worked.DONE
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1


def test_who_retries_a_waiting_invoice_does_not_overtake_a_request_that_is_still_under_way(
    world: World, may: UUID
) -> None:
    hasty = world.gateway(timeout_seconds=(3, 0.2))
    world.sandbox.set_faults({"action": "slow", "path": "/v1/invoices$", "seconds": 1.0})
    assert world.work(may, hasty) is Worked.LATER
    world.retry(may)
    world.work(may, hasty)
    while world.sandbox.traffic.under_way:
        time.sleep(0.02)
    world.work_until_settled(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1


def test_an_outage_keeps_the_row_and_waits_longer_each_time(world: World, may: UUID) -> None:
    world.sandbox.set_faults(
        *({"action": "status", "method": m, "status": 503, "times": None} for m in ("GET", "POST"))
    )
    waits = []
    for _ in range(4):
        assert world.work(may) is Worked.LATER
        waits.append((world.listed(may).due_at - world.clock()).total_seconds())
    assert waits == [5, 10, 20, 40]
    assert world.listed(may).reason == "Stripe answered 503"


class SleepsBefore:
    """The process is frozen for a day and more while its n-th request waits for its turn."""

    def __init__(self, world: World, sleeps_at: int) -> None:
        self.world, self.asked, self._sleeps_at = world, 0, sleeps_at

    def admit(self, account: str) -> None:  # noqa: ARG002 (the protocol)
        self.asked += 1
        if self.asked == self._sleeps_at:
            self.world.clock.move(self.world.clock() + timedelta(hours=30))

    def slow_down(self, account: str) -> None:
        """It is not Stripe that is slow."""


@pytest.mark.parametrize("sleeps_at", range(1, CALLS + 1))
def test_a_request_that_slept_longer_than_its_key_lives_is_not_sent_before_looking(
    world: World, may: UUID, sleeps_at: int
) -> None:
    with suppress(Killed):
        world.work(may, DyingGateway(world.sandbox.url, sleeps_at, after=True))
    asleep = world.gateway(limiter=SleepsBefore(world, 1))
    world.work(may, asleep)
    world.clock.move(world.clock() + timedelta(hours=2))
    world.work_until_settled(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1
    assert len(world.sandbox.books(STRIPE_ACCOUNT).customers) == 1


def test_two_invoicers_at_once_ask_for_one_invoice(world: World, may: UUID) -> None:
    world.sandbox.set_faults({"action": "slow", "path": "/v1/", "seconds": 0.02, "times": None, "rate": 0.5})

    def work_it(_: int) -> None:
        for _ in range(30):
            if world.work(may) is Worked.DONE:
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work_it, range(4)))
    world.work_until_settled(may)
    assert_one_whole_invoice(world, may)
    assert len(world.in_stripe()) == 1


def test_an_account_that_shut_us_out_is_paused_and_the_others_go_on(world: World, may: UUID) -> None:
    other = world.account("other", "acct_other")
    world.bill(world.tenant("b.example.com", account_id=other), utc(2026, 5, 1))
    theirs = world.received(usage(seconds=60, cost="9"), tenant="b.example.com", account="other")
    world.sandbox.books(STRIPE_ACCOUNT).linked = False
    assert world.work(may) is Worked.PAUSED
    assert world.work(theirs) is Worked.DONE
    paused = world.listed(may)
    assert paused.paused_reason == "account_invalid: The provided key does not have access to this account."
    assert (paused.state, world.listed(theirs).state) == (State.DRAFTING, State.SCHEDULED)
    world.sandbox.books(STRIPE_ACCOUNT).linked = True
    with world.engine.begin() as connection:
        assert setup_store.resume_link(connection, world.account_id)
    world.work(may)
    assert_one_whole_invoice(world, may)


def test_what_stripe_refuses_for_good_fails_with_its_reason_and_can_be_retried(
    world: World, may: UUID
) -> None:
    with suppress(Killed):
        world.work(may, DyingGateway(world.sandbox.url, 4, after=True))
    (invoice,) = world.in_stripe()
    customers = world.sandbox.books(STRIPE_ACCOUNT).customers
    kept = dict(customers[invoice["customer"]])
    world.sandbox.books(STRIPE_ACCOUNT).delete_customer(invoice["customer"])
    world.work(may)
    listed = world.listed(may)
    assert (listed.state, str(listed.reason).split(":")[0]) == (State.FAILED, "resource_missing")
    assert world.work(may) is Worked.DONE
    customers[invoice["customer"]] = kept
    assert world.retry(may) == State.DRAFTING
    world.work(may)
    assert_one_whole_invoice(world, may)


def test_unlinked_while_drafting_nothing_more_is_asked_of_stripe(world: World, may: UUID) -> None:
    with suppress(Killed):
        world.work(may, DyingGateway(world.sandbox.url, 5, after=True))
    with world.engine.begin() as connection:
        setup_store.unlink_stripe(connection, world.account_id, world.clock())
    asked = world.sandbox.requests
    world.work(may)
    assert (world.listed(may).reason, world.sandbox.requests) == ("unlinked", asked)
    with world.engine.begin() as connection:
        setup_store.link_stripe(connection, world.account_id, "acct_new", world.clock())
    assert world.retry(may) == State.RECEIVED
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert [invoice["auto_advance"] for invoice in world.in_stripe()] == [False]
    assert [invoice["auto_advance"] for invoice in world.in_stripe("acct_new")] == [True]


def test_each_outside_step_was_written_down_before_and_after(world: World, may: UUID) -> None:
    with suppress(Killed):
        world.work(may, DyingGateway(world.sandbox.url, 5, after=True))
    steps = {step.step: step.result is not None for step in world.explained(may).steps}
    items = {f"1.item:{key}": key == "1.2026-05" for key in WHOLE}
    assert steps == {"1.customer": True, "1.draft": True, **items, "1.item:2.2026-05": False}
    with world.engine.begin() as connection:
        key = connection.scalar(
            text("select idempotency_key from invoice_steps where invoice_id = :id and step = '1.draft'"),
            {"id": fact_id("invoice", may)},
        )
    assert key == f"{fact_id('invoice', may)}.1.draft.1"


def test_a_bad_day_for_stripe_gives_every_statement_its_one_invoice_to_the_cent(world: World) -> None:
    statements = {}
    for serial in range(15):
        world.bill(world.tenant(f"t{serial}.example.com"), utc(2026, 5, 1))
        minutes = usage(seconds=600 * (serial + 1), cost="1")
        statements[world.received(minutes, tenant=f"t{serial}.example.com")] = 12 * (serial + 1)
    faults: list[dict[str, Any]] = [
        {"action": "reset", "commit": True},
        {"action": "reset"},
        {"action": "status", "status": 429},
        {"action": "status", "status": 500, "saved": True},
        {"action": "status", "status": 500, "saved": True, "commit": True},
        {"action": "status", "status": 503, "commit": True},
    ]
    world.sandbox.set_faults(*({**fault, "times": None, "rate": 0.05} for fault in faults), seed=1)
    for statement_id in statements:
        world.work_until_settled(statement_id, tries_max=100)
    world.sandbox.set_faults()
    world.clock.move(utc(2026, 6, 20, 13))
    assert [world.refresh(statement_id) for statement_id in statements] == [State.SENT] * len(statements)
    in_stripe = {invoice["metadata"]["statement_id"]: invoice["subtotal"] for invoice in world.in_stripe()}
    assert in_stripe == {str(statement_id): cents for statement_id, cents in statements.items()}
    assert len(world.in_stripe()) == len(statements)
    assert world.fees() == [("5.00", "sent")] * len(statements)

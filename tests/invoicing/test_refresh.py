"""Did it go out: what a day's read says of a scheduled invoice, and what of it is for ever (I9)."""

from __future__ import annotations

from datetime import timedelta

from invoicing import setup_store
from invoicing.invoicer import NO_PAYMENT_METHOD
from invoicing.refresh import CHANGED
from invoicing.states import State
from tests.invoicing.builders import STRIPE_ACCOUNT, World, profile, usage, utc

HALF_PAST = utc(2026, 6, 20, 12, 30)


def test_a_draft_deleted_before_its_day_costs_nothing_and_is_made_anew_only_by_command(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=6_000, cost="4.99"))
    world.work(may)
    world.sandbox.books(STRIPE_ACCOUNT).delete_invoice(str(world.listed(may).stripe_invoice))
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.DELETED
    world.work(may)
    assert (world.in_stripe(), world.fees()) == ([], [])
    assert world.retry(may) == State.RECEIVED
    world.work(may)
    (invoice,) = world.in_stripe()
    assert (invoice["subtotal"], world.listed(may).state) == (1_20, State.SCHEDULED)


def test_an_invoice_that_can_no_longer_be_read_is_assumed_sent(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=6_000, cost="4.99"))
    world.work(may)
    with world.engine.begin() as connection:
        setup_store.unlink_stripe(connection, world.account_id, world.clock())
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.ASSUMED_SENT
    assert world.fees() == [("5.00", "assumed")]
    assert world.in_stripe()[0]["status"] == "open"


def test_who_is_shut_out_for_a_while_assumes_nothing_and_the_account_is_paused(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=6_000, cost="4.99"))
    world.work(may)
    books = world.sandbox.books(STRIPE_ACCOUNT)
    books.linked = False
    world.clock.move(HALF_PAST)
    assert world.refresh(may) is None
    listed = world.listed(may)
    assert (listed.state, world.fees(), "account_invalid" in str(listed.paused_reason)) == (
        State.SCHEDULED,
        [],
        True,
    )
    assert "stripe resume" in str(listed.remedy)
    world.clock.move(HALF_PAST + timedelta(days=1))
    books.linked = True
    assert world.refresh(may) == State.SENT
    assert world.fees() == [("5.00", "sent")]


def test_who_is_shut_out_for_days_assumes_that_what_was_scheduled_went_out(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=6_000, cost="4.99"))
    world.work(may)
    world.sandbox.books(STRIPE_ACCOUNT).linked = False
    for days in range(3):
        world.clock.move(HALF_PAST + timedelta(days=days))
        assert world.refresh(may) is None
    world.clock.move(HALF_PAST + timedelta(days=3))
    assert world.refresh(may) == State.ASSUMED_SENT
    assert world.fees() == [("5.00", "assumed")]


def test_what_failed_to_be_finalised_is_not_assumed_sent_because_we_are_shut_out(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=6_000, cost="4.99"))
    world.work(may)
    books = world.sandbox.books(STRIPE_ACCOUNT)
    books.finalization_failures["*"] = "the customer's location is unknown"
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.FINALIZATION_FAILED
    books.linked = False
    world.clock.move(HALF_PAST + timedelta(days=9))
    assert world.refresh(may) is None
    assert (world.listed(may).state, world.fees()) == (State.FINALIZATION_FAILED, [])


def test_a_draft_that_stripe_could_not_finalise_is_said(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=6_000, cost="4.99"))
    world.work(may)
    world.sandbox.books(STRIPE_ACCOUNT).finalization_failures["*"] = "The address is not known."
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.FINALIZATION_FAILED
    assert (world.listed(may).reason, world.fees()) == ("The address is not known.", [])
    world.sandbox.books(STRIPE_ACCOUNT).finalization_failures.clear()
    assert world.retry(may) == State.DRAFTING
    world.work(may)
    world.clock.move(utc(2026, 6, 20, 14))
    assert world.refresh(may) == State.SENT


def test_what_people_changed_after_it_was_scheduled_is_said(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=60_000, cost="9.50"))
    world.work(may)
    books, stripe_invoice = world.sandbox.books(STRIPE_ACCOUNT), str(world.listed(may).stripe_invoice)
    customer = world.in_stripe()[0]["customer"]
    books.create_item({"customer": customer, "invoice": stripe_invoice, "currency": "usd", "amount": "500"})
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.SENT
    assert world.listed(may).notice == CHANGED


def test_a_notice_of_the_drafting_is_not_lost_when_it_is_read_that_it_went_out(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1), profile(auto_charge=True))
    may = world.received(usage(seconds=60_000, cost="9.50"))
    world.work(may)
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.SENT
    assert world.listed(may).notice == NO_PAYMENT_METHOD


def test_a_draft_that_someone_stopped_in_stripe_is_said_and_goes_on_when_retried(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=60_000, cost="9.50"))
    world.work(may)
    (invoice,) = world.in_stripe()
    invoice["auto_advance"] = False
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.FINALIZATION_FAILED
    assert "auto_advance is off" in str(world.listed(may).reason)
    world.retry(may)
    world.work(may)
    world.clock.move(HALF_PAST + timedelta(hours=1))
    assert world.refresh(may) == State.SENT


def test_stripe_is_given_a_day_to_finalise_what_it_has_not_refused(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=60_000, cost="9.50"))
    world.work(may)
    world.clock.now = HALF_PAST  # Stripe's own clock is behind
    assert world.refresh(may) is None
    assert (world.listed(may).state, world.listed(may).reason) == (State.SCHEDULED, "not finalised yet")
    world.clock.now = HALF_PAST + timedelta(days=1)
    assert world.refresh(may) == State.FINALIZATION_FAILED
    world.clock.move(HALF_PAST + timedelta(days=2))
    assert world.refresh(may) == State.SENT

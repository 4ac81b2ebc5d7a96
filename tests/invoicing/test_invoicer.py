"""From a closed statement to at most one invoice."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import text

from invoicing import customer_store, setup_store
from invoicing.news_store import Receipt
from invoicing.profile import BillingProfile
from invoicing.setup_store import SetupRefusedError
from invoicing.states import State
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, statement, usage, utc

HALF_PAST = utc(2026, 6, 20, 12, 30)
BUSY = usage(seconds=60_000, cost="9.50")


def test_a_profile_made_on_15_may_for_day_20_is_first_invoiced_on_20_june_for_may(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 15))
    april = world.close(statement(BUSY, period="2026-04"), utc(2026, 5, 3, 1))
    world.receive(april)
    may = world.received(BUSY)
    world.work(april)
    world.work(may)
    assert world.listed(april).state == State.NOT_BILLED
    listed = world.listed(may)
    assert (listed.state, listed.send_at) == (State.SCHEDULED, utc(2026, 6, 20, 12))
    (invoice,) = world.in_stripe()
    assert invoice["automatically_finalizes_at"] == utc(2026, 6, 20, 12).timestamp()
    assert (invoice["subtotal"], invoice["auto_advance"]) == (12_00, True)


def test_a_profile_made_on_1_june_before_mays_statement_bills_may_on_20_june(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 6, 1))
    may = world.received(BUSY)
    world.work(may)
    assert world.listed(may).send_at == utc(2026, 6, 20, 12)


ON_THE_20TH = utc(2026, 6, 20, 12)


@pytest.mark.parametrize(
    ("made_at", "ended_at", "may", "june"),
    [
        # made before, on and after the billing day of the month before; May's statement is generated on 3 June
        (utc(2026, 5, 15), None, ON_THE_20TH, utc(2026, 7, 20, 12)),
        (utc(2026, 5, 20, 12), None, ON_THE_20TH, utc(2026, 7, 20, 12)),
        (utc(2026, 5, 31, 23, 59), None, ON_THE_20TH, utc(2026, 7, 20, 12)),
        # made after May's statement: before, on and after the billing day, June's is the first
        (utc(2026, 6, 3, 2), None, None, utc(2026, 7, 20, 12)),
        (utc(2026, 6, 20, 12), None, None, utc(2026, 7, 20, 12)),
        (utc(2026, 6, 25), None, None, utc(2026, 7, 20, 12)),
        # ended before May's statement, and after it: before, on and after the billing day
        (utc(2026, 5, 1), utc(2026, 6, 3, 0), None, None),
        (utc(2026, 5, 1), utc(2026, 6, 10), ON_THE_20TH, None),
        (utc(2026, 5, 1), utc(2026, 6, 20, 12), ON_THE_20TH, None),
        (utc(2026, 5, 1), utc(2026, 6, 25), ON_THE_20TH, None),
    ],
)
def test_what_was_in_force_when_the_statement_was_generated_decides(
    world: World, made_at: datetime, ended_at: datetime | None, may: datetime | None, june: datetime | None
) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, made_at)
    if ended_at is not None:
        with world.engine.begin() as connection:
            setup_store.end_profile(connection, tenant_id, ended_at)
    first = world.received(BUSY)
    world.work(first)
    world.clock.move(utc(2026, 7, 3, 1))
    second = world.received(usage(seconds=60_000, cost="9", period="2026-06"), period="2026-06")
    world.work(second)
    assert (world.listed(first).send_at, world.listed(second).send_at) == (may, june)
    assert len(world.in_stripe()) == sum(each is not None for each in (may, june))


@pytest.mark.parametrize("changed_at", [utc(2026, 6, 10), ON_THE_20TH, utc(2026, 6, 25)])
def test_a_profile_changed_before_on_or_after_its_day_leaves_what_is_scheduled_as_it_is(
    world: World, changed_at: datetime
) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    may = world.received(BUSY)
    world.work(may)
    world.bill(tenant_id, changed_at, profile({**OUTBOUND, "price": "0.02"}, billing_day=31))
    world.work(may)
    world.clock.move(utc(2026, 7, 3, 1))
    june = world.received(usage(seconds=60_000, cost="9", period="2026-06"), period="2026-06")
    world.work(june)
    assert [world.listed(each).subtotal_minor for each in (may, june)] == [12_00, 20_00]
    assert world.listed(june).send_at == utc(2026, 7, 31, 12)
    assert sorted(invoice["status"] for invoice in world.in_stripe()) == ["draft", "open"]


def test_a_profile_that_ended_while_its_invoice_was_still_to_be_made_bills_it(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    may = world.received(BUSY)
    with world.engine.begin() as connection:
        setup_store.end_profile(connection, tenant_id, utc(2026, 6, 3, 2))
    world.clock.move(utc(2026, 6, 25))
    world.work(may)
    assert world.listed(may).send_at == utc(2026, 6, 25, 0, 5), "its day is past: at once"


@pytest.mark.parametrize(
    ("ended_at", "cents"),
    [(utc(2026, 4, 10), 12_00), (utc(2026, 5, 1), 12_00), (utc(2026, 5, 1, 0, 1), 37_00)],
)
def test_an_ended_tenant_pays_for_late_usage_and_for_no_flat_item_of_a_month_it_did_not_see(
    world: World, ended_at: datetime, cents: int
) -> None:
    tenant_id = world.tenant()
    flat = {"kind": "flat", "description": "Platform", "price": "25"}
    world.bill(tenant_id, utc(2026, 3, 1), profile(flat, {**OUTBOUND, "price": "0.012"}))
    with world.engine.begin() as connection:
        connection.execute(text("alter table tenants disable trigger all"))
        connection.execute(
            text("update tenants set ended_at = :at where id = :id"), {"at": ended_at, "id": tenant_id}
        )
    may = world.received(usage(seconds=60_000, cost="9.50", period="2026-04", late=True))
    world.work(may)
    assert [invoice["subtotal"] for invoice in world.in_stripe()] == [cents]
    nothing = world.received(period="2026-06")
    world.work(nothing)
    assert world.listed(nothing).state == State.NOTHING_TO_BILL


def test_a_billing_day_already_past_sends_at_once(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 15), profile(billing_day=1))
    may = world.received(BUSY)
    world.work(may)
    assert world.listed(may).send_at == utc(2026, 6, 3, 1, 5)
    world.clock.move(utc(2026, 6, 3, 2))
    assert world.refresh(may) == State.SENT


def test_news_of_one_statement_twice_gives_one_invoice(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(BUSY)
    assert world.receive(may) == Receipt.KNOWN
    world.work(may)
    assert world.receive(may) == Receipt.KNOWN
    world.work(may)
    assert len(world.in_stripe()) == 1


def test_unassigned_usage_is_acknowledged_and_skipped(world: World) -> None:
    assert world.receive(world.close(statement(BUSY, tenant=None))) == Receipt.NO_TENANT


def test_a_tenant_with_no_profile_is_recorded_as_not_billed(world: World) -> None:
    world.tenant()
    may = world.received(BUSY)
    world.work(may)
    listed = world.listed(may)
    assert (listed.state, listed.reason) == (State.NOT_BILLED, "no_profile")
    assert world.in_stripe() == []


def test_no_usage_and_no_lines_mean_no_invoice_and_no_fee(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received()
    world.work(may)
    world.clock.move(HALF_PAST)
    assert world.refresh(may) is None
    assert world.listed(may).state == State.NOTHING_TO_BILL
    assert (world.in_stripe(), world.fees()) == ([], [])


@pytest.mark.parametrize(
    ("cost", "fees"),
    [("4.99", [("5.00", "sent")]), ("4.999999", [("5.00", "sent")]), ("5.00", []), ("5.01", [])],
)
def test_usage_under_five_dollars_costs_the_account_a_fee_once_the_invoice_is_sent(
    world: World, cost: str, fees: list[tuple[str, str]]
) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(usage(seconds=6_000, cost=cost))
    world.work(may)
    assert world.refresh(may) is None
    assert world.fees() == []
    world.clock.move(HALF_PAST)
    assert world.refresh(may) == State.SENT
    assert world.refresh(may) is None
    assert world.fees() == fees


def test_late_usage_counts_for_the_fee(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    late = usage(seconds=600, cost="1.00", period="2026-04", late=True)
    may = world.received(usage(seconds=6_000, cost="4.00"), late)
    world.work(may)
    world.clock.move(HALF_PAST)
    world.refresh(may)
    assert world.fees() == []


def test_a_key_that_stripe_does_not_accept_is_said_with_what_helps(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(BUSY)
    world.sandbox.set_faults({"action": "status", "status": 401, "method": "GET"})
    world.work(may)
    listed = world.listed(may)
    assert (listed.state, listed.reason) == (State.DRAFTING, "Stripe does not accept our API key")
    assert "STRIPE_API_KEY" in str(listed.remedy)


def test_a_profile_before_the_address_is_validated_is_refused(world: World) -> None:
    tenant_id = world.tenant(validated=False)
    with pytest.raises(SetupRefusedError, match="address is not validated"):
        world.bill(tenant_id, utc(2026, 5, 1))


def test_no_version_of_a_profile_is_made_before_the_latest_one(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    for made_at in (utc(2026, 4, 30), utc(2026, 5, 1)):
        with pytest.raises(SetupRefusedError, match="history does not change"):
            world.bill(tenant_id, made_at)


def test_no_profile_is_made_for_a_tenant_that_ended(world: World) -> None:
    tenant_id = world.tenant()
    with world.engine.begin() as connection:
        connection.execute(text("alter table tenants disable trigger all"))
        connection.execute(text("update tenants set ended_at = '2026-05-01Z'"))
    with pytest.raises(SetupRefusedError, match="the tenant has ended"):
        world.bill(tenant_id, utc(2026, 5, 1))


def test_a_profile_in_another_currency_than_the_accounts_is_refused(world: World) -> None:
    tenant_id = world.tenant()
    euros: BillingProfile = profile(currency="EUR")
    with pytest.raises(SetupRefusedError, match="EUR"):
        world.bill(tenant_id, utc(2026, 5, 1), euros)


def test_an_account_whose_currency_has_no_fee_cannot_link_stripe(world: World) -> None:
    with pytest.raises(SetupRefusedError, match="no phantom fee is set for EUR"):
        world.account("eurotel", "acct_euro", "EUR")


def test_a_changed_profile_bills_by_the_version_in_force_when_the_statement_was_generated(
    world: World,
) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    may = world.received(BUSY)
    world.bill(tenant_id, utc(2026, 6, 3, 2), profile({**OUTBOUND, "price": "9"}, billing_day=25))
    world.work(may)
    listed = world.listed(may)
    assert (listed.subtotal_minor, listed.send_at) == (12_00, utc(2026, 6, 20, 12))


def test_the_customer_carries_the_tenants_details_and_nothing_more(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    world.work(world.received(BUSY))
    (customer,) = world.sandbox.books(STRIPE_ACCOUNT).customers.values()
    told = {key: customer[key] for key in ("description", "name", "email", "phone")}
    assert told == {
        "description": "Big Customer",
        "name": "Ada Example",
        "email": "billing@bigcustomer.mypbx.com",
        "phone": "+12125550100",
    }
    assert list(customer["metadata"]) == ["tenant_reference"]
    assert customer["invoice_settings"] == {"default_payment_method": None}


def test_a_customer_that_existed_is_used_and_left_alone(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1), profile(auto_charge=True))
    theirs = world.sandbox.books(STRIPE_ACCOUNT).create_customer(
        {"email": "old@example.com", "invoice_settings": {"default_payment_method": "pm_1"}}
    )
    with world.engine.begin() as connection:
        customer_store.save_customer(
            connection, tenant_id, STRIPE_ACCOUNT, theirs["id"], "theirs", world.clock()
        )
    before = dict(theirs)
    may = world.received(BUSY)
    world.work(may)
    (invoice,) = world.in_stripe()
    assert (invoice["customer"], invoice["collection_method"]) == (theirs["id"], "charge_automatically")
    assert theirs == before
    world.clock.move(HALF_PAST)
    assert (world.refresh(may), world.listed(may).reason) == (State.SENT, "paid")


def test_a_coupon_that_a_customer_has_in_stripe_lessens_no_invoice(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    theirs = world.sandbox.books(STRIPE_ACCOUNT).create_customer({"email": "old@example.com"})
    theirs["discount"] = {"coupon": {"percent_off": 10}}
    with world.engine.begin() as connection:
        customer_store.save_customer(
            connection, tenant_id, STRIPE_ACCOUNT, theirs["id"], "theirs", world.clock()
        )
    world.work(world.received(BUSY))
    (invoice,) = world.in_stripe()
    assert (invoice["subtotal"], invoice["total"]) == (12_00, 12_00)
    assert theirs["discount"] == {"coupon": {"percent_off": 10}}


def test_auto_charge_without_a_payment_method_is_sent_with_terms_and_that_is_said(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1), profile(auto_charge=True, terms_days=10))
    may = world.received(BUSY)
    world.work(may)
    (invoice,) = world.in_stripe()
    assert invoice["collection_method"] == "send_invoice"
    assert invoice["due_date"] == utc(2026, 6, 30, 23, 59, 59).timestamp()
    assert "no payment method" in str(world.listed(may).notice)


def test_a_line_that_someone_changed_in_stripe_holds_the_invoice(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(BUSY)
    world.sandbox.set_faults({"action": "status", "method": "GET", "path": "/lines", "status": 503})
    world.work(may)
    (invoice,) = world.in_stripe()
    world.sandbox.books(STRIPE_ACCOUNT).items[invoice["id"]][0]["amount"] = 1
    world.work(may)
    listed = world.listed(may)
    assert (listed.state, world.in_stripe()[0]["auto_advance"]) == (State.HELD, False)
    assert listed.reason == "lines differ: 1.2026-05 (USD 12.00) missing, 1.2026-05 (USD 0.01) not ours"


def test_an_account_never_linked_blocks_its_invoices_until_it_is_linked_and_they_are_retried(
    world: World,
) -> None:
    account_id = world.account("unlinked", None)
    world.bill(world.tenant("small.example.com", account_id=account_id), utc(2026, 5, 1))
    may = world.received(BUSY, account="unlinked", tenant="small.example.com")
    world.work(may)
    assert world.listed(may).reason == "no_stripe_link"
    with world.engine.begin() as connection:
        setup_store.link_stripe(connection, account_id, "acct_small", world.clock())
    world.work(may)
    assert world.listed(may).state == State.BLOCKED
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert len(world.in_stripe("acct_small")) == 1


def test_two_accounts_in_one_run_keep_to_their_own_stripe_accounts(world: World) -> None:
    other = world.account("other", "acct_other")
    world.bill(world.tenant("a.example.com"), utc(2026, 5, 1))
    world.bill(world.tenant("b.example.com", account_id=other), utc(2026, 5, 1))
    first = world.received(BUSY, tenant="a.example.com")
    second = world.received(BUSY, tenant="b.example.com", account="other")
    world.work(first)
    world.work(second)
    assert len(world.in_stripe()) == len(world.in_stripe("acct_other")) == 1

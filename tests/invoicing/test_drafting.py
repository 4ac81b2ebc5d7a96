"""A draft is filled from wherever it stands, whatever people do in Stripe and to their tenants meanwhile."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from invoicing import customer_store, store
from invoicing.invoicer import NO_PAYMENT_METHOD
from invoicing.states import State
from schemas.identity import fact_id
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, usage, utc

BUSY = usage(seconds=60_000, cost="9.50")
TWO_LINES = ({**OUTBOUND, "price": "0.012"}, {"kind": "flat", "description": "Platform", "price": "25"})


@pytest.fixture
def may(world: World) -> UUID:
    """A statement whose invoice has two lines."""
    world.bill(world.tenant(), utc(2026, 5, 1), profile(*TWO_LINES))
    return world.received(BUSY)


def half_filled(world: World, may: UUID) -> str:
    """Its draft has its first line, and Stripe is out of reach before the second."""
    world.sandbox.set_faults({"action": "status", "status": 503, "path": "/v1/invoiceitems", "skip": 1})
    world.work(may)
    (invoice,) = world.in_stripe()
    assert len(world.lines_in_stripe(invoice["id"])) == 1
    return str(invoice["id"])


def link_customer(world: World, tenant_id: int, **fields: object) -> str:
    theirs = world.sandbox.books(STRIPE_ACCOUNT).create_customer({"email": "theirs@example.com"})
    theirs.update(fields)
    with world.engine.begin() as connection:
        customer_store.save_customer(
            connection, tenant_id, STRIPE_ACCOUNT, theirs["id"], "theirs", world.clock()
        )
    return str(theirs["id"])


def test_a_draft_keeps_its_customer_when_its_tenant_is_linked_to_another_in_the_middle(
    world: World, may: UUID
) -> None:
    half_filled(world, may)
    theirs = link_customer(world, world.tenants["bigcustomer.mypbx.com"])
    world.work(may)
    (invoice,) = world.in_stripe()
    assert (world.listed(may).state, len(world.lines_in_stripe(invoice["id"]))) == (State.SCHEDULED, 2)
    assert invoice["customer"] != theirs
    world.clock.move(utc(2026, 7, 3, 1))
    world.work(world.received(usage(seconds=60, cost="9", period="2026-06"), period="2026-06"))
    assert [each["customer"] == theirs for each in world.in_stripe()] == [False, True]


def test_an_unfinished_draft_that_people_finalised_waits_until_they_voided_it_and_is_made_anew(
    world: World, may: UUID
) -> None:
    books = world.sandbox.books(STRIPE_ACCOUNT)
    books.finalize(half_filled(world, may))
    world.work(may)
    assert (world.listed(may).state, world.listed(may).reason) == (
        State.HELD,
        "finalised in Stripe before it was whole: void it there",
    )
    books.void(str(world.listed(may).stripe_invoice))
    assert world.retry(may) == State.DRAFTING
    world.work(may)
    assert world.listed(may).state == State.DELETED
    assert world.retry(may) == State.RECEIVED
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert [each["status"] for each in world.in_stripe()] == ["void", "draft"]
    assert len(world.lines_in_stripe(str(world.listed(may).stripe_invoice))) == 2


def test_a_held_draft_that_people_emptied_is_made_anew_once_they_deleted_it(world: World, may: UUID) -> None:
    world.sandbox.set_faults({"action": "status", "method": "GET", "path": "/lines", "status": 503})
    world.work(may)
    (invoice,) = world.in_stripe()
    books = world.sandbox.books(STRIPE_ACCOUNT)
    books.delete_item(books.items[invoice["id"]][0]["id"])
    world.work(may)
    assert world.listed(may).state == State.HELD
    assert "delete the draft there" in str(world.listed(may).remedy)
    books.delete_invoice(invoice["id"])
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.DELETED
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert [len(world.lines_in_stripe(each["id"])) for each in world.in_stripe()] == [2]


def test_that_an_invoice_is_not_charged_automatically_is_still_said_after_it_was_taken_up_again(
    world: World,
) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1), profile(*TWO_LINES, auto_charge=True))
    may = world.received(BUSY)
    half_filled(world, may)
    [customer] = world.sandbox.books(STRIPE_ACCOUNT).customers.values()
    customer["invoice_settings"]["default_payment_method"] = "pm_1"
    world.work(may)
    (invoice,) = world.in_stripe()
    assert (invoice["collection_method"], world.listed(may).notice) == ("send_invoice", NO_PAYMENT_METHOD)


def test_who_comes_late_with_a_draft_of_an_earlier_generation_changes_nothing(
    world: World, may: UUID
) -> None:
    half_filled(world, may)
    with world.engine.begin() as connection:
        row = store.invoice_row(connection, fact_id("invoice", may))
        assert not store.keep_draft(connection, replace(row, generation=7), "in_of_another_generation")
        assert not store.keep_draft(connection, replace(row, state=State.DRAFTED), "in_of_another_state")
        assert store.invoice_row(connection, row.id).stripe_invoice == row.stripe_invoice


@pytest.mark.parametrize("begun", [False, True], ids=["before the draft", "after the draft"])
def test_a_customer_that_people_deleted_is_replaced_by_the_one_they_link(
    world: World, may: UUID, *, begun: bool
) -> None:
    path = "/v1/invoiceitems" if begun else "/v1/invoices$"
    world.sandbox.set_faults({"action": "status", "status": 503, "path": path})
    world.work(may)
    books = world.sandbox.books(STRIPE_ACCOUNT)
    [ours] = books.customers
    books.delete_customer(ours)
    world.work(may)
    assert (world.listed(may).state, "stripe customer" in str(world.listed(may).remedy)) == (
        State.FAILED,
        True,
    )
    theirs = link_customer(world, world.tenants["bigcustomer.mypbx.com"])
    if begun:
        books.delete_invoice(str(world.listed(may).stripe_invoice))
        world.retry(may)
        world.work(may)
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert [(each["customer"], each["auto_advance"]) for each in world.in_stripe()] == [(theirs, True)]


def test_an_existing_customer_without_an_email_is_refused_until_it_has_one(world: World, may: UUID) -> None:
    theirs = link_customer(world, world.tenants["bigcustomer.mypbx.com"], email=None)
    world.work(may)
    assert (world.listed(may).state, "Missing email" in str(world.listed(may).reason)) == (State.FAILED, True)
    world.sandbox.books(STRIPE_ACCOUNT).customers[theirs]["email"] = "theirs@example.com"
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED


def test_an_old_kind_of_payment_source_is_a_payment_method_too(world: World) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1), profile(*TWO_LINES, auto_charge=True))
    link_customer(world, tenant_id, default_source="card_1")
    may = world.received(BUSY)
    world.work(may)
    (invoice,) = world.in_stripe()
    assert (invoice["collection_method"], world.listed(may).notice) == ("charge_automatically", None)

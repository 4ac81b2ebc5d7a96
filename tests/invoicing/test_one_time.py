"""Invoices outside the schedule: any products, sent at once, each asked for once (I10)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing import one_time_store
from invoicing.invoicer import Worked
from invoicing.listing_store import InvoiceListing, list_invoices
from invoicing.one_time import NotAskedFor, OneTimeInvoice, Payer, plan_one_time
from invoicing.plan import ToBill
from invoicing.refresh import refresh_invoice
from invoicing.retry_store import retry_invoice
from invoicing.setup_store import SetupRefusedError
from invoicing.states import State
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, statement, usage, utc
from tests.invoicing.conftest import CommandLine
from tests.invoicing.test_crashes import DyingGateway, Killed

TENANT = "bigcustomer.mypbx.com"
BUSY = usage(seconds=60_000, cost="9.50")
HANDSETS = {"kind": "flat", "description": "Handset", "price": "79.90", "quantity": "3"}
SETUP = {"kind": "flat", "description": "Setup", "price": "25"}
JUNE = utc(2026, 6, 10)
ONE_TIME = ("invoice", "one-time", "reseller", TENANT)


def asked(*products: dict[str, Any], **fields: Any) -> OneTimeInvoice:
    return OneTimeInvoice.model_validate(
        {"products": products or (HANDSETS, SETUP), "currency": "USD", **fields}
    )


def payer(**profile_fields: Any) -> Payer:
    flat = {**SETUP, "tax_code": "txcd_10000000"}
    return Payer("reseller", TENANT, "USD", profile(flat, **profile_fields) if profile_fields else None)


def planned(request: OneTimeInvoice, to: Payer, *lines: Any) -> ToBill | NotAskedFor:
    return plan_one_time(request, to, statement(*lines) if lines else None, JUNE)


def ask(world: World, request: OneTimeInvoice, key: str | None = None, *, again: bool = False) -> UUID:
    """What the command does, without its process."""
    with world.engine.begin() as connection:
        tenant_id = world.tenants[TENANT]
        to = one_time_store.payer(connection, tenant_id)
        plan = plan_one_time(request, to, None, world.clock())
        assert isinstance(plan, ToBill), plan
        name = one_time_store.one_time_key(connection, tenant_id, request, key, again=again)
        return one_time_store.ask_once(
            connection, tenant_id, name, request.month, plan, world.clock()
        ).invoice_id


def listed(world: World, invoice_id: UUID) -> InvoiceListing:
    with world.engine.begin() as connection:
        return next(each for each in list_invoices(connection) if each.invoice_id == invoice_id)


def test_it_goes_out_at_once_and_the_monthly_invoice_is_as_it_was(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.received(BUSY)
    world.work(may)
    [monthly] = world.in_stripe()
    before = dict(monthly), world.lines_in_stripe(monthly["id"]), world.listed(may)
    extra = ask(world, asked())
    world.invoicer().work(extra)
    assert (dict(monthly), world.lines_in_stripe(monthly["id"]), world.listed(may)) == before
    sent = listed(world, extra)
    assert (sent.kind, sent.state, sent.subtotal_minor) == ("one_time", State.SCHEDULED, 264_70)
    assert sent.send_at == world.clock() + timedelta(minutes=5)
    assert sorted(world.lines_in_stripe(str(sent.stripe_invoice)).values()) == [25_00, 239_70]
    world.clock.move(world.clock() + timedelta(minutes=6))
    assert [each["status"] for each in world.in_stripe() if each["id"] == sent.stripe_invoice] == ["open"]
    assert refresh_invoice(world.invoicer(), extra) == State.SENT
    assert world.fees() == []
    assert len(world.sandbox.books(STRIPE_ACCOUNT).customers) == 1


def test_the_same_request_again_is_the_same_invoice_until_again_is_said(world: World) -> None:
    world.tenant()
    first = ask(world, asked())
    assert ask(world, asked()) == first
    world.invoicer().work(first)
    world.clock.move(world.clock() + timedelta(days=40))
    assert ask(world, asked()) == first
    second = ask(world, asked(), again=True)
    assert second != first
    assert ask(world, asked()) == first
    assert ask(world, asked(SETUP)) not in {first, second}


def test_a_key_of_the_callers_own_names_one_invoice_and_one_content(world: World) -> None:
    world.tenant()
    first = ask(world, asked(), "order-17")
    assert ask(world, asked(), "order-17") == first
    assert ask(world, asked(), "order-18") != first
    with pytest.raises(SetupRefusedError, match="'order-17' was used"):
        ask(world, asked(SETUP), "order-17")


@pytest.mark.parametrize("dies_at", range(1, 9))
def test_killed_at_any_step_it_is_one_whole_invoice_in_the_end(world: World, dies_at: int) -> None:
    world.tenant()
    extra = ask(world, asked())
    with pytest.raises(Killed):
        world.invoicer(DyingGateway(world.sandbox.url, dies_at, after=True)).work(extra)
    assert ask(world, asked()) == extra
    assert world.invoicer().work(extra) is Worked.DONE
    [invoice] = world.in_stripe()
    assert (invoice["auto_advance"], sorted(world.lines_in_stripe(invoice["id"]).values())) == (
        True,
        [25_00, 239_70],
    )
    assert listed(world, extra).state == State.SCHEDULED


def test_one_deleted_in_stripe_is_made_anew_by_command_only(world: World) -> None:
    world.tenant()
    extra = ask(world, asked())
    world.invoicer().work(extra)
    world.sandbox.books(STRIPE_ACCOUNT).delete_invoice(str(listed(world, extra).stripe_invoice))
    world.clock.move(world.clock() + timedelta(hours=1))
    assert refresh_invoice(world.invoicer(), extra) == State.DELETED
    with world.engine.begin() as connection:
        assert retry_invoice(connection, extra, world.clock()) == State.RECEIVED
    world.invoicer().work(extra)
    assert listed(world, extra).state == State.SCHEDULED
    assert [invoice["subtotal"] for invoice in world.in_stripe()] == [264_70]


def test_usage_of_a_closed_month_can_be_asked_for_once() -> None:
    plan = planned(asked({**OUTBOUND, "price": "0.012"}, month="2026-05"), payer(), BUSY)
    assert isinstance(plan, ToBill)
    assert [(line.amount_minor, line.usage_period) for line in plan.lines] == [(12_00, "2026-05")]
    refused = planned(asked({**OUTBOUND, "price": "0.012"}), payer())
    assert isinstance(refused, NotAskedFor)
    assert "Outbound minutes" in refused.reason
    unclosed = planned(asked(month="2026-09"), payer())
    assert unclosed == NotAskedFor(
        f"2026-09 has no statement of {TENANT}: a month can be billed once it is closed"
    )


def test_taxes_and_terms_are_the_tenants_unless_it_has_none() -> None:
    coded = {**SETUP, "tax_code": "txcd_10000000"}
    taxed = planned(asked(coded), payer(taxes=True, terms_days=10, auto_charge=True))
    assert isinstance(taxed, ToBill)
    assert (taxed.terms.taxes, taxed.terms.terms_days, taxed.terms.auto_charge) == (True, 10, True)
    own = planned(asked(coded, terms_days=3, auto_charge=False), payer(taxes=True, auto_charge=True))
    assert isinstance(own, ToBill)
    assert (own.terms.taxes, own.terms.terms_days, own.terms.auto_charge) == (True, 3, False)
    assert planned(asked(), payer(taxes=True)) == NotAskedFor(
        "the tenant is taxed, so each product needs a tax_code; missing: Handset, Setup"
    )
    assert isinstance(planned(asked(coded, taxes=False), payer(taxes=True)), NotAskedFor)
    without = planned(asked(), payer())
    assert isinstance(without, ToBill)
    assert (without.terms.taxes, without.terms.terms_days) == (False, 30)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (asked(currency="EUR"), "EUR"),
        (asked({**SETUP, "price": "0"}), "comes to nothing"),
        (asked({**SETUP, "price": "999999.99"}, SETUP), "total_over_maximum"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_stripe_hears_of_it(
    request_: OneTimeInvoice, why: str
) -> None:
    refused = planned(request_, payer())
    assert isinstance(refused, NotAskedFor)
    assert why in refused.reason


@given(st.lists(st.sampled_from([HANDSETS, SETUP]), min_size=1, max_size=5), st.none() | st.just(10))
def test_a_request_is_told_apart_by_all_it_says(products: list[dict[str, Any]], terms: int | None) -> None:
    request = asked(*products, terms_days=terms)
    assert request.digest() == asked(*products, terms_days=terms).digest()
    assert request.digest() != asked(*products, SETUP, terms_days=terms).digest()
    assert request.digest() != asked(*products, terms_days=11).digest()


def test_a_taxed_one_is_taxed_line_by_line(world: World) -> None:
    coded = {**SETUP, "tax_code": "txcd_10000000"}
    world.bill(world.tenant(), utc(2026, 5, 1), profile(coded, taxes=True))
    extra = ask(world, asked(coded))
    world.invoicer().work(extra)
    [invoice] = world.in_stripe()
    [item] = world.sandbox.books(STRIPE_ACCOUNT).items[invoice["id"]]
    assert (item["tax_code"], item["tax_behavior"], invoice["total"]) == (
        "txcd_10000000",
        "exclusive",
        27_50,
    )


def test_the_command_previews_sends_and_says_what_was_sent_before(
    world: World, type_: CommandLine, tmp_path: Path
) -> None:
    world.tenant()
    items = ("--item", "Handset=79.90*3", "--item", "Setup=25")
    shown = type_(*ONE_TIME, *items, "--preview", "--json").json
    assert (shown["subtotal"], len(shown["lines"]), world.in_stripe()) == ("264.70", 2, [])
    assert type_("invoice", "list", "--json").json == []
    said = type_(*ONE_TIME, *items)
    assert "scheduled" in said.err
    assert "Handset" in said.out
    [invoice] = world.in_stripe()
    assert (invoice["subtotal"], invoice["auto_advance"]) == (264_70, True)
    assert "asked for before" in type_(*ONE_TIME, *items).err
    file = tmp_path / "one-time.yaml"
    file.write_text(
        "products:\n"
        "  - {kind: flat, description: Handset, price: '79.90', quantity: '3'}\n"
        "  - {kind: flat, description: Setup, price: '25'}\n"
    )
    assert "asked for before" in type_(*ONE_TIME, str(file)).err
    assert len(world.in_stripe()) == 1
    sent = type_(*ONE_TIME, str(file), "--again", "--json").json
    assert (sent["kind"], sent["state"], len(world.in_stripe())) == ("one_time", "scheduled", 2)
    explained = type_("invoice", "explain", sent["invoice_id"], "--json").json
    assert [line["exact"] for line in explained["lines"]] == ["239.7", "25"]


def test_the_command_refuses_with_the_reason(world: World, type_: CommandLine, tmp_path: Path) -> None:
    tenant_id = world.tenant()
    item = ("--item", "Setup=25")
    type_(*ONE_TIME, code=2)
    type_(*ONE_TIME, *item, "--key", "a", "--again", code=2)
    for wrong in ("Setup", "=25", "Setup=free", "Setup=0.0000000000001"):
        type_(*ONE_TIME, "--item", wrong, code=1)
    file = tmp_path / "wrong.yaml"
    file.write_text("products: [{kind: flat, description: Setup, price: 25.5}]")
    assert "products.0.flat.price" in type_(*ONE_TIME, str(file), code=1).err
    world.details(tenant_id, validated=False)
    assert "address not validated" in type_(*ONE_TIME, *item, code=1).err
    world.clock.move(world.clock() + timedelta(seconds=1))
    world.details(tenant_id)
    type_("stripe", "unlink", "reseller")
    assert "stripe link" in type_(*ONE_TIME, *item, code=1).err
    assert world.in_stripe() == []

"""Taxes: asked of Stripe line by line, looked at before and after sending, reported and kept nowhere (I4, I11)."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from invoicing import customer_store
from invoicing.profile import BillingProfile
from invoicing.refresh import UNTAXED
from invoicing.states import State
from invoicing.tax_report import TaxedInvoice, tax_total
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, usage, utc
from tests.invoicing.conftest import CommandLine

BUSY = usage(seconds=60_000, cost="9.50")
NOWHERE = "00000"
TENANT = "bigcustomer.mypbx.com"
TAXED_FILE = """
billing_day: 20
currency: USD
taxes: true
products:
  - {kind: flat, description: Platform, price: '25', tax_code: txcd_10000000}
"""


def taxed() -> BillingProfile:
    coded = {**OUTBOUND, "price": "0.012", "tax_code": "txcd_10000000"}
    flat = {"kind": "flat", "description": "Platform", "price": "25", "tax_code": "txcd_20030000"}
    return profile(coded, flat, taxes=True)


def items(world: World, stripe_invoice: str) -> list[dict[str, Any]]:
    return world.sandbox.books(STRIPE_ACCOUNT).items[stripe_invoice]


def drafted_nowhere(world: World) -> tuple[int, UUID]:
    """A taxed tenant whose customer people linked, at an address that Stripe cannot tax."""
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1), taxed())
    theirs = world.sandbox.books(STRIPE_ACCOUNT).create_customer(
        {"email": "a@b.c", "address": {"country": "US", "postal_code": NOWHERE}}
    )
    with world.engine.begin() as connection:
        customer_store.save_customer(
            connection, tenant_id, STRIPE_ACCOUNT, theirs["id"], "theirs", world.clock()
        )
    may = world.received(BUSY)
    world.work(may)
    return tenant_id, may


def test_with_taxes_each_line_has_its_code_and_stripe_adds_the_tax(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1), taxed())
    may = world.received(BUSY)
    world.work(may)
    [invoice] = world.in_stripe()
    assert invoice["automatic_tax"]["enabled"] is True
    assert [(item["tax_code"], item["tax_behavior"]) for item in items(world, invoice["id"])] == [
        ("txcd_10000000", "exclusive"),
        ("txcd_20030000", "exclusive"),
    ]
    assert (invoice["subtotal"], invoice["total"]) == (37_00, 40_70)
    assert world.listed(may).subtotal_minor == 37_00


def test_without_taxes_that_is_said_too_and_lines_carry_no_code(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    world.work(world.received(BUSY))
    [invoice] = world.in_stripe()
    assert invoice["automatic_tax"]["enabled"] is False
    assert [item["tax_code"] for item in items(world, invoice["id"])] == [None]


def test_an_invoice_whose_taxes_are_not_complete_is_held_and_goes_on_when_they_are(world: World) -> None:
    _, may = drafted_nowhere(world)
    listed = world.listed(may)
    assert (listed.state, listed.reason) == (State.HELD, "tax cannot be calculated: requires_location_inputs")
    assert [invoice["auto_advance"] for invoice in world.in_stripe()] == [False]
    world.clock.move(utc(2026, 6, 21))
    assert world.in_stripe()[0]["status"] == "draft", "nothing goes out untaxed"
    [customer] = world.sandbox.books(STRIPE_ACCOUNT).customers.values()
    customer["address"]["postal_code"] = "10001"
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert len(world.in_stripe()) == 1


def test_an_address_stripe_cannot_tax_fails_with_its_reason_and_goes_on_when_it_was_corrected(
    world: World,
) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1), taxed())
    world.details(tenant_id, postal_code=NOWHERE)
    may = world.received(BUSY)
    world.work(may)
    listed = world.listed(may)
    assert listed.state == State.FAILED
    assert "customer_tax_location_invalid" in str(listed.reason)
    world.details(tenant_id, postal_code="10001")
    world.retry(may)
    world.work(may)
    assert world.listed(may).state == State.SCHEDULED
    assert len(world.sandbox.books(STRIPE_ACCOUNT).customers) == 1


def test_an_invoice_that_stripe_sent_without_its_tax_is_said_to_be_untaxed(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1), taxed())
    may = world.received(BUSY)
    world.work(may)
    world.sandbox.books(STRIPE_ACCOUNT).tax_switched_off.add("*")
    world.clock.move(utc(2026, 6, 20, 13))
    assert world.refresh(may) == State.SENT
    assert world.listed(may).notice == UNTAXED


def test_a_profile_with_taxes_needs_stripes_location_check(
    world: World, type_: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "taxed.yaml"
    file.write_text(TAXED_FILE)
    tenant_id = world.tenant()
    world.details(tenant_id, postal_code=NOWHERE)
    apply = ("profile", "apply", "reseller", TENANT, str(file))
    assert "customer_tax_location_invalid" in type_(*apply, code=1).err
    assert type_("profile", "show", "reseller", TENANT, "--json").json == []
    world.clock.move(world.clock().replace(microsecond=0))
    world.details(tenant_id, postal_code="10001")
    type_(*apply)
    type_(*apply)
    assert len(world.sandbox.books(STRIPE_ACCOUNT).customers) == 1
    type_("stripe", "unlink", "reseller")
    assert "stripe link" in type_(*apply, code=1).err


def test_a_linked_customer_at_an_address_stripe_cannot_tax_gets_no_profile_with_taxes(
    world: World, type_: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "taxed.json"
    file.write_text(taxed().model_dump_json())
    world.tenant()
    books = world.sandbox.books(STRIPE_ACCOUNT)
    theirs = books.create_customer({"email": "a@b.c", "address": {"country": "US", "postal_code": NOWHERE}})
    type_("stripe", "customer", "reseller", TENANT, theirs["id"])
    refused = type_("profile", "apply", "reseller", TENANT, str(file), code=1).err
    assert "unrecognized_location" in refused


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value


def rows_of_all_tables(world: World) -> dict[str, list[str]]:
    with world.engine.connect() as connection:
        names = connection.execute(
            text("select table_name from information_schema.tables where table_schema = 'public'")
        ).scalars()
        return {
            name: sorted(
                repr([_plain(each) for each in row])
                for row in connection.execute(text(f'select * from "{name}"'))
            )
            for name in names.all()
        }


def test_the_tax_report_is_what_stripe_says_now_and_is_kept_nowhere(world: World, type_: CommandLine) -> None:
    now = world.clock()
    for code, definition in (("taxed.example.com", taxed()), ("untaxed.example.com", profile())):
        world.bill(world.tenant(code), utc(2026, 5, 1), definition)
        world.work(world.close_at(now, BUSY, tenant=code))
    month = ("invoice", "taxes", "reseller", "2026-05")
    drafts = type_(*month, "--json").json
    assert {each["status"] for each in drafts} == {"draft"}
    for invoice in world.in_stripe():
        world.sandbox.books(STRIPE_ACCOUNT).finalize(invoice["id"])
    before = rows_of_all_tables(world)
    report = {each["tenant"]: each for each in type_(*month, "--json").json}
    assert rows_of_all_tables(world) == before
    told = report["taxed.example.com"]
    amounts = {name: Decimal(told[name]) for name in ("subtotal", "taxable", "tax", "total")}
    assert amounts == {
        "subtotal": Decimal(37),
        "taxable": Decimal(37),
        "tax": Decimal("3.7"),
        "total": Decimal("40.7"),
    }
    assert (told["status"], told["note"]) == ("open", None)
    assert Decimal(report["untaxed.example.com"]["tax"]) == 0
    assert report["untaxed.example.com"]["note"] == "without automatic tax"
    assert "49.00" in type_(*month).out, "the sum of both"
    assert type_("invoice", "taxes", "reseller", "2026-04", "--json").json == []


def test_the_tax_report_says_when_stripe_gives_no_answer(world: World, type_: CommandLine) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1), taxed())
    world.work(world.close_at(world.clock(), BUSY))
    world.sandbox.books(STRIPE_ACCOUNT).linked = False
    assert "gave no answer" in type_("invoice", "taxes", "reseller", "2026-05", code=1).err


@pytest.mark.parametrize("code", ["txcd_1", "10000000", ""])
def test_a_tax_code_is_stripes(code: str) -> None:
    with pytest.raises(ValueError, match="tax_code"):
        profile({**OUTBOUND, "price": "1", "tax_code": code}, taxes=True)


@pytest.mark.parametrize(
    ("status", "owed"),
    [("open", 1), ("paid", 1), ("uncollectible", 1), ("void", 0), ("draft", 0), ("deleted", 0)],
)
def test_only_what_was_sent_and_stands_is_owed_taxes_on(status: str, owed: int) -> None:
    one = TaxedInvoice(
        tenant=TENANT,
        kind="monthly",
        invoice="in_1",
        number=None,
        status=status,
        sent_at=None,
        currency="USD",
        subtotal=Decimal(37),
        taxable=Decimal(37),
        tax=Decimal("3.70"),
        total=Decimal("40.70"),
        note=None,
        detail=(),
    )
    total = tax_total([one])
    assert (0 if total is None else total.invoices) == owed

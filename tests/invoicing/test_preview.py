"""What would be asked for, shown before anything is sent, and the same to the cent as what is then sent."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.lines import InvoiceLine, exact_charge, product_lines
from invoicing.plan import ToBill, plan_invoice
from invoicing.preview import Chosen, choose_version, preview_statement
from invoicing.schedule import ProfileVersion
from invoicing.sources import sources
from schemas.statements import NumbersHeld
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, statement, usage, utc
from tests.invoicing.conftest import CommandLine

TENANT = "bigcustomer.mypbx.com"
PREVIEW = ("invoice", "preview", "reseller", TENANT, "2026-05")
GENERATED = utc(2026, 6, 3, 1)
CLASSES = ("inbound_conversational", "outbound_conversational", "outbound_international", "caller_id_lookup")
HELD = (
    NumbersHeld(usage_class="number_local", count=3, cost=Decimal(3)),
    NumbersHeld(usage_class="number_toll_free", count=1, cost=Decimal(2)),
)
EVERY_PRODUCT: tuple[dict[str, Any], ...] = (
    {"kind": "peak_channels", "description": "Channels", "price": "12.345"},
    {**OUTBOUND, "price": "0.0129", "included_minutes": "100"},
    {**OUTBOUND, "description": "To the second", "price": "0.0071", "measure": "answered"},
    {"kind": "service_events", "description": "Names", "usage_class": "caller_id_lookup", "price": "0.0085"},
    {"kind": "numbers", "description": "Local", "usage_class": "number_local", "price": "1.505"},
    {"kind": "numbers", "description": "Toll-free", "usage_class": "number_toll_free", "price": "4"},
    {"kind": "flat", "description": "Support", "price": "33.333", "quantity": "1.5"},
    {"kind": "cost_plus", "description": "At cost", "markup_percent": "12.5"},
)


def test_the_preview_of_every_product_is_the_invoice_that_is_then_sent(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1), profile(*EVERY_PRODUCT))
    body = statement(
        usage(seconds=74_074, cost="9.123456"),
        usage("caller_id_lookup", attempts=777, cost="3"),
        usage(seconds=601, cost="0.5", period="2026-04", late=True),
        numbers=HELD,
        peak=7,
    )
    found = preview_statement(
        body, GENERATED, Chosen(ProfileVersion(1, GENERATED, None, profile(*EVERY_PRODUCT))), "closed"
    )
    may = world.close(body, GENERATED)
    world.receive(may)
    world.work(may)
    [invoice] = world.in_stripe()
    in_stripe = world.sandbox.books(STRIPE_ACCOUNT).lines(invoice["id"])
    shown = [(line.description, line.amount) for line in found.lines]
    assert shown == [(line["description"], Decimal(line["amount"]) / 100) for line in in_stripe]
    assert (found.subtotal_minor, found.send_at) == (invoice["subtotal"], world.listed(may).send_at)
    assert {line.unit for line in found.lines} == {"channel", "second", "event", "number", "item", "cost"}
    assert found.phantom_fee is None


def test_quantity_price_exact_amount_and_rounding_are_shown() -> None:
    chosen = Chosen(ProfileVersion(1, GENERATED, None, profile({**OUTBOUND, "price": "0.0129"})))
    [line] = preview_statement(statement(usage(seconds=74_074)), GENERATED, chosen, "closed").lines
    assert (line.quantity, line.unit_price) == (Decimal(74_074), Decimal("0.0129"))
    assert line.unit == "second"
    assert (line.exact, line.amount) == (Decimal("15.92591"), Decimal("15.93"))


def test_the_fee_that_sending_it_costs_the_account_is_shown() -> None:
    chosen = Chosen(ProfileVersion(1, GENERATED, None, profile()))
    tiny = preview_statement(statement(usage(seconds=600, cost="4.99")), GENERATED, chosen, "closed")
    assert tiny.phantom_fee == Decimal("5.00")
    nothing = preview_statement(statement(), GENERATED, chosen, "closed")
    assert (nothing.phantom_fee, nothing.problem) == (None, "nothing_to_bill")


products = st.lists(st.sampled_from(EVERY_PRODUCT), min_size=1, max_size=6)
months = st.sampled_from(["2026-05", "2026-04", "2026-03"])
usages = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.integers(0, 10**7), st.integers(0, 10**9), months), max_size=8
)


@given(products, usages, st.integers(0, 500), st.integers(1, 31))
def test_preview_and_invoice_never_differ(
    chosen: list[dict[str, Any]], used: list[tuple[str, int, int, str]], peak: int, day: int
) -> None:
    lines = [
        usage(
            each, seconds=seconds, cost=str(Decimal(cost).scaleb(-6)), period=month, late=month != "2026-05"
        )
        for each, seconds, cost, month in used
    ]
    body = statement(*lines, numbers=HELD, peak=peak)
    version = ProfileVersion(1, utc(2026, 5, 1), None, profile(*chosen, billing_day=day))
    plan = plan_invoice(body, GENERATED, [version])
    found = preview_statement(body, GENERATED, Chosen(version), "closed")
    if isinstance(plan, ToBill):
        assert [line.description for line in found.lines] == [line.description for line in plan.lines]
        assert (found.subtotal_minor, found.send_at) == (plan.subtotal_minor, plan.send_at)
        assert sum(line.amount for line in found.lines) == found.subtotal
        assert all(abs(line.amount - line.exact) <= Decimal("0.005") for line in found.lines)
    else:
        assert found.problem is not None


def _counted(line: InvoiceLine, made_from: list[dict[str, Any]]) -> Decimal:
    match line.unit:
        case "second":
            return sum((Decimal(each["billed_seconds"]) for each in made_from), Decimal(0))
        case "event":
            return sum((Decimal(each["attempts"]) for each in made_from), Decimal(0))
        case "cost":
            return sum((Decimal(each["cost"]) for each in made_from), Decimal(0))
        case "number":
            return sum((Decimal(each["count"]) for each in made_from), Decimal(0))
        case "channel":
            return Decimal(made_from[0]["peak_concurrent_channels"])
        case "item":
            return line.quantity


@given(usages, st.integers(0, 500))
def test_each_line_is_traced_back_to_the_statements_lines_that_it_counts(
    used: list[tuple[str, int, int, str]], peak: int
) -> None:
    lines = [
        usage(
            each, seconds=seconds, cost=str(Decimal(cost).scaleb(-6)), period=month, late=month != "2026-05"
        )
        for each, seconds, cost, month in used
    ]
    body = statement(*lines, numbers=HELD, peak=peak)
    without_allowance = [each for each in EVERY_PRODUCT if "included_minutes" not in each]
    for line in product_lines(body, profile(*without_allowance).products):
        assert _counted(line, sources(line, body)) == line.quantity
        assert exact_charge(line.quantity, line.unit, line.unit_price) > 0


def test_a_version_is_chosen_as_the_invoicer_does_and_else_that_is_said() -> None:
    early = ProfileVersion(1, utc(2026, 5, 1), utc(2026, 6, 4), profile())
    late = ProfileVersion(2, utc(2026, 6, 4), None, profile())
    assert choose_version([early, late], GENERATED) == Chosen(early)
    assert choose_version([early, late], GENERATED, decided_by=2) == Chosen(late)
    as_if = choose_version([late], GENERATED)
    assert as_if is not None
    assert as_if.version == late
    assert "not billed" in str(as_if.note)
    assert choose_version([], GENERATED) is None
    ended = ProfileVersion(1, utc(2026, 4, 1), utc(2026, 5, 1), profile())
    assert choose_version([ended], GENERATED) is None


def test_the_command_shows_the_closed_month_and_where_its_invoice_stands(
    world: World, type_: CommandLine
) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    may = world.close_at(GENERATED, usage(seconds=60_000, cost="9.50"))
    shown = type_(*PREVIEW, "--json").json
    assert (shown["basis"], shown["subtotal"], shown["notes"]) == (
        "closed",
        "12.00",
        ["its invoice is received"],
    )
    assert shown["send_at"] == "2026-06-20T12:00:00.000000Z"
    world.work(may)
    told = type_(*PREVIEW)
    assert "its invoice is scheduled" in told.out
    assert "1,000 min at USD 0.012 a minute" in told.out
    [invoice] = world.in_stripe()
    assert Decimal(invoice["subtotal"]) / 100 == Decimal(shown["subtotal"])


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_profile_file_is_tried_without_being_applied(
    world: World, type_: CommandLine, tmp_path: Path, suffix: str
) -> None:
    world.tenant()
    world.close_at(GENERATED, usage(seconds=60_000, cost="9.50"))
    trial = json.loads(profile({**OUTBOUND, "price": "0.02"}, billing_day=31).model_dump_json())
    file = tmp_path / f"profile.{suffix}"
    file.write_text(json.dumps(trial))  # JSON is YAML too
    assert "has no billing profile" in type_(*PREVIEW, code=1).err
    shown = type_(*PREVIEW, "--profile", str(file), "--json").json
    assert (shown["subtotal"], shown["send_at"]) == ("20.00", "2026-06-30T12:00:00.000000Z")
    assert "not applied" in shown["notes"][0]
    assert type_("profile", "show", "reseller", TENANT, "--json").json == []
    trial["products"][0]["price"] = "0.0000000000001"
    file.write_text(json.dumps(trial))
    refused = type_("profile", "apply", "reseller", TENANT, str(file), code=1).err
    assert "has 13 decimals; at most 12" in refused


def test_a_total_that_stripe_would_not_take_is_shown_and_refused(world: World, type_: CommandLine) -> None:
    dear = {"kind": "flat", "description": "Dear", "price": "999999.99"}
    world.bill(world.tenant(), utc(2026, 5, 1), profile(dear, {**dear, "price": "0.01"}))
    world.close_at(GENERATED, usage(seconds=60, cost="9"))
    said = type_(*PREVIEW, code=1)
    assert "total_over_maximum" in said.err
    assert "1000000.00" in said.out


def test_a_month_that_the_ledger_does_not_have_is_refused(world: World, type_: CommandLine) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1))
    assert "no month of this ledger" in type_(*PREVIEW[:-1], "2031-01", code=1).err


def test_what_hinders_the_sending_is_said_beside_the_lines(world: World, type_: CommandLine) -> None:
    tenant_id = world.tenant()
    world.bill(tenant_id, utc(2026, 5, 1))
    world.close_at(GENERATED, usage(seconds=60_000, cost="9.50"))
    world.details(tenant_id, billing_email="")
    type_("stripe", "unlink", "reseller")
    shown = type_(*PREVIEW, "--json").json
    assert shown["subtotal"] == "12.00"
    assert shown["notes"][1:] == [
        "it cannot be sent yet: no Stripe account is linked",
        "it cannot be sent yet: no billing email",
    ]


def test_an_account_whose_currency_has_no_fee_is_refused_a_preview_with_the_reason(
    world: World, type_: CommandLine, tmp_path: Path
) -> None:
    world.tenant("kunde.example.com", account_id=world.account("eurotel", None, "EUR"))
    world.close_at(
        GENERATED, usage(seconds=60_000), account="eurotel", tenant="kunde.example.com", currency="EUR"
    )
    file = tmp_path / "profile.json"
    file.write_text(profile({**OUTBOUND, "price": "0.02"}, currency="EUR").model_dump_json())
    asked = ("invoice", "preview", "eurotel", "kunde.example.com", "2026-05", "--profile", str(file))
    assert "no phantom fee is set for EUR" in type_(*asked, code=1).err

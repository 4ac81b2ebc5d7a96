"""What cannot be billed stands still with its reason and the command that resolves it, and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text

from invoicing import setup_store
from invoicing.news import RefusedNews, read_news
from invoicing.news_store import refuse_event
from invoicing.profile import BillingProfile
from invoicing.states import State
from tests.invoicing.builders import OUTBOUND, STRIPE_ACCOUNT, World, profile, statement, usage, utc
from tests.invoicing.conftest import CommandLine
from tests.invoicing.test_process import event

BUSY = usage(seconds=60_000, cost="9.50")
GENERATED = utc(2026, 6, 3, 1)
DEAR = {"kind": "flat", "description": "Dear", "price": "999999.99"}
CENT = {"kind": "flat", "description": "Cent", "price": "0.01"}
FLAT = {"kind": "flat", "description": "Platform", "price": "25"}
LATE = [
    usage(f"class_{number}", seconds=60, cost="0.1", period="2026-04", late=True) for number in range(130)
]
MANY = [
    {**OUTBOUND, "description": f"Class {number}", "usage_classes": [f"class_{number}"], "price": "1"}
    for number in range(130)
]


def billed(world: World, code: str, definition: BillingProfile | None = None) -> int:
    tenant_id = world.tenant(code)
    world.bill(tenant_id, utc(2026, 5, 1), definition)
    return tenant_id


def sql(world: World, statement_: str, **values: Any) -> None:
    with world.engine.begin() as connection:
        connection.execute(text(statement_), values)


def without_details(world: World, code: str) -> None:
    tenant_id = billed(world, code)
    sql(world, "alter table tenant_details disable trigger all")
    sql(world, "delete from tenant_details where tenant_id = :id", id=tenant_id)


def in_euros(world: World, code: str) -> None:
    tenant_id = billed(world, code)
    foreign = profile({**OUTBOUND, "price": "0.012"}, currency="EUR").model_dump_json()
    sql(world, "alter table billing_profiles disable trigger all")
    sql(
        world,
        "update billing_profiles set definition = cast(:it as jsonb) where tenant_id = :id",
        it=foreign,
        id=tenant_id,
    )


BROKEN: dict[str, Callable[[World, str], object]] = {
    "no_profile": lambda world, code: world.tenant(code),
    "address_not_validated": lambda world, code: world.details(billed(world, code), validated=False),
    "no_billing_email": lambda world, code: world.details(billed(world, code), billing_email=""),
    "no_tenant_details": without_details,
    "currency_differs": in_euros,
    "total_over_maximum": lambda world, code: billed(world, code, profile(DEAR, CENT)),
    "too_many_lines": lambda world, code: billed(world, code, profile(*MANY, *MANY[:70])),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_each_stands_still_with_its_reason_and_remedy_while_the_others_go_on(
    world: World, reason: str
) -> None:
    BROKEN[reason](world, "broken.example.com")
    billed(world, "whole.example.com")
    now = [usage(each.usage_class, seconds=60, cost="0.1") for each in LATE]
    lines = [*now, *LATE] if reason == "too_many_lines" else [BUSY]
    broken = world.received(*lines, tenant="broken.example.com")
    whole = world.received(BUSY, tenant="whole.example.com")
    for statement_id in (broken, whole):
        world.work(statement_id)
    listed = world.listed(broken)
    assert (listed.reason, listed.state) == (
        reason,
        State.NOT_BILLED if reason == "no_profile" else State.BLOCKED,
    )
    assert listed.remedy, "there is a command that resolves it"
    assert world.listed(whole).state == State.SCHEDULED
    assert len(world.in_stripe()) == 1


@pytest.mark.parametrize(
    ("reason", "mended"),
    [
        ("currency_differs", profile(FLAT)),
        ("total_over_maximum", profile(DEAR)),
        ("too_many_lines", profile(FLAT)),
    ],
)
def test_what_the_profile_made_impossible_is_decided_anew_by_the_profile_of_now_when_told_so(
    world: World, type_: CommandLine, tmp_path: Path, reason: str, mended: BillingProfile
) -> None:
    BROKEN[reason](world, "broken.example.com")
    now = [usage(each.usage_class, seconds=60, cost="0.1") for each in LATE]
    broken = world.close_at(GENERATED, *now, *LATE, tenant="broken.example.com")
    world.work(broken)
    sql(world, "alter table billing_profiles enable trigger all")
    file = tmp_path / "mended.json"
    file.write_text(mended.model_dump_json())
    type_("profile", "apply", "reseller", "broken.example.com", str(file))
    type_("invoice", "retry", str(broken))
    world.work(broken)
    assert world.listed(broken).reason == reason, "what was in force then decides, until told otherwise"
    type_("invoice", "retry", str(broken), "--present-profile")
    preview = type_("invoice", "preview", "reseller", "broken.example.com", "2026-05", "--json").json
    assert world.work_until_settled(broken).state == State.SCHEDULED
    assert [invoice["subtotal"] for invoice in world.in_stripe()] == [preview["subtotal_minor"]]


def test_a_tenant_that_had_no_profile_is_billed_for_its_month_by_a_one_time_invoice(
    world: World, type_: CommandLine, tmp_path: Path
) -> None:
    world.tenant()
    may = world.close_at(GENERATED, BUSY)
    world.work(may)
    [row] = type_("invoice", "list", "--json").json
    assert (row["state"], row["reason"]) == ("not_billed", "no_profile")
    assert "invoice one-time --month" in row["remedy"]
    assert "no invoice that can be tried again" in type_("invoice", "retry", str(may), code=1).err
    file = tmp_path / "may.json"
    minutes = {**OUTBOUND, "price": "0.012"}
    file.write_bytes(orjson.dumps({"products": [minutes]}))
    type_("invoice", "one-time", "reseller", "bigcustomer.mypbx.com", str(file), "--month", "2026-05")
    [invoice] = world.in_stripe()
    assert invoice["subtotal"] == 12_00
    [extra] = [each for each in type_("invoice", "list", "--json").json if each["kind"] == "one_time"]
    [line] = type_("invoice", "explain", extra["invoice_id"], "--json").json["lines"]
    assert [each["billed_seconds"] for each in line["made_from"]] == [60_000]
    assert (line["quantity"], line["unit_price"], line["exact"]) == ("60000", "0.012", "12")


def test_the_list_says_what_is_done_next_and_the_command_that_helps(world: World, type_: CommandLine) -> None:
    billed(world, "a.example.com")
    may = world.close_at(world.clock(), BUSY, tenant="a.example.com")

    def row() -> dict[str, Any]:
        [found] = type_("invoice", "list", "--json").json
        return dict(found)

    assert (row()["state"], row()["due_step"]) == ("received", "decide")
    world.sandbox.set_faults({"action": "status", "status": 503, "path": "/v1/invoiceitems"})
    world.work(may)
    drafting = row()
    assert (drafting["state"], drafting["due_step"]) == ("drafting", "item:1.2026-05")
    assert (drafting["reason"], drafting["attempts"]) == ("Stripe answered 503", 1)
    assert str(drafting["stripe_invoice"]).startswith("in_")
    world.sandbox.books(STRIPE_ACCOUNT).linked = False
    world.work(may)
    assert "stripe resume" in row()["remedy"]
    world.sandbox.books(STRIPE_ACCOUNT).linked = True
    type_("stripe", "resume", "reseller")
    world.work(may)
    assert (row()["state"], row()["remedy"]) == ("scheduled", None)
    assert "Stripe sends it" in type_("invoice", "list").out


def refused_event(
    world: World, value: bytes, offset: int, headers: dict[str, bytes | None] | None = None
) -> None:
    news = read_news(headers or {}, value)
    assert isinstance(news, RefusedNews) or headers is None
    reason = news if isinstance(news, RefusedNews) else RefusedNews("no_such_statement", "told too early")
    with world.engine.begin() as connection:
        refuse_event(connection, "statements.closed", 0, offset, reason, None, value, world.clock())


def test_an_event_of_an_unknown_version_is_listed_and_resolved_by_command(
    world: World, type_: CommandLine
) -> None:
    billed(world, "bigcustomer.mypbx.com")
    body = statement(BUSY)
    unknown = orjson.dumps(orjson.loads(event(body)) | {"version": 2})
    refused_event(world, unknown, 7)
    refused_event(world, event(body), 8)
    [first, second] = type_("invoice", "refused-events", "--json").json
    assert (first["reason"], first["kafka_offset"]) == ("unknown_version", 7)
    again = ("invoice", "resolve-event", "statements.closed", "0")
    assert "version 2" in type_(*again, "7", code=1).err
    assert "no_such_statement" in type_(*again, "8", code=1).err
    may = world.close(body, GENERATED)
    assert "taken" in type_(*again, "8").err
    assert "dismissed" in type_(*again, "7", "--dismiss").err
    assert type_("invoice", "refused-events", "--json").json == []
    type_(*again, "7", code=1)
    assert world.work_until_settled(may).state == State.SCHEDULED
    assert second["kafka_offset"] == 8


def test_statements_whose_events_were_lost_are_taken_up_by_month(world: World, type_: CommandLine) -> None:
    billed(world, "bigcustomer.mypbx.com")
    may = world.close(statement(BUSY), GENERATED)
    world.close(statement(BUSY, tenant=None), GENERATED)
    assert "1 statements are new" in type_("invoice", "receive", "2026-05").err
    assert "0 statements are new" in type_("invoice", "receive", "2026-05", "--account", "reseller").err
    assert world.work_until_settled(may).state == State.SCHEDULED


def test_the_daily_read_by_command_says_what_became_of_each(world: World, type_: CommandLine) -> None:
    billed(world, "bigcustomer.mypbx.com")
    may = world.close_at(GENERATED, BUSY)
    world.work(may)
    sql(world, "update invoices set send_at = :then", then=world.clock())
    [invoice] = world.in_stripe()
    world.sandbox.books(STRIPE_ACCOUNT).finalize(invoice["id"])
    assert "1 invoices were read, 1 sent" in type_("invoice", "refresh", "--account", "reseller").err
    assert "0 invoices were read" in type_("invoice", "refresh").err


def test_a_statement_that_was_altered_is_never_billed(world: World) -> None:
    billed(world, "bigcustomer.mypbx.com")
    may = world.received(BUSY)
    sql(world, "alter table statements disable trigger all")
    sql(
        world,
        "update statements set body = convert_to(replace(convert_from(body, 'UTF8'), '9.5', '9.6'), 'UTF8')",
    )
    world.work(may)
    assert (world.listed(may).reason, world.in_stripe()) == ("statement_altered", [])
    assert "reconcile" in str(world.listed(may).remedy)


def test_an_account_without_stripe_and_one_that_is_paused_are_told_apart(world: World) -> None:
    other = world.account("other", None)
    world.bill(world.tenant("b.example.com", account_id=other), utc(2026, 5, 1))
    theirs: UUID = world.received(BUSY, tenant="b.example.com", account="other")
    world.work(theirs)
    assert world.listed(theirs).reason == "no_stripe_link"
    assert "stripe link" in str(world.listed(theirs).remedy)
    with world.engine.begin() as connection:
        assert setup_store.link_in_force(connection, other) is None

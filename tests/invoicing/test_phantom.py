"""What a phantom tenant costs its account: once, for what was sent, listed by month, and for ever (I6)."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from invoicing.phantom import CurrencyWithoutFeeError, phantom_fee
from invoicing.refresh import refresh_invoice
from invoicing.setup_store import SetupRefusedError
from invoicing.states import State
from rollup.months_store import database_now
from schemas.statements import NumbersHeld
from tests.invoicing.builders import STRIPE_ACCOUNT, World, profile, usage, utc
from tests.invoicing.conftest import CommandLine

TINY = usage(seconds=600, cost="4.99")
FLAT = {"kind": "flat", "description": "Platform", "price": "25"}
TAKING_BACK = (
    "update phantom_fees set amount = 0.01",
    "delete from phantom_fees",
    "truncate phantom_fees",
    (
        "insert into phantom_fees select gen_random_uuid(), account_id, tenant_id, period, stripe_invoice, -amount, "
        "currency, evidence, made_at from phantom_fees"
    ),
)


@pytest.fixture
def charged(world: World) -> World:
    """An account that was charged one fee, for May."""
    world.bill(world.tenant(), utc(2026, 5, 1), profile(FLAT))
    may = world.received(TINY)
    world.work(may)
    world.clock.move(utc(2026, 6, 20, 13))
    world.refresh(may)
    assert world.fees() == [("5.00", "sent")]
    return world


@pytest.mark.parametrize("setting", ["origin", "replica"])
@pytest.mark.parametrize("statement", TAKING_BACK, ids=lambda each: each.split()[0])
def test_not_even_the_tables_owner_takes_a_fee_back(charged: World, statement: str, setting: str) -> None:
    with charged.engine.connect() as connection:
        connection.execute(text(f"set session_replication_role = {setting}"))
        with pytest.raises(DBAPIError, match=r"append-only|phantom_fees_amount_check"):
            connection.execute(text(statement))
    assert charged.fees() == [("5.00", "sent")]


@pytest.mark.parametrize(
    "statement",
    [
        *TAKING_BACK,
        "alter table phantom_fees disable trigger all",
        "drop trigger refuse_rewrite on phantom_fees",
        "alter table phantom_fees drop constraint phantom_fees_amount_check",
        "set session_replication_role = replica",
        "drop table phantom_fees",
    ],
    ids=lambda each: each[:24],
)
def test_no_application_role_takes_a_fee_back_whatever_it_was_granted(charged: World, statement: str) -> None:
    with charged.engine.connect() as connection:
        connection.execute(text("create role invoicing_application"))
        connection.execute(
            text("grant select, insert, update, delete, truncate on phantom_fees to invoicing_application")
        )
        connection.execute(text("set local role invoicing_application"))
        with pytest.raises(
            DBAPIError, match=r"append-only|phantom_fees_amount_check|must be owner|permission"
        ):
            connection.execute(text(statement))
    assert charged.fees() == [("5.00", "sent")]


def test_the_fee_is_on_the_account_and_not_on_the_tenants_invoice(charged: World) -> None:
    [invoice] = charged.in_stripe()
    assert list(charged.lines_in_stripe(invoice["id"]).values()) == [25_00]


def test_voiding_the_invoice_in_stripe_brings_no_fee_back(charged: World) -> None:
    [invoice] = charged.in_stripe()
    charged.sandbox.books(STRIPE_ACCOUNT).void(invoice["id"])
    charged.clock.move(utc(2026, 7, 1))
    [(statement_id,)] = list(charged.engine.connect().execute(text("select statement_id from phantom_fees")))
    charged.refresh(statement_id)
    assert charged.retry(statement_id) is None
    assert charged.fees() == [("5.00", "sent")]


def test_what_numbers_cost_is_not_usage(world: World) -> None:
    world.bill(world.tenant(), utc(2026, 5, 1), profile(FLAT))
    held = tuple(NumbersHeld(usage_class="number_local", count=9, cost=9) for _ in range(1))
    may = world.received(TINY, numbers=held)
    world.work(may)
    world.clock.move(utc(2026, 6, 20, 13))
    world.refresh(may)
    assert world.fees() == [("5.00", "sent")]


def test_fees_are_listed_by_month_and_added_up(charged: World, type_: CommandLine) -> None:
    charged.bill(charged.tenant("other.example.com"), utc(2026, 5, 1), profile(FLAT))
    second = charged.close_at(utc(2026, 6, 3, 1), TINY, tenant="other.example.com")
    charged.work(second)
    charged.clock.move(charged.clock().replace(year=charged.clock().year + 1))
    charged.refresh(second)
    listed = type_("fees", "--account", "reseller", "--period", "2026-05", "--json").json
    assert [(each["tenant"], each["amount"], each["period"]) for each in listed] == [
        ("bigcustomer.mypbx.com", "5.000000", "2026-05"),
        ("other.example.com", "5.000000", "2026-05"),
    ]
    assert "10.000000" in type_("fees").out
    assert type_("fees", "--period", "2026-04", "--json").json == []


ONE_TIME = ("invoice", "one-time", "reseller", "bigcustomer.mypbx.com", "--item", "Platform=25")


@pytest.mark.parametrize("named", [("--month", "2026-05"), ()], ids=["of a month", "of no month"])
def test_a_one_time_invoice_to_a_phantom_costs_the_fee_of_the_statement_that_shows_it_is_one(
    world: World, type_: CommandLine, named: tuple[str, ...]
) -> None:
    world.tenant()
    april = world.close_at(utc(2026, 5, 3, 1), usage(cost="50", period="2026-04"), period="2026-04")
    may = world.close_at(utc(2026, 6, 3, 1), TINY)
    for statement_id in (april, may):
        world.work(statement_id)
    assert type_(*ONE_TIME, *named, "--preview", "--json").json["phantom_fee"] == "5.00"
    sent = [type_(*ONE_TIME, *named, *again, "--json").json for again in ((), ("--again",))]
    assert world.fees() == []
    world.clock.move(world.clock() + timedelta(minutes=10))
    for each in sent:
        assert refresh_invoice(world.invoicer(), UUID(each["invoice_id"])) == State.SENT
        assert world.fees() == [("5.00", "sent")], "once for a statement, however many invoices are sent"
    assert type_(*ONE_TIME, *named, "--again", "--preview", "--json").json["phantom_fee"] is None
    [fee] = type_("fees", "--json").json
    assert (fee["period"], fee["statement_id"]) == ("2026-05", str(may))


def test_a_one_time_invoice_to_who_uses_the_carrier_or_has_no_statement_yet_costs_no_fee(
    world: World, type_: CommandLine
) -> None:
    world.tenant()
    assert type_(*ONE_TIME, "--preview", "--json").json["phantom_fee"] is None
    sent = type_(*ONE_TIME, "--json").json
    world.clock.move(world.clock() + timedelta(minutes=6))
    world.close_at(world.clock(), TINY)  # it came after the invoice was asked for
    assert refresh_invoice(world.invoicer(), UUID(sent["invoice_id"])) == State.SENT
    assert world.fees() == []


def test_the_monthly_invoice_and_a_one_time_one_of_its_month_cost_one_fee(
    charged: World, type_: CommandLine
) -> None:
    with charged.engine.begin() as connection:
        charged.clock.move(database_now(connection))
    sent = type_(*ONE_TIME, "--month", "2026-05", "--json").json
    charged.clock.move(charged.clock() + timedelta(minutes=6))
    assert refresh_invoice(charged.invoicer(), UUID(sent["invoice_id"])) == State.SENT
    assert charged.fees() == [("5.00", "sent")]


def test_an_account_in_a_currency_without_a_fee_is_refused_before_anything_is_set_up(world: World) -> None:
    account_id = world.account("eurotel", None, "EUR")
    tenant_id = world.tenant("kunde.example.com", account_id=account_id)
    refused = "this account cannot send invoices: no phantom fee is set for EUR; known: USD"
    with pytest.raises(SetupRefusedError, match=refused):
        world.bill(tenant_id, utc(2026, 5, 1), profile(FLAT, currency="EUR"))
    with pytest.raises(CurrencyWithoutFeeError, match="EUR"):
        phantom_fee(usage().cost, "EUR")


def test_the_command_line_refuses_such_an_account_at_once_and_says_why(
    world: World, type_: CommandLine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    account_id = world.account("eurotel", None, "EUR")
    world.tenant("kunde.example.com", account_id=account_id)
    file = tmp_path_factory.mktemp("profiles") / "profile.json"
    file.write_text(profile(FLAT, currency="EUR").model_dump_json())
    commands = (
        ("stripe", "link", "eurotel", "acct_euro"),
        ("profile", "apply", "eurotel", "kunde.example.com", str(file)),
        ("invoice", "one-time", "eurotel", "kunde.example.com", "--item", "Setup=25"),
    )
    for command in commands:
        assert "no phantom fee is set for EUR" in type_(*command, code=1).err

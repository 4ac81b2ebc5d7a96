"""Accounts are isolated: no command, event or header lets one see or move another's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from invoicing.news_store import Receipt
from invoicing.sandbox import Sandbox
from pipeline.invoicer import take_event
from schemas.events import STATEMENT_CLOSED, cloud_event_headers
from tests.acceptance.months import close
from tests.invoicing.builders import World as Invoicing
from tests.invoicing.builders import statement, usage
from tests.invoicing.builders import utc as instant
from tests.invoicing.test_process import event
from tests.world import World, inbound, invite, outbound, utc

SEPTEMBER = utc("2026-09-10 12:00")
OURS, THEIRS = "ours.example.com", "theirs.example.com"
OUR_NUMBER, THEIR_NUMBER = "+12125550101", "+12125550102"
OUR_IP, THEIR_IP = "198.51.100.7", "203.0.113.7"

Type = Callable[..., str]


@pytest.fixture
def world(database: Engine) -> World:
    """Two accounts with a tenant, a number and a shared IP each."""
    world = World(database)
    for code, tenant, number, network in (
        ("reseller", OURS, OUR_NUMBER, OUR_IP),
        ("rival", THEIRS, THEIR_NUMBER, THEIR_IP),
    ):
        account = world.account(code)
        world.number(number, account, world.tenant(account, tenant))
        world.ip(network, account)
    return world.run()


def billed(world: World) -> dict[str, tuple[str | None, str | None]]:
    return {row.record_id: (row.account, row.tenant) for row in world.ledger()}


def test_a_header_never_moves_a_call_to_another_account(world: World) -> None:
    world.receive(
        outbound("header", OUR_IP, SEPTEMBER, x_tenant=THEIRS),
        outbound("waits", OUR_IP, SEPTEMBER),
        at=SEPTEMBER,
    )
    world.receive(invite("waits@example.com", OUR_IP, SEPTEMBER, THEIRS), at=SEPTEMBER, topic="sip.raw")
    world.receive(None, at=utc("2026-09-10 12:10"), topic="sip.raw")
    world.resolve()
    assert billed(world) == {"header": ("reseller", None), "waits": ("reseller", None)}


def test_no_field_of_a_record_names_its_account_or_tenant(world: World) -> None:
    named = {"account": "rival", "account_id": 2, "tenant": THEIRS, "tenant_id": 2, "x_tenant": THEIRS}
    world.receive(inbound("fields", OUR_NUMBER, SEPTEMBER, **named), at=SEPTEMBER)
    assert billed(world) == {"fields": ("reseller", OURS)}


def test_another_accounts_invite_for_the_same_call_id_says_nothing_of_our_call(world: World) -> None:
    world.receive(invite("call@example.com", THEIR_IP, SEPTEMBER, OURS), at=SEPTEMBER, topic="sip.raw")
    world.receive(outbound("call", OUR_IP, SEPTEMBER), at=SEPTEMBER)
    world.receive(None, at=utc("2026-09-10 12:10"), topic="sip.raw")
    world.resolve()
    assert billed(world) == {"call": ("reseller", None)}


def test_no_command_for_one_account_touches_what_is_anothers(
    world: World, database_url: str, type_: Type, tmp_path: Path
) -> None:
    close(world, "2026-09")
    profile = tmp_path / "profile.yaml"
    profile.write_text(
        "billing_day: 20\ncurrency: USD\nproducts:\n  - {kind: flat, description: x, price: '1'}\n"
    )
    for command in (
        ("number", "assign", "reseller", THEIR_NUMBER, "--tenant", OURS),
        ("number", "assign", "reseller", OUR_NUMBER, "--tenant", THEIRS),
        ("number", "release", "reseller", THEIR_NUMBER),
        ("ip", "assign", "reseller", THEIR_IP, "--tenant", OURS),
        ("ip", "assign", "reseller", "203.0.113.0/24"),
        ("ip", "assign", "reseller", OUR_IP, "--default-tenant", THEIRS),
        ("ip", "release", "reseller", THEIR_IP),
        ("tenant", "history", "reseller", THEIRS),
        ("tenant", "change", "reseller", THEIRS, "--name", "Ours now"),
        ("tenant", "end", "reseller", THEIRS),
        ("tenant", "validate-address", "reseller", THEIRS),
        ("profile", "show", "reseller", THEIRS),
        ("profile", "apply", "reseller", THEIRS, str(profile)),
        ("profile", "end", "reseller", THEIRS),
        ("stripe", "customer", "reseller", THEIRS, "cus_1"),
        ("statement", "show", "reseller", "2026-09", "--tenant", THEIRS),
    ):
        before = facts(world)
        said = type_(database_url, *command, code=1)
        assert facts(world) == before, command
        assert "Theirs" not in said, f"{command} tells of the other account's tenant: {said}"


def test_what_is_listed_for_one_account_is_that_accounts(
    world: World, database_url: str, type_: Type
) -> None:
    world.receive(
        inbound("ours", OUR_NUMBER, SEPTEMBER), inbound("theirs", THEIR_NUMBER, SEPTEMBER), at=SEPTEMBER
    )
    close(world, "2026-09")
    for command in (
        ("tenant", "list", "reseller"),
        ("number", "list", "reseller"),
        ("ip", "list", "reseller"),
        ("usage", "--account", "reseller"),
        ("statement", "list", "--account", "reseller"),
        ("statement", "show", "reseller", "2026-09", "--tenant", OURS),
        ("unattributed", "--account", "reseller"),
        ("invoice", "list", "--account", "reseller"),
        ("fees", "--account", "reseller"),
    ):
        said = type_(database_url, *command, "--json")
        for theirs in (THEIRS, THEIR_NUMBER, THEIR_IP, "rival"):
            assert theirs not in said, command


def test_the_database_itself_refuses_an_assignment_to_another_accounts_tenant(world: World) -> None:
    for table, asset, value in (
        ("number_assignments", "number", "+12125550177"),
        ("ip_assignments", "network", "192.0.2.0/24"),
    ):
        with world.engine.begin() as connection:
            at = connection.scalar(
                text("update directory_clock set last_made_at = now() returning last_made_at")
            )
            assignment = text(
                f"insert into {table} ({asset}, account_id, tenant_id, made_at) "
                f"values ('{value}', 1, (select id from tenants where code = '{THEIRS}'), :at)"
            )
            with pytest.raises(IntegrityError, match="tenant_id_fkey"), connection.begin_nested():
                connection.execute(assignment, {"at": at})


def test_an_event_that_names_another_account_bills_whose_statement_it_is(database: Engine) -> None:
    with Sandbox().start() as sandbox:
        invoicing = Invoicing.made(database, sandbox, instant(2026, 6, 3, 1))
        invoicing.account("rival", "acct_rival")
        invoicing.bill(invoicing.tenant(), instant(2026, 5, 1))
        body = statement(usage(seconds=6000, cost="9.00"))
        statement_id = invoicing.close(body, invoicing.clock())
        forged = orjson.loads(event(body)) | {"account": "rival", "tenant": "other.example.com"}
        with database.begin() as connection:
            assert take_event(connection, Forged(orjson.dumps(forged)), invoicing.clock()) is Receipt.NEW
        assert invoicing.work_until_settled(statement_id).account == "reseller"
        assert list(sandbox.books("acct_rival").invoices.values()) == []


class Forged:
    """A record of `statements.closed` with a body of somebody's own."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, Any]]:
        named = cloud_event_headers("1", STATEMENT_CLOSED, "statement", instant(2026, 6, 3))
        return [(name, value.encode() if isinstance(value, str) else value) for name, value in named.items()]

    def key(self) -> bytes:
        return b"rival"

    def topic(self) -> str:
        return "statements.closed"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0


def facts(world: World) -> list[Any]:
    """Whose everything is, and what is known of it."""
    tables = (
        "number_assignments",
        "ip_assignments",
        "tenants",
        "tenant_details",
        "billing_profiles",
        "stripe_customers",
    )
    return [list(map(tuple, world.query(f"select * from {table} order by 1, 2"))) for table in tables]

"""Anyone can check why: statements computed anew, and everything compared with everything (C6, C7)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Connection, Engine, text

from rollup import statement as rendering
from rollup.announcement import EventTopics
from rollup.audit_store import rebuild, reconcile
from rollup.close_store import close
from rollup.reading_store import statement_document
from rollup.statement import UnknownRendererError
from rollup.tariff_store import NewTariff, add_tariff
from schemas.periods import Period
from schemas.statements import RENDERER, sha256_hex
from tests.rollup.builders import DECEMBER, LONG_AGO, NOVEMBER, OCTOBER, World, at

TOPICS = EventTopics("statements.closed", "periods.closed")
MID_OCTOBER = at("2026-10-15T12:00:00")
WRITTEN_BY_VERSION_1 = Path(__file__).parent / "statement-of-renderer-1.json"


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


@pytest.fixture
def world(connection: Connection) -> World:
    """Two closed months of two accounts, with usage of every kind, some of it late."""
    world = World(connection, OCTOBER, NOVEMBER, DECEMBER)
    acme, other = world.account(), world.account("other", "EUR")
    shop, idle = world.tenant(acme, "shop.example.com"), world.tenant(acme, "idle.example.com")
    bank = world.tenant(other, "bank.example.com")
    add_tariff(connection, LONG_AGO, NewTariff(acme, "number_local", LONG_AGO, "month", Decimal("1.25")))
    world.number("+12125550101", acme, shop)
    world.number("+18005550199", acme, shop)
    world.number("+12125550102", acme, None)
    world.record(acme, shop, MID_OCTOBER, seconds="30.5", cost="0.012")
    world.record(acme, shop, MID_OCTOBER, seconds=None, cost="0", usage_class="outbound_international")
    world.record(acme, None, MID_OCTOBER, cost="0.4")
    world.record(other, bank, MID_OCTOBER, cost="9", currency="EUR")
    world.record(None, None, MID_OCTOBER, cost="77", currency="XXX")
    seal_and_close(world, OCTOBER)
    world.record(acme, shop, MID_OCTOBER + timedelta(seconds=1), seconds="60.000001", cost="0.30")
    world.record(acme, shop, NOVEMBER.starts_at, cost="0.000001")
    world.record(acme, shop, NOVEMBER.starts_at, cost="0.02", usage_class="caller_id_lookup")
    assert idle
    seal_and_close(world, NOVEMBER)
    return world


def seal_and_close(world: World, period: Period) -> None:
    world.run(
        "update periods set state = 'sealed', sealed_at = :at where period = :period",
        at=period.ends_at + timedelta(days=3),
        period=period.first_day,
    )
    close(world.connection, period, TOPICS)


def tamper(world: World, table: str, change: str) -> None:
    """Change what may not be changed, as an owner who means it."""
    world.run(f"alter table {table} disable trigger refuse_rewrite")
    world.run(change)


def found(world: World) -> set[str]:
    return {each.kind.value for each in reconcile(world.connection)}


def test_closed_months_add_up(world: World) -> None:
    assert reconcile(world.connection) == ()
    for period in (OCTOBER, NOVEMBER):
        again = rebuild(world.connection, period)
        assert [(each.account, each.tenant) for each in again] == [
            ("acme", "idle.example.com"),
            ("acme", "shop.example.com"),
            ("acme", None),
            ("other", "bank.example.com"),
            ("other", None),
        ]
        assert all(each.same for each in again)


def test_usage_of_an_open_month_adds_up_too(world: World) -> None:
    world.record(1, None, DECEMBER.starts_at)
    assert reconcile(world.connection) == ()
    world.run(
        "update monthly_usage set attempts = attempts + 1 where period = :december",
        december=DECEMBER.first_day,
    )
    (wrong,) = reconcile(world.connection)
    assert wrong.text.startswith(
        "2026-12: account acme, unassigned usage, outbound_conversational of 2026-12 in USD"
    )
    assert "the ledger has 1 attempts" in wrong.text
    assert reconcile(world.connection, NOVEMBER) == ()


@pytest.mark.parametrize(
    ("table", "change", "kinds"),
    [
        ("statements", "update statements set body = '{}' where sequence = 2", {"hash", "statement_total", "account_total"}),
        ("statements", "update statements set usage_cost = 1 where sequence = 2", {"columns"}),
        ("statements", "update statements set kind = 'tenant', tenant_id = 3 where sequence = 3", {"columns", "statement_total"}),
        ("statements", "delete from statements where sequence = 2", {"chain", "statement_total", "account_total"}),
        ("statements", "delete from statements where sequence = 10", {"account_total"}),
        ("statements", "update statements set sequence = 11 where sequence = 3", {"chain"}),
        ("usage_records_partition_2026_10", "delete from usage_records where cost = 0.4", {"monthly_usage", "statement_total"}),
        ("usage_records_partition_2026_10", "update usage_records set cost = 0.5 where cost = 0.4", {"monthly_usage", "statement_total"}),
        ("usage_records_partition_2026_10", "update usage_records set period = '2026-11-01' where cost = 0.4", {"monthly_usage", "statement_total"}),
        ("statements", "update monthly_usage set cost = 0.5 where cost = 0.4", {"monthly_usage"}),
    ],
)  # fmt: skip
def test_whatever_an_owner_changes_behind_our_back_is_seen(
    world: World, table: str, change: str, kinds: set[str]
) -> None:
    tamper(world, table, change)
    assert found(world) == kinds


def test_a_statement_changed_with_its_hash_breaks_the_chain(world: World) -> None:
    tamper(world, "statements", "select 1")
    document = statement_document(world.connection, OCTOBER, "acme", "shop.example.com")
    assert document is not None
    body = document.body.replace(b'"0.012000"', b'"0.010000"')
    world.run(
        "update statements set body = :body, sha256 = :sha256, usage_cost = 0.01, total_cost = total_cost - 0.002 "
        "where sequence = 2",
        body=body,
        sha256=sha256_hex(body),
    )
    assert found(world) >= {"chain", "statement_total"}


def test_a_statement_that_should_not_be_is_rebuilt_as_none_and_a_missing_one_is_named(world: World) -> None:
    tamper(world, "statements", "update statements set kind = 'tenant', tenant_id = 3 where sequence = 3")
    odd = [
        (each.tenant, each.sha256 is None, each.rebuilt_sha256 is None)
        for each in rebuild(world.connection, OCTOBER)
        if not each.same
    ]
    assert odd == [("bank.example.com", False, True), (None, True, False)]


def test_a_statement_of_the_first_version_is_written_again_to_the_byte(world: World) -> None:
    """The file was written by renderer 1 and never changes: a renderer that gives other bytes is another renderer."""
    written = WRITTEN_BY_VERSION_1.read_bytes().rstrip(b"\n")
    document = statement_document(world.connection, NOVEMBER, "acme", "shop.example.com")
    assert document is not None
    assert orjson.loads(written)["renderer"] == 1
    world.connection.execute(text("alter table statements disable trigger refuse_rewrite"))
    world.run(
        "update statements set body = :body, sha256 = :sha256 where cast(id as text) = :id",
        body=written,
        sha256=sha256_hex(written),
        id=document.entry.statement_id,
    )
    assert all(each.same for each in rebuild(world.connection, NOVEMBER))


def test_a_month_is_rebuilt_by_the_renderer_that_closed_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = orjson.dumps({"renderer": 0})
    monkeypatch.setitem(rendering.RENDERERS, 0, lambda *_: older)
    tamper(world, "statements", "select 1")
    world.run(
        "update statements set body = :body, sha256 = :sha256 where period = :october",
        body=older,
        sha256=sha256_hex(older),
        october=OCTOBER.first_day,
    )
    for period in (OCTOBER, NOVEMBER):
        assert all(each.same for each in rebuild(world.connection, period))
    monkeypatch.delitem(rendering.RENDERERS, 0)
    with pytest.raises(UnknownRendererError, match="renderer 0"):
        rebuild(world.connection, OCTOBER)


def test_the_present_renderer_is_one_that_can_write_again() -> None:
    assert max(rendering.RENDERERS) == RENDERER

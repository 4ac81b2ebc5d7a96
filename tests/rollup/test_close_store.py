"""A sealed month becomes statements that never change (C2, C3, C6, C7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from deploy.stack.postgres import EmbeddedPostgres
from pipeline.database import connect
from rollup.announcement import EventTopics
from rollup.audit_store import rebuild, reconcile
from rollup.close_store import AggregatesDifferError, NotSealedError, close
from rollup.closed_month_store import ClosedMonth
from rollup.reading_store import statement_document, statements
from rollup.tariff_store import NewTariff, add_tariff
from schemas.periods import Period
from schemas.statements import Statement
from tests.rollup.builders import DECEMBER, LONG_AGO, NOVEMBER, OCTOBER, World, at

TOPICS = EventTopics("statements.closed", "periods.closed")
MID_OCTOBER = at("2026-10-15T12:00:00")


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection, OCTOBER, NOVEMBER, DECEMBER)


def seal(world: World, period: Period, at_: datetime | None = None) -> None:
    world.run(
        "update periods set state = 'sealed', sealed_at = :at where period = :period",
        at=at_ or period.ends_at + timedelta(days=3),
        period=period.first_day,
    )


def seal_and_close(world: World, period: Period) -> ClosedMonth:
    seal(world, period)
    return close(world.connection, period, TOPICS)


def stated(world: World, period: Period, tenant: str | None, account: str = "acme") -> Statement:
    document = statement_document(world.connection, period, account, tenant)
    assert document is not None
    return Statement.model_validate_json(document.body)


def test_a_statement_counts_calls_by_class(world: World) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop.example.com")
    world.record(acme, shop, MID_OCTOBER, seconds="60", cost="0.012")
    world.record(acme, shop, MID_OCTOBER, seconds="30.5", cost="0.006")
    world.record(acme, shop, MID_OCTOBER, seconds=None, cost="0")
    world.record(acme, shop, MID_OCTOBER, usage_class="outbound_international", cost="1.5")
    seal_and_close(world, OCTOBER)
    month = stated(world, OCTOBER, "shop.example.com")
    domestic, abroad = month.lines
    assert (domestic.usage_class, domestic.attempts, domestic.calls) == ("outbound_conversational", 3, 2)
    assert (domestic.answered_seconds, domestic.cost) == (Decimal("90.500000"), Decimal("0.018000"))
    assert abroad.cost == Decimal("1.500000")
    assert (month.tenant_name, month.currency) == ("shop.example.com Inc.", "USD")
    assert (month.totals.attempts, month.totals.total_cost) == (4, Decimal("1.518000"))


def test_a_call_in_the_last_millisecond_of_a_month_is_that_months(world: World) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop")
    world.record(acme, shop, at("2026-10-31T23:59:59.999"), seconds="120", cost="0.02")
    world.record(acme, shop, at("2026-11-01T00:00:00.000"), seconds="60", cost="0.01")
    seal_and_close(world, OCTOBER)
    seal_and_close(world, NOVEMBER)
    assert stated(world, OCTOBER, "shop").totals.usage_cost == Decimal("0.02")
    assert stated(world, NOVEMBER, "shop").totals.usage_cost == Decimal("0.01")


def test_a_tenants_first_and_last_months_are_partial_and_a_month_without_usage_has_a_statement(
    world: World,
) -> None:
    acme = world.account()
    world.tenant(acme, "new", made_at=MID_OCTOBER)
    world.tenant(acme, "gone", ended_at=OCTOBER.starts_at)
    world.tenant(acme, "left", ended_at=OCTOBER.starts_at + timedelta(microseconds=1))
    world.tenant(acme, "future", made_at=OCTOBER.ends_at)
    seal_and_close(world, OCTOBER)
    listed = [(entry.tenant, entry.total_cost) for entry in statements(world.connection, OCTOBER)]
    assert listed == [("left", Decimal(0)), ("new", Decimal(0)), (None, Decimal(0))]
    assert stated(world, OCTOBER, "new").lines == ()


def test_statements_and_unassigned_usage_add_up_to_the_account(world: World) -> None:
    acme, other = world.account(), world.account("other", "EUR")
    shop, bank = world.tenant(acme, "shop"), world.tenant(acme, "bank")
    world.record(acme, shop, MID_OCTOBER, cost="0.10")
    world.record(acme, bank, MID_OCTOBER, cost="0.20")
    world.record(acme, None, MID_OCTOBER, cost="0.40")
    world.record(other, None, MID_OCTOBER, cost="9", currency="EUR")
    world.record(None, None, MID_OCTOBER, cost="77", currency="XXX")
    closed = seal_and_close(world, OCTOBER)
    assert [(month.account, month.currency, month.usage_cost) for month in closed.accounts] == [
        ("acme", "USD", Decimal("0.70")),
        ("other", "EUR", Decimal(9)),
    ]
    assert [(usage.attempts, usage.cost) for usage in closed.unowned] == [(1, Decimal(77))]
    assert stated(world, OCTOBER, None).totals.usage_cost == Decimal("0.40")
    assert (closed.statement_count, reconcile(world.connection)) == (4, ())


def test_late_usage_is_in_the_next_statement_under_its_own_month_and_the_first_stays_to_the_byte(
    world: World,
) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop", ended_at=at("2026-10-20T00:00:00"))
    world.record(acme, shop, MID_OCTOBER, cost="0.10")
    seal_and_close(world, OCTOBER)
    before = statement_document(world.connection, OCTOBER, "acme", "shop")
    world.record(acme, shop, MID_OCTOBER, cost="0.30")
    seal_and_close(world, NOVEMBER)
    assert statement_document(world.connection, OCTOBER, "acme", "shop") == before
    (line,) = stated(world, NOVEMBER, "shop").lines
    assert (line.late, line.usage_period, line.cost) == (True, "2026-10", Decimal("0.300000"))
    assert all(each.same for period in (OCTOBER, NOVEMBER) for each in rebuild(world.connection, period))


def test_numbers_held_at_the_last_instant_cost_their_tariff(world: World) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop")
    price = NewTariff(acme, "number_local", LONG_AGO, "month", Decimal("1.25"))
    add_tariff(world.connection, LONG_AGO, price)
    world.number("+12125550101", acme, shop)
    world.number("+12125550102", acme, shop, made_at=at("2026-10-31T23:59:59.999999"))
    world.number("+12125550103", acme, shop, ended_at=at("2026-10-31T23:59:59.999999"))
    world.number("+12125550104", acme, shop, ended_at=OCTOBER.ends_at)
    world.number("+12125550105", acme, shop, made_at=OCTOBER.ends_at)
    world.number("+18005550199", acme, shop)
    world.number("+12125550106", acme, None)
    closed = seal_and_close(world, OCTOBER)
    local, toll_free = stated(world, OCTOBER, "shop").numbers
    assert (local.usage_class, local.count, local.cost) == ("number_local", 3, Decimal("3.750000"))
    assert (toll_free.usage_class, toll_free.count, toll_free.cost) == ("number_toll_free", 1, Decimal(0))
    assert stated(world, OCTOBER, "shop").totals.number_cost == Decimal("3.75")
    assert stated(world, OCTOBER, None).numbers[0].count == 1
    assert closed.unpriced_numbers == (("acme", "number_toll_free", 1),)


def test_a_call_that_ends_when_another_starts_does_not_overlap_it(world: World) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop")
    world.record(acme, shop, MID_OCTOBER, seconds="60")
    world.record(acme, shop, MID_OCTOBER + timedelta(seconds=60), seconds="60")
    world.record(acme, shop, MID_OCTOBER + timedelta(seconds=119.999), seconds="60")
    world.record(acme, shop, MID_OCTOBER, seconds="600", usage_class="call_recording")
    world.record(acme, None, MID_OCTOBER, seconds="60")
    seal_and_close(world, OCTOBER)
    assert stated(world, OCTOBER, "shop").peak_concurrent_channels == 2
    assert stated(world, OCTOBER, None).peak_concurrent_channels == 1


def test_a_call_over_the_edge_of_a_month_takes_a_channel_in_both_even_when_it_arrives_late(
    world: World,
) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop")
    world.record(acme, shop, at("2026-10-31T23:59:00"), seconds="120")
    seal_and_close(world, OCTOBER)
    world.record(acme, shop, at("2026-10-31T23:59:30"), seconds="120")
    world.record(acme, shop, at("2026-11-01T00:00:10"), seconds="10")
    seal_and_close(world, NOVEMBER)
    assert stated(world, OCTOBER, "shop").peak_concurrent_channels == 1
    assert stated(world, NOVEMBER, "shop").peak_concurrent_channels == 3
    assert all(each.same for each in rebuild(world.connection, OCTOBER))


def test_a_difference_between_sums_and_ledger_stops_the_close_and_is_named(world: World) -> None:
    acme = world.account()
    world.record(acme, None, MID_OCTOBER, cost="0.10")
    world.run("update monthly_usage set cost = cost + 0.01")
    seal(world, OCTOBER)
    with pytest.raises(
        AggregatesDifferError, match=r"outbound_conversational of 2026-10 .* cost 0\.100000, .* 0\.110000"
    ):
        close(world.connection, OCTOBER, TOPICS)
    assert statements(world.connection) == ()
    assert reconcile(world.connection) != ()


def test_closing_again_changes_nothing(world: World) -> None:
    acme = world.account()
    world.record(acme, None, MID_OCTOBER, cost="0.10")
    first = seal_and_close(world, OCTOBER)
    assert close(world.connection, OCTOBER, TOPICS) == first
    assert world.one("select count(*) from outbox") == 2


def test_an_open_month_cannot_close_and_months_close_in_order(world: World) -> None:
    with pytest.raises(NotSealedError, match="2026-10 is open"):
        close(world.connection, OCTOBER, TOPICS)
    seal(world, NOVEMBER)
    with pytest.raises(NotSealedError, match="2026-10 is not closed yet"):
        close(world.connection, NOVEMBER, TOPICS)
    with pytest.raises(NotSealedError, match="not a month"):
        close(world.connection, Period(2020, 1), TOPICS)


def test_a_name_changed_after_the_seal_is_not_in_the_statement(world: World) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop")
    seal(world, OCTOBER, at("2026-11-03T00:00:00"))
    world.rename(shop, "Renamed", at("2026-11-03T00:00:00.000001"))
    close(world.connection, OCTOBER, TOPICS)
    assert stated(world, OCTOBER, "shop").tenant_name == "shop Inc."


def test_every_statement_is_told_before_its_account_is(world: World) -> None:
    acme, other = world.account(), world.account("other", "EUR")
    world.tenant(acme, "shop")
    world.tenant(other, "bank")
    world.record(acme, None, MID_OCTOBER, cost="0.10")
    seal_and_close(world, OCTOBER)
    rows = world.connection.execute(text("select topic, key, headers, value from outbox order by id")).all()
    assert [(row.topic, row.key) for row in rows] == [
        ("statements.closed", "acme/shop"),
        ("statements.closed", "acme/"),
        ("statements.closed", "other/bank"),
        ("statements.closed", "other/"),
        ("periods.closed", "acme"),
        ("periods.closed", "other"),
    ]
    entry = statements(world.connection, OCTOBER, "acme", "shop")[0]
    assert rows[0].headers["ce_id"] == entry.statement_id
    told = orjson.loads(bytes(rows[0].value))
    assert (told["sha256"], told["statement"]["statement_id"]) == (entry.sha256, entry.statement_id)
    month = orjson.loads(bytes(rows[4].value))
    assert (month["statement_count"], month["total_cost"]) == (2, "0.100000")


CALLS = st.lists(
    st.tuples(st.integers(-7200, 7200), st.integers(0, 3600), st.sampled_from([None, 0, 1])), max_size=25
)


@settings(deadline=None, max_examples=25)
@given(calls=CALLS)
def test_peaks_are_what_counting_every_instant_gives(
    postgres_world: World, calls: list[tuple[int, int, int | None]]
) -> None:
    """Around the edge between October and November, in seconds from it."""
    world = postgres_world
    savepoint = world.connection.begin_nested()
    try:
        acme = world.account()
        tenants = [world.tenant(acme, "a"), world.tenant(acme, "b")]
        edge = NOVEMBER.starts_at
        for start, length, who in calls:
            tenant = None if who is None else tenants[who]
            world.record(acme, tenant, edge + timedelta(seconds=start), seconds=str(length))
        seal_and_close(world, OCTOBER)
        seal_and_close(world, NOVEMBER)
        for index, code in ((None, None), (0, "a"), (1, "b")):
            mine = [(start, start + length) for start, length, who in calls if who == index]
            busy = (
                {second: sum(a <= second < b for a, b in mine) for second in range(-7200, 10801)}
                if mine
                else {0: 0}
            )
            before = max((n for second, n in busy.items() if second < 0), default=0)
            after = max((n for second, n in busy.items() if second >= 0), default=0)
            assert stated(world, OCTOBER, code).peak_concurrent_channels == before
            assert stated(world, NOVEMBER, code).peak_concurrent_channels == after
        assert reconcile(world.connection) == ()
    finally:
        savepoint.rollback()


@pytest.fixture(scope="module")
def postgres_world(postgres: EmbeddedPostgres) -> Iterator[World]:
    """One database for all examples of a property; each example is rolled back."""
    with postgres_connection(postgres, "postgres") as admin:
        admin.execute(text("create database test_peaks template tenant_billing_template"))
    engine = connect(postgres.url("test_peaks"), application_name="peaks")
    with engine.connect() as connection:
        yield World(connection, OCTOBER, NOVEMBER, DECEMBER)
        connection.rollback()
    engine.dispose()
    with postgres_connection(postgres, "postgres") as admin:
        admin.execute(text("drop database test_peaks with (force)"))


@contextmanager
def postgres_connection(postgres: EmbeddedPostgres, database: str) -> Iterator[Connection]:
    engine = connect(postgres.url(database), application_name="admin")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection
    engine.dispose()

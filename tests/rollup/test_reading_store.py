"""What operators read about months, usage and records that wait."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine

from rollup import reading_store
from rollup.announcement import EventTopics
from rollup.close_store import close
from tests.rollup.builders import NOVEMBER, OCTOBER, World, at

MID_OCTOBER = at("2026-10-15T12:00:00")


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection, OCTOBER, NOVEMBER)


def count(world: World, outcome: str, records: int, reason: str = "", writer: str = "stream") -> None:
    world.run(
        "insert into outcome_counts (position_id, writer, outcome, reason, records) "
        "values (:id, :writer, :outcome, :reason, :records)",
        id=world.position_id,
        writer=writer,
        outcome=outcome,
        reason=reason,
        records=records,
    )


def quarantine(world: World, offset: int, account_id: int | None, reason: str, state: str = "open") -> None:
    world.run(
        "insert into quarantine (position_id, kafka_offset, received_at, reason, detail, account_id, state) "
        "values (:id, :offset, :received_at, :reason, 'why', :account_id, :state)",
        id=world.position_id,
        offset=offset,
        received_at=MID_OCTOBER + timedelta(seconds=offset),
        reason=reason,
        account_id=account_id,
        state=state,
    )


def test_usage_so_far_is_shown_by_owner_with_the_state_of_its_month(world: World) -> None:
    acme = world.account()
    shop = world.tenant(acme, "shop")
    world.record(acme, shop, MID_OCTOBER, cost="0.10")
    world.record(acme, shop, MID_OCTOBER, cost="0.10")
    world.record(None, None, MID_OCTOBER, cost="7", currency="XXX")
    shown = [
        (usage.period, usage.state, usage.account, usage.tenant, usage.attempts, usage.cost)
        for usage in reading_store.usage_so_far(world.connection)
    ]
    assert shown == [
        ("2026-10", "open", "acme", "shop", 2, Decimal("0.20")),
        ("2026-10", "open", None, None, 1, Decimal(7)),
    ]
    assert len(reading_store.usage_so_far(world.connection, OCTOBER, "acme", "shop")) == 1
    assert reading_store.usage_so_far(world.connection, NOVEMBER) == ()


def test_a_closed_month_is_no_usage_so_far_unless_it_is_asked_for(world: World) -> None:
    acme = world.account()
    world.record(acme, None, MID_OCTOBER)
    world.run("update periods set state = 'sealed', sealed_at = now() where period = '2026-10-01'")
    close(world.connection, OCTOBER, EventTopics("s", "p"))
    assert reading_store.usage_so_far(world.connection) == ()
    assert len(reading_store.usage_so_far(world.connection, OCTOBER)) == 1


def test_a_statement_is_found_by_owner_and_by_id(world: World) -> None:
    acme = world.account()
    world.tenant(acme, "shop")
    world.run("update periods set state = 'sealed', sealed_at = now() where period = '2026-10-01'")
    close(world.connection, OCTOBER, EventTopics("s", "p"))
    (entry,) = reading_store.statements(world.connection, tenant="shop")
    assert (entry.period, entry.kind, entry.account) == ("2026-10", "tenant", "acme")
    found = reading_store.statement_by_id(world.connection, entry.statement_id.upper())
    assert found == reading_store.statement_document(world.connection, OCTOBER, "acme", "shop")
    assert found is not None
    assert found.entry == entry
    assert reading_store.statement_document(world.connection, OCTOBER, "acme", "SHOP") is None
    assert reading_store.statement_document(world.connection, OCTOBER, "acme", None) is not None


def test_quarantine_is_listed_by_reason_account_and_state(world: World) -> None:
    acme = world.account()
    quarantine(world, 1, acme, "unrated")
    quarantine(world, 2, None, "unreadable")
    quarantine(world, 3, acme, "unrated", state="replayed")
    assert [each.offset for each in reading_store.quarantined(world.connection)] == [1, 2]
    (mine,) = reading_store.quarantined(world.connection, reason="unrated", account="acme")
    assert (mine.topic, mine.partition, mine.offset, mine.account) == ("calls.raw", 0, 1, "acme")
    assert len(reading_store.quarantined(world.connection, state=None)) == 3
    assert len(reading_store.quarantined(world.connection, state=None, limit=1)) == 1


def test_records_that_wait_are_listed_with_what_for(world: World) -> None:
    world.run(
        "insert into held_records (started_date, key, content, reason, hold_until, switch, record_id, started_at, "
        "received_at, position_id, kafka_offset, value) values ('2026-10-15', gen_random_uuid(), gen_random_uuid(), "
        "'sip_context', now(), 'sbc-1', 'r-1', now(), now(), :id, 9, '')",
        id=world.position_id,
    )
    (waiting,) = reading_store.held(world.connection)
    assert (waiting.record_id, waiting.reason, waiting.topic, waiting.offset) == (
        "r-1",
        "sip_context",
        "calls.raw",
        9,
    )

"""Everything received is accounted for, topic by topic, and the counts are those of the tables (DESIGN 8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from rollup.conservation_store import Conservation, by_topic, conservation
from rollup.reading_store import outcome_counts
from tests.rollup.builders import NOVEMBER, OCTOBER, World, at

MID_OCTOBER = at("2026-10-15T12:00:00")


@pytest.fixture
def connection(database: Engine) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


@pytest.fixture
def world(connection: Connection) -> World:
    """Two records posted, one of them by a replay; one in quarantine, one discarded, one replayed; others counted."""
    world = World(connection, OCTOBER, NOVEMBER)
    acme = world.account()
    world.record(acme, None, MID_OCTOBER)
    world.record(acme, None, MID_OCTOBER)
    for offset, state in ((5, "open"), (6, "replayed"), (7, "discarded")):
        quarantine(world, offset, state)
    count(world, "posted", 1)
    count(world, "quarantined", 3, "unrated")
    count(world, "quarantined", -1, "unrated", writer="replay")
    count(world, "posted", 1, writer="replay")
    count(world, "duplicate", 3)
    count(world, "ignored", 4, "tombstone")
    count(world, "context", 5)
    return world


def count(world: World, outcome: str, records: int, reason: str = "", writer: str = "stream") -> None:
    world.run(
        "insert into outcome_counts as o (position_id, writer, outcome, reason, records) "
        "values (:id, :writer, :outcome, :reason, :records) "
        "on conflict (position_id, writer, outcome, reason) do update set records = o.records + excluded.records",
        id=world.position_id,
        writer=writer,
        outcome=outcome,
        reason=reason,
        records=records,
    )


def quarantine(world: World, offset: int, state: str = "open") -> None:
    world.run(
        "insert into quarantine (position_id, kafka_offset, received_at, reason, detail, state) "
        "values (:id, :offset, now(), 'unrated', 'x', :state)",
        id=world.position_id,
        offset=offset,
        state=state,
    )


def test_everything_received_is_accounted_for(world: World) -> None:
    line = conservation(world.connection)
    assert line == Conservation("all", 16, 2, 3, 0, 2, 4, 5, 0, 2, 1, 0, 2)
    assert line.violations == ()
    counts = {(each.outcome, each.reason): each.records for each in outcome_counts(world.connection)}
    assert counts["quarantined", "unrated"] == 2


def test_each_topic_has_its_line_and_the_ledgers_rows_are_its_own(world: World) -> None:
    world.run("insert into stream_positions (topic, partition, next_offset) values ('sip.raw', 0, 0)")
    calls, sip, everything = by_topic(world.connection, count_rows=True)
    assert (calls.topic, calls.received, calls.ledger) == ("calls.raw", 16, 2)
    assert (sip.topic, sip.received, sip.ledger) == ("sip.raw", 0, 0)
    assert everything[1:] == calls[1:]


def test_an_installation_that_has_read_nothing_has_lost_nothing(database: Engine) -> None:
    with database.connect() as connection:
        assert by_topic(connection) == (Conservation("all", *(0,) * 12),)
        assert conservation(connection).holds


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (
            "update outcome_counts set records = records + 1 where writer = 'replay' and outcome = 'posted'",
            "received is 16, the sum of outcomes 17",
        ),
        (
            "delete from quarantine where state = 'discarded'",
            "quarantined is 2, records kept in quarantine 1",
        ),
        ("update quarantine set state = 'open'", "quarantined is 2, records kept in quarantine 3"),
        (
            "update outcome_counts set outcome = 'held' where outcome = 'context'",
            "held is 5, records that wait 0",
        ),
        ("update monthly_usage set attempts = attempts - 1", "posted is 2, the ledger 1"),
    ],
)
def test_what_does_not_add_up_is_said(world: World, spoilt: str, said: str) -> None:
    world.run(spoilt)
    line = conservation(world.connection)
    assert not line.holds
    assert f"all: {said}" in line.violations

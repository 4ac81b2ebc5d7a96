"""A resolver may be killed, frozen or doubled anywhere: each held record is released once, and counted once (A10)."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from pipeline.read_through import read_through
from rollup.conservation_store import conservation
from tests.pipeline.stopping import killed_at, program, until, waiting_point, waits
from tests.world import World, invite, outbound, utc

NOON = utc("2026-10-10 12:00")
SHARED_IP = "198.51.100.7"
TENANT = "big.example.com"
CALLS = 40
POINTS = [
    ("held_records", "after delete"),
    ("usage_records", "after insert"),
    ("monthly_usage", "after insert"),
    ("outcome_counts", "after insert"),
]


@pytest.fixture
def waiting(database: Engine) -> World:
    """Calls that wait for their INVITEs, which have come since."""
    world = World(database)
    account = world.account()
    world.tenant(account, TENANT)
    world.ip(SHARED_IP, account)
    world.run()
    names = [f"{number}@example.com" for number in range(CALLS)]
    calls = [
        outbound(name, SHARED_IP, NOON, call_id=name, ended_at=(NOON + timedelta(minutes=1)).isoformat())
        for name in names
    ]
    world.receive(*calls, at=NOON + timedelta(minutes=2))
    invites = [invite(name, SHARED_IP, NOON, TENANT, 1) for name in names]
    world.receive(*invites, at=NOON + timedelta(minutes=1), topic="sip.raw")
    world.receive(
        invite("other@example.com", SHARED_IP, NOON), at=NOON + timedelta(minutes=3), topic="sip.raw"
    )
    assert world.outcomes()["held", "sip_context"] == CALLS
    return world


def check_released_once(world: World) -> None:
    assert [row.tenant for row in world.ledger()] == [TENANT] * CALLS
    outcomes = {key: records for key, records in world.outcomes().items() if records}
    assert outcomes == {("posted", ""): CALLS, ("context", ""): CALLS + 1}
    [usage] = world.query("select sum(attempts)::int as n from monthly_usage")
    assert usage.n == CALLS
    check_conservation(world)


def check_conservation(world: World) -> None:
    with world.engine.connect() as connection:
        assert conservation(connection).violations == ()


def resolver(url: str) -> list[str]:
    return ["tests.pipeline.program", "resolve", url]


@pytest.mark.parametrize(("table", "when"), POINTS, ids=[" ".join(point) for point in POINTS])
def test_a_resolver_killed_at_any_point_has_released_nothing_and_the_next_one_releases_all(
    waiting: World, database_url: str, tmp_path: Path, table: str, when: str
) -> None:
    killed_at(waiting.engine, table, when, resolver(database_url), tmp_path / "log")
    assert waiting.ledger() == []
    check_conservation(waiting)
    assert waiting.resolve() == CALLS
    check_released_once(waiting)
    assert waiting.resolve() == 0


def test_a_frozen_resolver_loses_what_it_held_and_does_no_harm_when_it_wakes(
    waiting: World, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with waiting_point(waiting.engine, "held_records", "after delete"):
        frozen = program(resolver(database_url), log)
        until(lambda: waits(waiting.engine), frozen, log)
        os.kill(frozen.process.pid, signal.SIGSTOP)
        assert waiting.resolve() == 0  # what it holds is passed by, not waited for
    until(lambda: waiting.resolve() == CALLS, frozen, log)
    os.kill(frozen.process.pid, signal.SIGCONT)
    assert frozen.process.wait(30) == 1  # its transaction was gone
    check_released_once(waiting)


def test_many_resolvers_at_once_release_each_record_once(waiting: World) -> None:
    worlds = [World(waiting.engine) for _ in range(6)]
    with ThreadPoolExecutor(len(worlds)) as pool:
        released = list(pool.map(lambda world: world.resolve(), worlds))
    assert sum(released) == CALLS
    check_released_once(waiting)


def test_a_position_of_a_topic_made_anew_is_not_taken_for_one_at_the_logs_end(waiting: World) -> None:
    """The new topic's log ends below what was read of the old one: nothing of it has been read, whatever the offset."""
    read_of_old = read_through(waiting.engine, waiting.logs, ["sip.raw"])  # type: ignore[arg-type]
    waiting.logs.unread["sip.raw", 0] = 3
    assert read_through(waiting.engine, waiting.logs, ["sip.raw"]) == read_of_old  # type: ignore[arg-type]

"""Ingest never waits for a close, and a seal never starves behind ingest (C2): tried with the real locks."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from pipeline.closer import Closed, Waiting, close_month
from pipeline.settings import InputTopic
from rollup import months_store
from rollup.months_store import BlockerKind, database_now
from schemas.locks import Lock
from schemas.periods import Period
from tests.pipeline.program import SETTINGS, NothingBeyond
from tests.pipeline.stopping import program, until, waiting_point, waits
from tests.rollup import builders
from tests.world import World, inbound

NUMBER = "+12125550101"


@pytest.fixture
def past(database: Engine) -> Period:
    """A month whose cutoff has passed, in a database whose sessions are refused whatever they wait for."""
    with database.connect() as connection:
        month = Period.of(database_now(connection)).plus(-2)
    world = World(database)
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, "shop.example.com"))
    world.run(str(month), str(month.plus(3)))
    return month


@pytest.fixture
def impatient(database: Engine) -> World:
    """A world that posts as a worker does, and fails at once if it must wait for a lock."""
    world = World(database, inputs=(InputTopic(topic="calls.raw", kind="calls"),))

    @event.listens_for(database, "begin")
    def refuse_to_wait(connection: object) -> None:
        if threading.current_thread().name.startswith("ingest"):
            connection.exec_driver_sql("set local lock_timeout = '1ms'")  # type: ignore[attr-defined]

    return world


def post(world: World, month: Period, number: int) -> None:
    call = inbound(str(number), NUMBER, month.starts_at + timedelta(days=3, seconds=number))
    assert world.receive(call, at=month.starts_at + timedelta(days=4)) == {("posted", ""): 1}


def test_ingest_goes_on_while_a_month_closes(
    database: Engine, database_url: str, past: Period, impatient: World, tmp_path: Path
) -> None:
    """Into open months and, as late usage, into the one that is being closed."""
    post(impatient, past, 0)
    log = tmp_path / "log"
    for table, when in (("statements", "after insert"), ("periods", "after update of closed_at")):
        with waiting_point(database, table, when):
            closing = program(["tests.pipeline.program", "close", database_url, str(past)], log)
            until(lambda: waits(database), closing, log)
            with ThreadPoolExecutor(1, thread_name_prefix="ingest") as ingest:
                for month in (past, past.next()):
                    ingest.submit(post, impatient, month, len(impatient.ledger())).result()
            closing.kill()
    assert [str(row.period) for row in impatient.ledger() if row.late] == [str(past.next().first_day)] * 2
    found = close_month(database, SETTINGS, NothingBeyond(), past)
    assert isinstance(found, Closed)
    assert [month.statement_count for month in found.month.accounts] == [2]


def test_a_seal_comes_through_while_batches_are_posted_without_a_pause(
    database: Engine, past: Period
) -> None:
    """Eight writers whose transactions overlap hold the periods' lock shared at every moment until the month is sealed."""
    sealed, posting = threading.Event(), threading.Barrier(9)

    def write() -> int:
        written = 0
        posting.wait()
        while not sealed.is_set():
            with database.begin() as connection:
                connection.execute(text("select pg_advisory_xact_lock_shared(:key)"), {"key": Lock.PERIODS})
                connection.execute(text("select pg_sleep(0.02)"))
            written += 1
        return written

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write) for _ in range(8)]
        posting.wait()
        try:
            found = close_month(database, SETTINGS, NothingBeyond(), past)
        finally:
            sealed.set()
        assert sum(writer.result() for writer in writers) > 0
    assert isinstance(found, Closed), found


def test_a_seal_waits_for_a_batch_that_is_being_posted_and_counts_what_it_wrote(
    database: Engine, past: Period
) -> None:
    with database.begin() as posting, ThreadPoolExecutor(1) as pool:
        posting.execute(text("select pg_advisory_xact_lock_shared(:key)"), {"key": Lock.PERIODS})
        closing = pool.submit(close_month, database, SETTINGS, NothingBeyond(), past)
        with pytest.raises(TimeoutError):
            closing.result(timeout=0.5)
        world = builders.World.__new__(builders.World)
        world.connection = posting
        world.position_id = world.one(
            "insert into stream_positions (topic, partition, next_offset) values ('calls.raw', 0, 0) returning id"
        )
        world.record(world.one("select id from accounts"), None, past.starts_at, cost="4")
        posting.commit()
        found = closing.result(timeout=30)
    assert isinstance(found, Closed)
    assert [str(month.usage_cost) for month in found.month.accounts] == ["4.000000"]


def test_a_seal_gives_way_to_a_batch_that_stands_still_and_lets_the_others_go_on(
    database: Engine, past: Period, impatient: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(months_store, "seal_wait_seconds_max", 1)
    with database.begin() as frozen:
        frozen.execute(text("select pg_advisory_xact_lock_shared(:key)"), {"key": Lock.PERIODS})
        found = close_month(database, SETTINGS, NothingBeyond(), past)
        assert isinstance(found, Waiting)
        assert [each.kind for each in found.blockers] == [BlockerKind.POSTING]
        with ThreadPoolExecutor(1, thread_name_prefix="ingest") as ingest:
            ingest.submit(post, impatient, past, 1).result()
    assert isinstance(close_month(database, SETTINGS, NothingBeyond(), past), Closed)


def test_a_closer_that_is_frozen_while_it_seals_holds_ingest_up_no_longer_than_its_patience(
    database: Engine, database_url: str, past: Period, impatient: World, tmp_path: Path
) -> None:
    """It has the periods' lock, so every batch waits, until the server ends its transaction; then another one seals."""
    log = tmp_path / "log"
    with waiting_point(database, "periods", "before update of sealed_at"):
        sealing = program(["tests.pipeline.program", "close", database_url, str(past)], log)
        until(lambda: waits(database), sealing, log)
        os.kill(sealing.process.pid, signal.SIGSTOP)
    post(impatient, past, 1)
    assert isinstance(close_month(database, SETTINGS, NothingBeyond(), past), Closed)
    os.kill(sealing.process.pid, signal.SIGCONT)
    assert sealing.process.wait(30) in {0, 1}
    assert len(impatient.query("select id from statements")) == 2

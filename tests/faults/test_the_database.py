"""What a database can do to a batch: refuse it for a moment, keep it waiting, be full. Nothing is lost or doubled by it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from deploy.stack.postgres import EmbeddedPostgres
from pipeline import position_store
from pipeline.database import connect, migrate, sqlstate
from pipeline.position_store import end_silent_sessions
from pipeline.posting import BatchPoster
from tests.world import World, inbound, utc

OCTOBER = utc("2026-10-10 12:00")
LATER = OCTOBER + timedelta(hours=10)
NUMBER = "+12125550101"


def furnished(engine: Engine) -> World:
    world = World(engine)
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, "a.example.com"))
    return world.run()


@pytest.fixture
def carrier(database: Engine) -> World:
    return furnished(database)


def calls(count: int, first: int = 0) -> list[dict[str, object]]:
    return [
        inbound(f"{number:06}", NUMBER, OCTOBER + timedelta(seconds=number % 30_000))
        for number in range(first, first + count)
    ]


def errors_of(engine: Engine) -> list[str]:
    """The SQLSTATEs that the engine's statements meet from now on."""
    met: list[str] = []

    @event.listens_for(engine, "handle_error")
    def note(context: object) -> None:
        met.append(getattr(context.original_exception, "pgcode", "") or "")  # type: ignore[attr-defined]

    return met


def test_a_deadlock_is_tried_again_until_it_is_none(carrier: World) -> None:
    """Someone takes the sums first and then the outcome counts, the other way round than a batch does."""
    carrier.receive(*calls(1), at=LATER)
    met = errors_of(carrier.engine)
    with carrier.engine.begin() as other:
        other.execute(text("set local deadlock_timeout = '10s'"))  # it is the batch that finds the deadlock
        other.execute(text("select from outcome_counts for update"))
        with ThreadPoolExecutor(1) as pool:
            batch = pool.submit(carrier.receive, *calls(50, first=1), at=LATER)
            _until_one_waits(carrier.engine)
            other.execute(text("select from monthly_usage for update"))
            other.commit()
            assert batch.result() == {("posted", ""): 50}
    assert "40P01" in met
    assert (len(carrier.ledger()), carrier.outcomes()) == (51, {("posted", ""): 51})


def test_a_serialisation_failure_is_tried_again(database: Engine) -> None:
    """Where an installation runs on `repeatable read`, another's change in between is such a failure."""
    with database.begin() as connection:
        connection.execute(
            text(
                "alter database "
                + str(database.url.database)
                + " set default_transaction_isolation = 'repeatable read'"
            )
        )
    database.dispose()
    carrier = furnished(database)
    carrier.receive(*calls(1), at=LATER)
    met = errors_of(database)
    with database.begin() as other:
        other.execute(text("update monthly_usage set attempts = attempts"))
        with ThreadPoolExecutor(1) as pool:
            batch = pool.submit(carrier.receive, *calls(50, first=1), at=LATER)
            _until_one_waits(database)
            other.commit()
            assert batch.result() == {("posted", ""): 50}
    assert "40001" in met
    assert (len(carrier.ledger()), carrier.outcomes()) == (51, {("posted", ""): 51})


def test_a_lock_that_is_held_for_long_is_not_waited_for_for_ever(
    carrier: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(position_store, "lock_wait_seconds_max", 1)
    carrier.receive(*calls(1), at=LATER)
    with carrier.engine.begin() as other:
        other.execute(text("lock table usage_records in exclusive mode"))
        with pytest.raises(DBAPIError) as refused:
            carrier.receive(*calls(50), at=LATER)
    assert sqlstate(refused.value) == "55P03"
    assert carrier.receive(*calls(50), at=LATER) == {("posted", ""): 49, ("duplicate", ""): 1}


@pytest.mark.parametrize("copying", [False, True], ids=["between two statements", "in the middle of a copy"])
def test_a_session_that_stands_still_in_the_middle_of_posting_is_ended_and_no_other(
    carrier: World, monkeypatch: pytest.MonkeyPatch, *, copying: bool
) -> None:
    monkeypatch.setattr(position_store, "silent_seconds_max", 0.2)
    carrier.receive(*calls(1), at=LATER)
    closing, frozen = carrier.engine.connect(), carrier.engine.connect()
    closing.execute(text("select 1"))  # a close that computes between two statements
    thaw = threading.Event()
    position_store.begin_posting(frozen)
    frozen.execute(text("select from stream_positions for update"))
    with ThreadPoolExecutor(1) as pool:
        copied = pool.submit(_copy_slowly, frozen, thaw) if copying else None
        threading.Event().wait(0.5)
        with carrier.engine.begin() as successor:
            assert len(end_silent_sessions(successor)) == 1
        assert carrier.receive(*calls(1), at=LATER) == {("duplicate", ""): 1}  # what it held is free
        thaw.set()
        if copied is not None:
            with pytest.raises(psycopg2.OperationalError):
                copied.result()
    with pytest.raises(DBAPIError):
        frozen.execute(text("select 1"))
    closing.execute(text("select 1"))
    frozen.invalidate()
    closing.close()
    frozen.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB; made with `mount`, which only root may."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=777", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be made here: {made.stderr.decode().strip()}")
    for parent in folder.parents[:4]:
        parent.chmod(parent.stat().st_mode | 0o055)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_the_batch_and_nothing_else_and_goes_on_when_there_is_room(
    small_disk: Path,
) -> None:
    server = EmbeddedPostgres(options=("fsync=off",)).start()
    try:
        engine = connect(server.url(), application_name="full disk")
        migrate(engine)
        carrier = furnished(engine)
        ledgers = small_disk / "ledgers"
        ledgers.mkdir(mode=0o777)
        ledgers.chmod(0o777)
        subprocess.run(["chown", "nobody", str(ledgers)], check=True)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"create tablespace small location '{ledgers}'"))
            connection.execute(text("alter table usage_records_partition_2026_10 set tablespace small"))
        carrier.receive(*calls(1000), at=LATER)
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            _fill(ballast)
        before = (len(carrier.ledger()), carrier.outcomes())
        with pytest.raises(DBAPIError) as refused:
            carrier.receive(*calls(5000, first=1000), at=LATER)
        assert sqlstate(refused.value) == "53100"
        assert (len(carrier.ledger()), carrier.outcomes()) == before
        ballast.unlink()
        assert carrier.receive(*calls(5000, first=1000), at=LATER) == {("posted", ""): 5000}
        assert carrier.outcomes() == {("posted", ""): 6000}
        engine.dispose()
    finally:
        server.stop()


def test_ten_thousand_duplicates_in_one_batch_and_across_batches_are_ten_thousand_duplicates(
    carrier: World,
) -> None:
    once = calls(1000)
    assert carrier.receive(*once * 11, at=LATER) == {("posted", ""): 1000, ("duplicate", ""): 10_000}
    for partition in range(1, 6):
        again = carrier.receive(*once * 2, at=LATER + timedelta(days=20), partition=partition)
        assert again == {("duplicate", ""): 2000}
    assert len(carrier.ledger()) == 1000
    assert carrier.outcomes() == {("posted", ""): 1000, ("duplicate", ""): 20_000}


@pytest.mark.parametrize("midnight", ["2026-10-12 00:00", "2026-11-01 00:00"])
def test_resends_whose_clocks_moved_over_a_midnight_or_a_months_end_are_recognised_by_the_thousand(
    carrier: World, midnight: str
) -> None:
    before, after = utc(midnight) - timedelta(seconds=100), utc(midnight) + timedelta(seconds=100)
    first = [inbound(f"{number:05}", NUMBER, before if number % 2 else after) for number in range(2000)]
    moved = [inbound(f"{number:05}", NUMBER, after if number % 2 else before) for number in range(2000)]
    at = utc(midnight) + timedelta(hours=1)
    assert carrier.receive(*first, *first, at=at) == {("posted", ""): 2000, ("duplicate", ""): 2000}
    assert carrier.receive(*moved, at=at, partition=1) == {("quarantined", "conflicting_duplicate"): 2000}
    assert carrier.receive(*first[::-1], at=at, partition=2) == {("duplicate", ""): 2000}
    assert len(carrier.ledger()) == 2000


def test_several_writers_of_the_same_records_in_other_orders_at_one_moment_make_one_row_each(
    carrier: World,
) -> None:
    """Half of them start around a midnight, so that the writers meet there too."""
    near = [
        inbound(f"n{number:04}", NUMBER, utc("2026-10-10 23:58") + timedelta(seconds=number % 200))
        for number in range(1000)
    ]
    records = [*calls(1000), *near]
    orders = [
        records,
        records[::-1],
        records[500:] + records[:500],
        sorted(records, key=lambda each: str(each["id"])[::-1]),
    ]
    start = threading.Barrier(len(orders))

    def post(writer: int) -> None:
        world = World(carrier.engine)
        world.poster = BatchPoster(carrier.engine)
        start.wait()
        for begin in range(0, len(records), 500):
            world.receive(*orders[writer][begin : begin + 500], at=utc("2026-10-11 12:00"), partition=writer)

    with ThreadPoolExecutor(len(orders)) as pool:
        for done in [pool.submit(post, writer) for writer in range(len(orders))]:
            done.result()
    assert len({row.record_id for row in carrier.ledger()}) == len(carrier.ledger()) == 2000
    assert carrier.outcomes() == {("posted", ""): 2000, ("duplicate", ""): 6000}
    [usage] = carrier.query("select sum(attempts)::int as n from monthly_usage")
    assert usage.n == 2000


def _copy_slowly(connection: Connection, thaw: threading.Event) -> None:
    """Begin to copy, and stand still where a row would follow."""

    class Frozen:
        def read(self, _size: int) -> bytes:
            thaw.wait(30)
            return b""

    cursor: Any = connection.connection.cursor()
    cursor.copy_expert("copy quarantine (key) from stdin", Frozen())


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as output:
        while True:
            output.write(b"x" * 65_536)


def _until_one_waits(engine: Engine) -> None:
    """Until a session of this database waits for a lock."""
    pause = threading.Event()
    for _ in range(500):
        with engine.connect() as connection:
            waits = text(
                "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
            )
            if connection.execute(waits).scalar_one():
                return
        pause.wait(0.02)
    raise AssertionError("nobody waits")


def test_doubt_ends_though_duplicates_that_are_known_go_on(carrier: World) -> None:
    records = calls(8)
    doubts = []
    carrier.receive(*records[:2], at=LATER)
    carrier.poster = BatchPoster(carrier.engine)  # a restart: what was posted is not known any more
    for batch in (records[:2], [records[2]], [records[0], *records[3:7]], [records[3], records[7]]):
        carrier.receive(*batch, at=LATER)
        doubts.append((carrier.poster._recent.doubtful, carrier.poster._recent.replaying))
    assert doubts == [(True, True), (False, False), (True, False), (False, False)]
    assert len(carrier.ledger()) == len(records)

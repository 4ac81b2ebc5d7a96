"""A month closes when everything that belongs to it has been read, once, whoever closes it (C1, C2, C4)."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine, text

from pipeline.boundaries import BoundariesUnavailableError
from pipeline.closer import Closed, Waiting, close_month, closer_round, make_months_ahead, run_closer
from pipeline.position_store import begin_anew, ensure_position, give_up, partitions_awaited
from pipeline.settings import InputTopic, Settings
from rollup.months_store import BlockerKind, Waits, database_now, make_months, period_rows, what_blocks
from rollup.reading_store import statements
from schemas.periods import Period
from tests.rollup.builders import World

SETTINGS = Settings(inputs=(InputTopic(topic="calls.raw", kind="calls"),), quarantine_wait_hours_max=24)
NOW_MONTHS = 3


class Ends:
    """Kafka, as far as a close asks it: offsets by partition; how often it was asked."""

    def __init__(self, offsets: Mapping[tuple[str, int], int] | None = None) -> None:
        self.offsets = offsets if offsets is not None else {("calls.raw", 0): 0}
        self.asked: list[datetime] = []
        self.topic_id: str | None = None

    def boundaries(self, topics: Iterable[str], at: datetime) -> Mapping[tuple[str, int], int]:
        assert list(topics) == ["calls.raw"]
        self.asked.append(at)
        return self.offsets

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        return {topic: self.topic_id for topic in topics if self.topic_id}


class Unreachable:
    def boundaries(self, topics: Iterable[str], at: datetime) -> Mapping[tuple[str, int], int]:  # noqa: ARG002 (the protocol)
        raise BoundariesUnavailableError("no broker answers")

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:  # noqa: ARG002 (the protocol)
        return {}


@pytest.fixture
def past(database: Engine) -> Period:
    """A month whose cutoff has long passed, in an installation that runs; it has one account with one call."""
    with database.begin() as connection:
        present = Period.of(database_now(connection))
        month = present.plus(-2)
        world = World(connection, *(month.plus(n) for n in range(NOW_MONTHS)))
        account = world.account()
        shop = world.tenant(account, "shop", made_at=month.starts_at - timedelta(days=50))
        world.record(account, shop, month.starts_at + timedelta(days=3), cost="0.25")
        world.running()
    return month


def run(engine: Engine, sql: str, **parameters: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), parameters)


def kinds(found: Closed | Waiting) -> list[BlockerKind]:
    assert isinstance(found, Waiting), found
    return [each.kind for each in found.blockers]


def test_a_month_that_has_been_read_closes(database: Engine, past: Period) -> None:
    found = close_month(database, SETTINGS, Ends(), past)
    assert isinstance(found, Closed)
    assert (found.month.statement_count, found.left_open) == (2, ())
    with database.connect() as connection:
        row = period_rows(connection)[0]
    assert row.state == "closed"
    assert row.cutoff_at == past.ends_at + timedelta(hours=48)
    assert row.sealed_at is not None
    assert row.closed_at is not None
    assert row.sealed_at < row.closed_at


def test_a_month_waits_until_each_partition_has_reached_its_boundary(database: Engine, past: Period) -> None:
    source = Ends({("calls.raw", 0): 7, ("calls.raw", 1): 1, ("calls.raw", 2): 0})
    found = close_month(database, SETTINGS, source, past)
    assert isinstance(found, Waiting)
    assert [each.text for each in found.blockers] == [
        "calls.raw[0] has been read to offset 0, the boundary is 7",
        "calls.raw[1] has been read not at all, the boundary is 1",
    ]
    run(database, "update stream_positions set next_offset = 7")
    run(database, "insert into stream_positions (topic, partition, next_offset) values ('calls.raw', 1, 1)")
    assert isinstance(close_month(database, SETTINGS, source, past), Closed)


def test_a_boundary_is_pinned_once_and_never_moves(database: Engine, past: Period) -> None:
    first = Ends({("calls.raw", 0): 7})
    close_month(database, SETTINGS, first, past)
    later = Ends({("calls.raw", 0): 9, ("calls.raw", 1): 9})
    found = close_month(database, SETTINGS, later, past)
    assert later.asked == []
    assert isinstance(found, Waiting)
    assert [each.text for each in found.blockers] == [
        "calls.raw[0] has been read to offset 0, the boundary is 7"
    ]


def test_a_boundary_of_a_topic_that_is_gone_is_reached_when_its_position_is_given_up(
    database: Engine, past: Period
) -> None:
    """Made anew after the month was pinned: what the old log still held is lost, and the new one is all of later months."""
    run(database, "update stream_positions set next_offset = 5, topic_id = 'old'")
    source = Ends({("calls.raw", 0): 7})
    source.topic_id = "old"
    assert kinds(close_month(database, SETTINGS, source, past)) == [BlockerKind.UNREAD]
    with database.begin() as connection:
        begin_anew(connection, "calls.raw", 0, 0, "new")
    assert isinstance(close_month(database, SETTINGS, source, past), Closed)


def test_a_topic_that_is_gone_for_good_keeps_no_month_open_once_it_is_given_up(
    database: Engine, past: Period
) -> None:
    run(database, "update stream_positions set next_offset = 5, topic_id = 'old'")
    source = Ends({("calls.raw", 0): 7, ("calls.raw", 1): 3})
    source.topic_id = "old"
    assert kinds(close_month(database, SETTINGS, source, past)) == [BlockerKind.UNREAD] * 2
    with database.begin() as connection:
        assert partitions_awaited(connection, "calls.raw") == {1: "old"}
        ensure_position(connection, "calls.raw", 1, 0, "old")
        assert [give_up(connection, "calls.raw", partition) for partition in (0, 1)] == [2, 3]
        assert connection.scalar(text("select sum(gap_records) from stream_positions")) == 5
    assert isinstance(close_month(database, SETTINGS, source, past), Closed)


def test_a_position_of_a_topic_that_is_gone_has_not_read_what_the_new_one_holds(
    database: Engine, past: Period
) -> None:
    """Made anew before the month was pinned: the old position lies above the boundary, and means nothing."""
    run(database, "update stream_positions set next_offset = 5000, topic_id = 'old'")
    source = Ends({("calls.raw", 0): 7})
    source.topic_id = "new"
    assert kinds(close_month(database, SETTINGS, source, past)) == [BlockerKind.UNREAD]
    with database.begin() as connection:
        begin_anew(connection, "calls.raw", 0, 0, "new")
    assert kinds(close_month(database, SETTINGS, source, past)) == [BlockerKind.UNREAD]
    run(database, "update stream_positions set next_offset = 7 where topic_id = 'new'")
    assert isinstance(close_month(database, SETTINGS, source, past), Closed)


def test_a_month_does_not_close_before_its_cutoff_and_kafka_is_not_asked(
    database: Engine, past: Period
) -> None:
    source = Ends()
    present = past.plus(2)
    assert kinds(close_month(database, SETTINGS, source, present)) == [
        BlockerKind.CUTOFF,
        BlockerKind.EARLIER_MONTH,
        BlockerKind.NEXT_MONTH,
        BlockerKind.BOUNDARIES,
    ]
    assert source.asked == []


def test_a_month_seals_a_minute_after_its_cutoff(database: Engine, past: Period) -> None:
    waits = Waits(timedelta(hours=48), timedelta(hours=24))
    cutoff = past.ends_at + waits.grace
    with database.connect() as connection:
        early = what_blocks(connection, past, cutoff + timedelta(seconds=59.999), waits)
        due = what_blocks(connection, past, cutoff + timedelta(seconds=60), waits)
    assert BlockerKind.CUTOFF in {each.kind for each in early}
    assert BlockerKind.CUTOFF not in {each.kind for each in due}


def test_months_seal_in_order(database: Engine, past: Period) -> None:
    assert kinds(close_month(database, SETTINGS, Ends(), past.next())) == [BlockerKind.EARLIER_MONTH]


def test_a_month_that_does_not_exist_is_said_to_be_none(database: Engine, past: Period) -> None:
    assert kinds(close_month(database, SETTINGS, Ends(), Period(2001, 1))) == [BlockerKind.NO_SUCH_MONTH]


def test_nothing_closes_while_history_may_still_be_written(database: Engine, past: Period) -> None:
    run(database, "update installation set state = 'bootstrap'")
    assert BlockerKind.BOOTSTRAP in kinds(close_month(database, SETTINGS, Ends(), past))


def test_when_kafka_does_not_answer_the_month_waits_for_it(database: Engine, past: Period) -> None:
    found = close_month(database, SETTINGS, Unreachable(), past)
    assert isinstance(found, Waiting)
    assert [each.text for each in found.blockers] == ["no broker answers"]


def hold(engine: Engine, day: date, received_at: datetime) -> None:
    run(
        engine,
        "insert into held_records (started_date, key, content, reason, hold_until, switch, record_id, started_at, "
        "received_at, position_id, kafka_offset, value) select :day, gen_random_uuid(), gen_random_uuid(), "
        "'sip_context', now(), 'sbc-1', 'x', cast(:day as timestamp) at time zone 'UTC', :received_at, id, 0, '' "
        "from stream_positions",
        day=day,
        received_at=received_at,
    )


def test_a_held_record_of_the_month_blocks_its_seal_and_one_of_another_month_does_not(
    database: Engine, past: Period
) -> None:
    hold(database, past.last_day, past.ends_at)
    hold(database, past.next().first_day, past.ends_at)
    found = close_month(database, SETTINGS, Ends(), past)
    assert isinstance(found, Waiting)
    assert [each.text.split(", at", 1)[0] for each in found.blockers] == [
        f"1 records of {past} are held (sip_context)"
    ]
    run(database, "delete from held_records where started_date = :day", day=past.last_day)
    assert isinstance(close_month(database, SETTINGS, Ends(), past), Closed)


def test_a_held_record_that_came_after_the_cutoff_is_not_waited_for(database: Engine, past: Period) -> None:
    cutoff = past.ends_at + timedelta(hours=48)
    hold(database, past.last_day, cutoff - timedelta(milliseconds=1))
    assert kinds(close_month(database, SETTINGS, Ends(), past)) == [BlockerKind.HELD]
    run(database, "update held_records set received_at = :cutoff", cutoff=cutoff)
    assert isinstance(close_month(database, SETTINGS, Ends(), past), Closed)


@pytest.mark.parametrize(
    ("reason", "received_after_start", "blocks"),
    [
        ("unrated", timedelta(days=1), True),
        ("unreadable", timedelta(days=1), True),
        ("implausible", timedelta(days=1), False),
        ("unreadable", timedelta(days=-1), False),
        ("unrated", timedelta(days=60), False),
    ],
)
def test_repairable_records_received_in_time_block_for_a_day_and_are_then_left_open(
    database: Engine, past: Period, reason: str, received_after_start: timedelta, *, blocks: bool
) -> None:
    run(
        database,
        "insert into quarantine (position_id, kafka_offset, received_at, reason, detail) "
        "select id, 0, :received_at, :reason, 'x' from stream_positions",
        reason=reason,
        received_at=past.starts_at + received_after_start,
    )
    waits = Waits(timedelta(hours=48), timedelta(hours=24))
    last = past.ends_at + timedelta(hours=72)
    with database.connect() as connection:
        before = {each.kind for each in what_blocks(connection, past, last - timedelta(seconds=1), waits)}
        after = {each.kind for each in what_blocks(connection, past, last, waits)}
    assert (BlockerKind.QUARANTINED in before) is blocks
    assert BlockerKind.QUARANTINED not in after
    found = close_month(database, SETTINGS, Ends(), past)
    assert isinstance(found, Closed)
    assert bool(found.left_open) is blocks


def test_closing_at_once_from_many_sides_gives_one_statement_per_tenant(
    database: Engine, past: Period
) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: close_month(database, SETTINGS, Ends(), past), range(6)))
    assert all(isinstance(each, Closed) for each in found)
    with database.connect() as connection:
        assert len(statements(connection, past)) == 2
        assert connection.scalar(text("select count(*) from outbox")) == 3


def test_the_closer_closes_each_month_that_is_due_and_makes_those_ahead(
    database: Engine, past: Period
) -> None:
    source = Ends()
    settings = SETTINGS.model_copy(update={"grace_hours": 0.0})
    assert closer_round(database, settings, source)
    with database.connect() as connection:
        states = {row.period: row.state for row in period_rows(connection)}
        present = Period.of(database_now(connection))
    assert states[past] == "closed"
    assert max(states) == present.plus(settings.months_ahead)
    assert source.asked == [past.ends_at]
    rounds = 1
    while closer_round(database, settings, source):
        rounds += 1
    with database.connect() as connection:
        assert [row.state for row in period_rows(connection)][:3] == ["closed", "closed", "open"]
    assert rounds == 2


def test_months_are_made_without_holes(database: Engine) -> None:
    present = Period(2026, 11)
    with database.begin() as connection:
        assert make_months(connection, present.starts_at, 3) == tuple(present.plus(n) for n in range(4))
        assert make_months(connection, present.starts_at, 3) == ()
        assert make_months(connection, present.plus(5).starts_at, 1) == tuple(
            present.plus(n) for n in range(4, 7)
        )


def test_making_months_gives_way_to_a_long_reader_of_the_ledger(database: Engine) -> None:
    with database.begin() as reader:
        reader.execute(text("select count(*) from usage_records"))
        assert make_months_ahead(database, SETTINGS) == ()
    assert len(make_months_ahead(database, SETTINGS)) == SETTINGS.months_ahead + 1


def test_the_closer_closes_by_itself_until_it_is_told_to_stop(database: Engine, past: Period) -> None:
    cluster = Producer({"test.mock.num.brokers": 1})
    broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    cluster.produce("calls.raw", b"x", partition=0)
    cluster.flush(10)
    run(database, "update stream_positions set next_offset = 1")
    settings = SETTINGS.model_copy(
        update={
            "kafka_bootstrap_servers": f"{broker.host}:{broker.port}",
            "require_log_append_time": False,
            "closer_interval_seconds": 0.05,
        }
    )
    stop = threading.Event()
    closer = threading.Thread(target=run_closer, args=(settings, database, stop))
    closer.start()
    for _ in range(200):
        with database.connect() as connection:
            if statements(connection, past):
                break
        stop.wait(0.05)
    stop.set()
    closer.join(30)
    assert not closer.is_alive()
    with database.connect() as connection:
        assert len(statements(connection, past)) == 2

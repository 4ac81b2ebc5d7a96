"""What Prometheus is told is what the database holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics import MetricWrapperBase
from sqlalchemy import Engine, text

from pipeline import position_store
from pipeline.database import connect
from pipeline.metrics import catalogue, instruments
from pipeline.metrics.lag import LagWatch, Partition
from pipeline.metrics.observer import OTHER, Observer, Reading, Sample, bounded, families, words_max
from pipeline.metrics.readings import invoicer_readings, worker_readings
from pipeline.settings import Settings
from schemas.periods import Period
from tests.acceptance.months import close
from tests.world import World, inbound, outbound, utc

PIPELINE = Path(__file__).parents[2] / "pipeline"
OCTOBER, RECEIVED = utc("2026-10-10 12:00"), utc("2026-10-10 12:05")
NUMBER, DEDICATED, SHARED = "+12125550101", "198.51.100.7", "198.51.100.8"


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Logs:
    """Where Kafka's logs end, as a test says."""

    def __init__(self, **ends: int) -> None:
        self.of: dict[Partition, int] = {("calls.raw", int(name[1:])): end for name, end in ends.items()}
        self.away = False

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        if self.away:
            raise TimeoutError
        return {partition: end for partition, end in self.of.items() if partition[0] in topics}


@pytest.fixture
def world(database: Engine) -> World:
    world = World(database)
    account = world.account()
    tenant = world.tenant(account, "a.example.com")
    world.tenant(account, "b.example.com")
    world.number(NUMBER, account, tenant)
    world.ip(DEDICATED, account, tenant)
    world.ip(SHARED, account)
    return world.run("2026-10")


def told(world: World) -> dict[str, dict[tuple[str, ...], float]]:
    """Everything that workers and invoicers tell, by metric and labels."""
    readings = (
        *worker_readings(world.settings, world.engine),
        *invoicer_readings(world.settings, world.engine),
    )
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for reading in readings:
        for metric, labels, value in reading.read():
            assert len(labels) == len(metric.labels), metric.name
            found.setdefault(metric.name, {})[labels] = value
    return found


def test_the_conservation_terms_are_those_of_the_records(world: World) -> None:
    world.receive(inbound("one", NUMBER, OCTOBER), inbound("one", NUMBER, OCTOBER), b"not json", at=RECEIVED)
    world.receive(outbound("waits", SHARED, OCTOBER), at=RECEIVED)
    found = told(world)
    assert found["received_records_total"] == {("calls.raw",): 4}
    assert found["outcome_records"] == {
        ("calls.raw", "posted", ""): 1,
        ("calls.raw", "duplicate", ""): 1,
        ("calls.raw", "quarantined", "unreadable"): 1,
        ("calls.raw", "held", "sip_context"): 1,
    }
    assert set(found["conservation_difference_records"].values()) == {0}
    assert found["held_records"] == {("sip_context",): 1, ("clock_ahead",): 0}
    assert found["quarantined_records"] == {("unreadable",): 1}


def test_a_lost_row_shows_as_a_difference(world: World) -> None:
    world.receive(b"not json", b"nor this", inbound("one", NUMBER, OCTOBER), at=RECEIVED)
    with world.engine.begin() as connection:
        connection.execute(text("delete from quarantine where kafka_offset = 0"))
        connection.execute(text("update monthly_usage set attempts = 3"))
        connection.execute(text("update outcome_counts set records = 5 where outcome = 'posted'"))
        connection.execute(
            text(
                "insert into outcome_counts (position_id, writer, outcome, reason, records) "
                "select position_id, 'replay', 'ignored', 'tombstone', 4 from outcome_counts limit 1"
            )
        )
    difference = told(world)["conservation_difference_records"]
    assert difference["calls.raw", "quarantined"] == 1
    assert difference["calls.raw", "received"] == -4
    assert difference["all", "posted"] == 2


def test_ignored_headers_and_usage_without_a_tenant_are_counted(world: World) -> None:
    world.receive(
        outbound("spoofed", DEDICATED, OCTOBER, x_tenant="b.example.com"),
        outbound("own", DEDICATED, OCTOBER, x_tenant="a.example.com"),
        outbound("unknown", SHARED, OCTOBER, x_tenant="nobody.example.com"),
        inbound("unowned", "+12125550109", OCTOBER),
        at=RECEIVED,
    )
    found = told(world)
    assert found["header_ignored_records"] == {(): 1}
    assert found["unattributed_records"] == {("account",): 1, ("nobody",): 1}
    assert found["directory_entries"] == {("accounts",): 1, ("tenants",): 2, ("numbers",): 1, ("ips",): 2}


def test_a_month_that_is_over_says_what_it_waits_for_and_since_when(world: World) -> None:
    world.receive(outbound("waits", SHARED, OCTOBER), at=RECEIVED)
    found = told(world)
    assert found["close_waits"]["boundaries",] == 1
    assert found["close_waits"]["held",] == 1
    assert found["close_waits"]["unread",] == 0
    assert found["close_overdue_seconds"][()] > 0
    assert found["periods"]["open",] > 0
    assert found["sealed_seconds"] == {(): 0}


def test_a_month_that_is_closed_waits_for_nothing_and_its_events_are_told(world: World) -> None:
    world.receive(inbound("one", NUMBER, OCTOBER), at=RECEIVED)
    close(world, "2026-10")
    found = told(world)
    assert found["periods"]["closed",] == 1
    assert found["outbox_events"] == {(): 4}  # two tenants, the account's unassigned usage, the month itself
    assert found["outbox_oldest_seconds"][()] > 0
    assert found["unheard_statements"] == {(): 2 if heard_of_lately(world) else 0}
    assert found["statement_chain_breaks"] == {(): 0}


def heard_of_lately(world: World) -> bool:
    """Whether October 2026 is among the last three months, as this test runs."""
    return Period.of(world.query("select now() as now")[0].now).plus(-3) <= Period.parse("2026-10")


def test_a_statement_that_was_taken_out_of_the_chain_or_changed_in_it_shows(world: World) -> None:
    close(world, "2026-10")
    assert told(world)["statement_chain_breaks"] == {(): 0}
    with world.engine.begin() as connection:  # as the owner of the tables can, and nobody else
        connection.execute(text("alter table statements disable trigger all"))
        connection.execute(text("update statements set sha256 = repeat('0', 64) where sequence = 1"))
        connection.execute(text("delete from statements where sequence = 2"))
    assert told(world)["statement_chain_breaks"] == {(): 2}


def test_each_invoice_state_is_told_even_where_no_invoice_is_in_it(world: World) -> None:
    found = told(world)
    assert found["invoices"]["failed",] == 0
    assert found["invoice_notices"]["untaxed",] == 0
    assert found["unheard_statements"] == {(): 0}


@pytest.mark.parametrize(
    ("readings", "duties"), [(worker_readings, ("ingest", "close")), (invoicer_readings, ("invoicing",))]
)
def test_the_rights_that_a_service_has_for_its_work_are_enough_for_what_it_tells(
    world: World,
    database_url: str,
    readings: Callable[[Settings, Engine], Sequence[Reading]],
    duties: tuple[str, ...],
) -> None:
    user = f"teller_{world.engine.url.database}"
    with world.engine.begin() as connection:
        connection.execute(text(f"create role {user} login"))
        for duty in duties:
            connection.execute(text(f"grant tenant_billing_{duty} to {user}"))
    engine = connect(database_url.replace("postgres@", f"{user}@"), application_name="test")
    try:
        with engine.connect() as connection:
            assert connection.scalar(text("select current_user")) == user
        for reading in readings(world.settings, engine):
            reading.read()
    finally:
        engine.dispose()
        with world.engine.begin() as connection:
            connection.execute(text(f"drop role {user}"))


def test_every_metric_that_a_process_counts_is_moved_somewhere() -> None:
    counted = {name for name, value in vars(instruments).items() if isinstance(value, MetricWrapperBase)}
    source = "".join(
        file.read_text()
        for file in PIPELINE.rglob("*.py")
        if file.name not in {"catalogue.py", "__init__.py"}
    )
    moved = set(re.findall(r"\b([A-Z_]+)\.(?:labels|inc|observe|time)\(", source))
    assert counted - moved == set()


def test_every_metric_read_from_the_database_is_told(world: World) -> None:
    world.receive(b"not json", at=RECEIVED)
    installation = {catalogue.Source.BY_WORKER, catalogue.Source.BY_INVOICER}
    wanted = {metric.name for metric in catalogue.CATALOGUE if metric.source in installation}
    fees = {"phantom_fees_total", "phantom_fee_amount_total"}  # no currency yet
    kafka = {"lag_records", "lag_seconds", "offset_gap_records_total"}
    assert told(world).keys() == wanted - fees - kafka


def lag_watch(world: World, logs: Logs, clock: Clock, *owned: int) -> LagWatch:
    partitions = frozenset(("calls.raw", partition) for partition in owned)
    return LagWatch(world.engine, logs, ["calls.raw"], lambda: partitions, clock)


def values(watch: LagWatch) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for metric, labels, value in watch.read():
        found.setdefault(metric.name, {})[labels] = value
    return found


def test_lag_is_the_log_against_the_stored_position_also_of_partitions_that_nobody_reads(
    world: World,
) -> None:
    world.receive(inbound("one", NUMBER, OCTOBER), inbound("two", NUMBER, OCTOBER), at=RECEIVED)
    found = values(lag_watch(world, Logs(p0=5, p1=7), Clock()))
    assert found["lag_records"] == {("calls.raw", "0"): 3, ("calls.raw", "1"): 7}
    assert found["lag_seconds"]["calls.raw", "0"] > 0
    assert found["stuck_seconds"] == {(): 0}


def test_a_partition_without_unread_records_has_no_lag_however_long_ago_its_last_one_came(
    world: World,
) -> None:
    world.receive(inbound("one", NUMBER, OCTOBER), at=RECEIVED)
    logs = Logs(p0=1)
    watch = lag_watch(world, logs, Clock())
    assert values(watch)["lag_seconds"] == {("calls.raw", "0"): 0}
    logs.of["calls.raw", 0] = 2
    [seconds] = values(watch)["lag_seconds"].values()
    assert seconds < 3600  # it came after we saw the end, not when the last one did


def test_a_partition_of_ours_is_stuck_while_it_has_unread_records_and_does_not_move(world: World) -> None:
    clock, logs = Clock(), Logs(p0=5, p1=5)
    watch = lag_watch(world, logs, clock, 0)
    values(watch)
    clock.seconds = 100
    assert values(watch)["stuck_seconds"] == {(): 100}
    world.receive(inbound("one", NUMBER, OCTOBER), at=RECEIVED)
    assert values(watch)["stuck_seconds"] == {(): 0}  # it moved
    clock.seconds = 200
    assert values(watch)["stuck_seconds"] == {(): 100}
    logs.of["calls.raw", 0] = 1
    assert values(watch)["stuck_seconds"] == {(): 0}  # all is read


def test_an_outage_is_no_standstill(world: World) -> None:
    clock, logs = Clock(), Logs(p0=5)
    watch = lag_watch(world, logs, clock, 0)
    values(watch)
    clock.seconds, logs.away = 500, True
    with pytest.raises(TimeoutError):
        watch.read()
    assert watch.stuck_seconds == 0
    clock.seconds, logs.away = 501, False
    assert values(watch)["stuck_seconds"] == {(): 0}


def test_records_that_kafka_dropped_stay_told(world: World) -> None:
    with world.engine.begin() as connection:
        position = position_store.ensure_position(connection, "calls.raw", 0, 0)
        position_store.skip_gap(connection, position, 12)
    found = values(lag_watch(world, Logs(p0=12), Clock()))
    assert found["offset_gap_records_total"] == {("calls.raw", "0"): 12}


def test_what_is_read_can_be_told_of_partitions_that_were_read_and_of_those_that_were_not(
    world: World,
) -> None:
    world.receive(inbound("a", NUMBER, OCTOBER), at=RECEIVED)
    samples = lag_watch(world, Logs(p0=1, p1=1), Clock(), 0, 1).read()
    assert {type(sample.value) for sample in samples} <= {int, float}
    assert {family.name for family in families(samples)} >= {
        "tenant_billing_lag_records",
        "tenant_billing_offset_gap_records",
    }


def test_a_reading_that_fails_is_told_and_takes_no_other_with_it() -> None:
    clock, calls = Clock(), []

    def fails() -> list[Sample]:
        calls.append(clock.seconds)
        if clock.seconds > 0:
            raise TimeoutError
        return [Sample(catalogue.OUTBOX, (), 7)]

    works = Reading("works", 10, lambda: [Sample(catalogue.REFUSED_EVENTS, (), clock.seconds)])
    group = [Reading("fails", 10, fails), works]
    observer = Observer([group], clock)

    def scraped() -> dict[str, float]:
        observer.read_due(group)
        return {
            sample.name + "".join(sample.labels.values()): sample.value
            for each in observer.collect()
            for sample in each.samples
        }

    up, events = "tenant_billing_reading_up", "tenant_billing_outbox_events"
    assert scraped() == {
        events: 7,
        "tenant_billing_refused_events": 0,
        up + "fails": 1,
        up + "works": 1,
    }
    clock.seconds = 10
    assert scraped() == {
        events: 7,
        "tenant_billing_refused_events": 10,
        up + "fails": 0,
        up + "works": 1,
    }
    clock.seconds = 31
    assert events not in scraped()  # too old to be told
    assert calls == [0, 10, 31]


@given(st.lists(st.text(max_size=50), max_size=100))
def test_whatever_a_reason_is_labels_stay_few_and_are_never_what_a_record_says(words: list[str]) -> None:
    label = bounded(words)
    told_words = {label[word] for word in words}
    assert len(told_words) <= words_max + 1
    assert all(word.replace("_", "").isalpha() and word.isascii() for word in told_words - {""})
    assert all(label[word] in {word, OTHER} for word in words)


def test_values_that_share_their_labels_are_added_up() -> None:
    samples = [Sample(catalogue.QUARANTINED, (OTHER,), value) for value in (3, 4)]
    [family] = families(samples)
    assert [sample.value for sample in family.samples] == [7]

"""Where reading begins, and what is said where it cannot: no hole in a log, and no other log, goes unnoticed."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from faust.types import TP
from sqlalchemy import text
from structlog.testing import capture_logs

from deploy.stack.kafka import RealKafka
from pipeline import place_watch
from pipeline.cli import app as command_line
from pipeline.cli.output import Refused
from pipeline.place_watch import look_at_places
from pipeline.position_store import partition_states, positions_of
from pipeline.positions import PositionBeyondLogError
from pipeline.topic_ids import KafkaTopicIds
from rollup.conservation_store import conservation
from tests.acceptance.test_workers import NUMBER, OCTOBER, Carrier, wait_until
from tests.faults.running import running_worker
from tests.faults.test_agents import settings_of
from tests.world import inbound

pytestmark = pytest.mark.kafka


def calls(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        inbound(f"{index:05}", NUMBER, OCTOBER + timedelta(seconds=index))
        for index in range(first, first + count)
    ]


def produce_to(carrier: Carrier, partition: int, values: list[dict[str, Any]] | list[bytes]) -> None:
    for value in values:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        carrier._producer.produce(carrier.topics["calls"], body, partition=partition)
    assert carrier._producer.flush(30) == 0


def drop_before(kafka: RealKafka, topic: str, offset: int, partition: int = 0) -> None:
    """What retention does: the log begins at an offset now."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for done in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        done.result(30)


def gap(carrier: Carrier) -> int:
    with carrier.world.engine.connect() as connection:
        assert conservation(connection).holds
        return conservation(connection).gap


def command(carrier: Carrier, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Run a command of `tenant-billing` in this process."""
    for name, value in carrier.environment.items():
        if name.startswith(("DATABASE", "KAFKA", "TENANT")):
            monkeypatch.setenv(name, value)
    command_line(list(words), standalone_mode=False)


def test_a_partition_without_a_position_is_read_from_the_earliest_record_there_is(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    produce_to(carrier, 0, calls(10))
    drop_before(real_kafka, carrier.topics["calls"], 4)
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 6)
    assert gap(carrier) == 0  # what nobody was to read is no hole


def test_records_that_kafka_dropped_before_they_were_read_are_counted_and_told(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    produce_to(carrier, 0, calls(4))
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 4)
    produce_to(carrier, 0, calls(6, first=4))
    drop_before(real_kafka, carrier.topics["calls"], 7)
    with capture_logs() as said, running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 7)
    [told] = [each for each in said if each["event"] == "offset_gap"]
    assert (told["log_level"], told["partition"], told["first"], told["records"]) == ("error", 0, 4, 3)
    assert gap(carrier) == 3
    with carrier.world.engine.connect() as connection:
        states = partition_states(connection, [carrier.topics["calls"]])
    assert {state.partition: state.gap_records for state in states} == {0: 3, 1: 0}


def test_a_hole_that_opens_while_a_worker_reads_is_counted_too(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    partition = TP(carrier.topics["calls"], 0)
    settings = settings_of(carrier, fetch_bytes_max=65_536)
    with capture_logs() as said, running_worker(settings, carrier.world.engine) as app:
        wait_until(lambda: carrier.position(0) == 0)
        app.loop.call_soon_threadsafe(app.consumer.pause_partitions, {partition})
        produce_to(carrier, 0, calls(3000))
        drop_before(real_kafka, partition.topic, 2900)
        app.loop.call_soon_threadsafe(app.consumer.resume_partitions, {partition})
        wait_until(lambda: carrier.position(0) == 3000)
    assert [each["event"] for each in said].count("offset_gap") == 1
    assert carrier.received() + gap(carrier) == 3000
    assert gap(carrier) > 0


def test_a_position_above_the_logs_end_is_refused_with_the_command_that_resolves_it(
    carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = carrier.topics["calls"]
    produce_to(carrier, 0, calls(10))
    with carrier.world.engine.begin() as connection:
        connection.execute(
            text("insert into stream_positions (topic, partition, next_offset) values (:topic, 0, 11)"),
            {"topic": topic},
        )
    with capture_logs() as said, running_worker(settings_of(carrier), carrier.world.engine) as app:
        wait_until(lambda: app.should_stop)
    [told] = [each["error"] for each in said if each["event"] == "position_refused"]
    assert f"tenant-billing position reset {topic} 0 --to-start" in told
    assert carrier.received() == 0
    command(carrier, monkeypatch, "position", "reset", topic, "0", "--to-start")
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 10)
    with pytest.raises(Refused, match="nothing to reset"):
        command(carrier, monkeypatch, "position", "reset", topic, "--to-start")


def test_a_topic_that_is_gone_is_given_up_by_command_and_one_that_exists_is_not(
    carrier: Carrier,
    real_kafka: RealKafka,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = carrier.topics["calls"]
    produce_to(carrier, 0, [json.dumps(each).encode() for each in calls(3)])
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 3)
    with pytest.raises(Refused, match="exists"):
        command(carrier, monkeypatch, "position", "retire", topic, "--gone")
    remove(real_kafka, topic)
    capsys.readouterr()
    command(carrier, monkeypatch, "position", "retire", topic, "--gone")
    assert f"{topic}[0] is given up" in capsys.readouterr().err
    with pytest.raises(Refused, match="nothing was ever read"):
        command(carrier, monkeypatch, "position", "retire", topic, "--gone")
    assert carrier.received() == 3


def test_a_topic_that_was_made_anew_is_refused_though_its_log_is_long_enough(
    carrier: Carrier,
    real_kafka: RealKafka,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = carrier.topics["calls"]
    produce_to(carrier, 0, [b"unreadable", *(json.dumps(each).encode() for each in calls(4))])
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 5)
    make_anew(real_kafka, topic)
    produce_to(carrier, 0, [b"unreadable again", *(json.dumps(each).encode() for each in calls(8, first=2))])
    with capture_logs() as said, running_worker(settings_of(carrier), carrier.world.engine) as app:
        wait_until(lambda: app.should_stop)
    [told] = [each["error"] for each in said if each["event"] == "position_refused"]
    assert f"tenant-billing position reset {topic} " in told
    assert carrier.received() == 5
    capsys.readouterr()
    command(carrier, monkeypatch, "position", "list", "--json")
    listed = {
        each["partition"]: each for each in json.loads(capsys.readouterr().out) if each["topic"] == topic
    }
    assert (listed[0]["next_offset"], listed[0]["log_end"]) == (5, 9)
    assert "this is topic" in listed[0]["trouble"]
    command(carrier, monkeypatch, "position", "reset", topic, "--to-start")
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 5 + 9)
    assert carrier.world.outcomes() == {
        ("posted", ""): 10,
        ("duplicate", ""): 2,
        ("quarantined", "unreadable"): 2,
    }
    assert gap(carrier) == 0
    kept = carrier.world.query(
        "select q.position_id, q.kafka_offset, q.value from quarantine q order by q.id"
    )
    assert [(row.kafka_offset, bytes(row.value)) for row in kept] == [
        (0, b"unreadable"),
        (0, b"unreadable again"),
    ]
    assert kept[0].position_id != kept[1].position_id
    with carrier.world.engine.connect() as connection:
        assert positions_of(connection, topic)[0].next_offset == 9


def test_a_worker_without_a_database_at_its_start_finds_its_places_when_there_is_one(
    carrier: Carrier,
) -> None:
    carrier.produce("calls", *calls(10))
    with carrier.world.engine.begin() as connection:
        connection.execute(text("alter table stream_positions rename to stream_positions_away"))
    with capture_logs() as said, running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: [each["event"] for each in said].count("place_not_found") > 1)
        with carrier.world.engine.begin() as connection:
            connection.execute(text("alter table stream_positions_away rename to stream_positions"))
        wait_until(lambda: carrier.received() == 10)


@pytest.mark.parametrize("longer", [True, False], ids=["longer", "shorter"])
def test_a_topic_made_anew_under_a_running_worker_is_refused_while_it_runs(
    carrier: Carrier, real_kafka: RealKafka, monkeypatch: pytest.MonkeyPatch, *, longer: bool
) -> None:
    monkeypatch.setattr(place_watch, "look_interval_seconds", 0.5)
    partition = TP(carrier.topics["calls"], 0)
    produce_to(carrier, 0, calls(10))
    with capture_logs() as said, running_worker(settings_of(carrier), carrier.world.engine) as app:
        wait_until(lambda: carrier.received() == 10)
        make_anew(real_kafka, partition.topic)
        produce_to(carrier, 0, calls(20 if longer else 5, first=100))
        wait_until(lambda: app.should_stop)
    [told] = [each["error"] for each in said if each["event"] == "position_refused"]
    assert f"tenant-billing position reset {partition.topic} 0 --to-start" in told
    assert carrier.received() == 10
    command(carrier, monkeypatch, "position", "reset", partition.topic, "--to-start")
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == (30 if longer else 15))
    assert carrier.world.outcomes() == {("posted", ""): 30 if longer else 15}


def test_where_kafka_tells_no_ids_a_log_that_ends_too_early_tells_while_a_worker_runs(
    carrier: Carrier,
) -> None:
    produce_to(carrier, 0, calls(10))
    settings = settings_of(carrier)
    with running_worker(settings, carrier.world.engine):
        wait_until(lambda: carrier.received() == 10)
    kafka, names = KafkaTopicIds(settings.kafka_bootstrap_servers), list(carrier.topics.values())
    look_at_places(carrier.world.engine, kafka, names, ids_told=False)  # all is well
    with carrier.world.engine.begin() as connection:
        connection.execute(text("update stream_positions set next_offset = 11 where next_offset = 10"))
    with pytest.raises(PositionBeyondLogError, match="11, but Kafka's log ends at 10"):
        look_at_places(carrier.world.engine, kafka, names, ids_told=False)


def test_an_outage_is_no_reason_to_refuse_a_place(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_watch, "look_interval_seconds", 0.1)
    asked = KafkaTopicIds.ends
    outages = iter(range(3))

    def away(topics: KafkaTopicIds, tps: Any) -> Any:
        if next(outages, None) is not None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return asked(topics, tps)

    monkeypatch.setattr(KafkaTopicIds, "ends", away)
    with capture_logs() as said, running_worker(settings_of(carrier), carrier.world.engine) as app:
        wait_until(lambda: [each["event"] for each in said].count("places_not_looked_at") == 3)
        produce_to(carrier, 0, calls(10))
        wait_until(lambda: carrier.received() == 10)
        assert not app.should_stop


def test_topics_that_the_brokers_did_not_know_at_first_are_read_as_soon_as_they_do(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    """So it is for a moment while a broker starts: a group that is formed then has nothing to share out."""
    topic = carrier.topics["calls"]
    remove(real_kafka, topic)
    with running_worker(settings_of(carrier), carrier.world.engine):
        threading.Event().wait(3)  # until the group has been formed
        real_kafka.create_topics({topic: 2})
        produce_to(carrier, 0, calls(10))
        wait_until(lambda: carrier.received() == 10)


def make_anew(kafka: RealKafka, topic: str) -> None:
    """Delete a topic and create it again, with two partitions."""
    remove(kafka, topic)
    kafka.create_topics({topic: 2})


def remove(kafka: RealKafka, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for done in admin.delete_topics([topic]).values():
        done.result(30)
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics)

"""The outbox is published in order, at least once (C5)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from sqlalchemy import Engine, text

from pipeline.boundaries import BoundariesUnavailableError, KafkaBoundaries
from pipeline.publisher import publish_lines
from pipeline.relay import Delivered, relay_once, relay_producer, run_relay
from pipeline.settings import Settings
from schemas.events import cloud_event_headers

NOW = datetime(2026, 11, 3, tzinfo=UTC)


class Broker:
    """A producer whose broker refuses chosen keys, and forgets to answer for others."""

    def __init__(self, refused: set[str] = frozenset(), silent: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.refused = refused
        self.silent = silent
        self.taken: list[str] = []
        self._waiting: list[tuple[str, Delivered]] = []

    def produce(self, topic: str, *, key: bytes, on_delivery: Delivered, **_: Any) -> None:
        self._waiting.append((f"{topic}:{key.decode()}", on_delivery))

    def flush(self, timeout: float) -> int:  # noqa: ARG002 (the protocol)
        waiting, self._waiting = self._waiting, []
        for name, delivered in waiting:
            if name in self.refused:
                delivered(KafkaError(KafkaError._MSG_TIMED_OUT), None)
            else:
                self.taken.append(name)
                if name not in self.silent:
                    delivered(None, Taken(len(self.taken)))
        return 0


class Taken:
    """Where a record was put."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


@pytest.fixture
def outbox(database: Engine) -> Engine:
    with database.begin() as connection:
        for topic, key in (("s", "a/1"), ("s", "a/2"), ("p", "a"), ("s", "b/1"), ("p", "b")):
            headers = cloud_event_headers(f"id-{key}", "test.v1", key, NOW)
            connection.execute(
                text(
                    "insert into outbox (topic, key, headers, value, made_at) "
                    "values (:topic, :key, cast(:headers as jsonb), :value, :now)"
                ),
                {
                    "topic": topic,
                    "key": key,
                    "headers": orjson.dumps(headers).decode(),
                    "value": b"{}",
                    "now": NOW,
                },
            )
    return database


def waiting(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("select topic, key from outbox where published_at is null order by id")
        )
        return [f"{row.topic}:{row.key}" for row in rows]


def test_events_are_published_in_order_and_only_once_when_all_goes_well(outbox: Engine) -> None:
    broker = Broker()
    assert relay_once(outbox, broker) == 5
    assert relay_once(outbox, broker) == 0
    assert broker.taken == ["s:a/1", "s:a/2", "p:a", "s:b/1", "p:b"]
    with outbox.connect() as connection:
        rows = connection.execute(text("select kafka_partition, kafka_offset from outbox order by id")).all()
    assert rows == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]


def test_a_months_event_waits_until_its_last_statement_is_acknowledged(outbox: Engine) -> None:
    broker = Broker(refused={"s:a/2"})
    assert relay_once(outbox, broker) == 1
    assert broker.taken == ["s:a/1"]
    broker.refused = set()
    relay_once(outbox, broker)
    assert broker.taken == ["s:a/1", "s:a/2", "p:a", "s:b/1", "p:b"]


def test_an_event_whose_acknowledgement_was_lost_is_sent_again(outbox: Engine) -> None:
    broker = Broker(silent={"s:a/2"})
    relay_once(outbox, broker)
    broker.silent = set()
    relay_once(outbox, broker)
    assert broker.taken == ["s:a/1", "s:a/2", "s:a/2", "p:a", "s:b/1", "p:b"]
    assert waiting(outbox) == []


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    """The embedded broker's address."""
    cluster = Producer({"test.mock.num.brokers": 1})
    brokers = cluster.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    cluster.flush(1)


def read(bootstrap: str, topic: str, partitions: int = 4) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    messages, ends = [], 0
    while ends < partitions:
        message = consumer.poll(5)
        assert message is not None
        if message.error():
            ends += 1
        else:
            messages.append(message)
    consumer.close()
    return messages


def test_a_subscriber_reads_cloud_events(outbox: Engine, bootstrap: str) -> None:
    assert relay_once(outbox, relay_producer(bootstrap)) == 5
    (first, _) = sorted(read(bootstrap, "p"), key=lambda message: message.key())
    headers = {name: value.decode() for name, value in first.headers()}
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce_")}
    attributes["time"] = datetime.fromisoformat(str(attributes["time"]))
    event = CloudEvent(attributes, first.value())
    assert (event.get_id(), event.get_type(), event.get_subject()) == ("id-a", "test.v1", "a")


def test_lines_are_published_and_the_brokers_acknowledgements_counted(bootstrap: str) -> None:
    seen: list[tuple[int, int]] = []
    lines = [b'{"id": %d}\n' % number for number in range(250)] + [b"\n", b"  \r\n"]
    report = publish_lines(
        bootstrap,
        "lines",
        lines,
        key_of=lambda line: line[-4:],
        progress=lambda sent, acknowledged: seen.append((sent, acknowledged)),
        in_flight_max=50,
    )
    assert (report.sent, report.acknowledged, report.failed) == (250, 250, 0)
    assert seen[-1] == (250, 250)
    assert sorted(message.value() for message in read(bootstrap, "lines")) == sorted(
        line.strip() for line in lines[:250]
    )


def test_where_nothing_is_later_the_boundary_is_the_end(bootstrap: str) -> None:
    publish_lines(bootstrap, "ends", [b"x"] * 100)
    source = KafkaBoundaries(bootstrap, require_log_append_time=False)
    found = source.boundaries(["ends"], datetime(2040, 1, 1, tzinfo=UTC))
    assert set(found) == {("ends", number) for number in range(4)}
    assert sum(found.values()) == 100


def test_a_broker_that_does_not_tell_its_timestamp_type_is_not_trusted(bootstrap: str) -> None:
    publish_lines(bootstrap, "ends", [b"x"])
    with pytest.raises(BoundariesUnavailableError):
        KafkaBoundaries(bootstrap, answer_seconds_max=2).boundaries(["ends"], NOW)


def test_a_topic_that_does_not_exist_has_no_boundary(bootstrap: str) -> None:
    source = KafkaBoundaries(bootstrap, require_log_append_time=False)
    with pytest.raises(BoundariesUnavailableError, match=r"topic no\.such\.topic"):
        source.boundaries(["no.such.topic"], NOW)


def test_the_relay_publishes_until_it_is_told_to_stop(outbox: Engine, bootstrap: str) -> None:
    stop = threading.Event()
    settings = Settings(kafka_bootstrap_servers=bootstrap, relay_interval_seconds=0.05)
    relay = threading.Thread(target=run_relay, args=(settings, outbox, stop))
    relay.start()
    for _ in range(200):
        if not waiting(outbox):
            break
        stop.wait(0.05)
    stop.set()
    relay.join(10)
    assert not relay.is_alive()
    assert waiting(outbox) == []

"""What both brokers must do for the demo and the tests, and what only Apache Kafka does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    Message,
    Producer,
    TopicPartition,
)

from deploy.stack import kafka as kafka_module
from deploy.stack.broker import Broker, BrokerUnavailableError
from deploy.stack.kafka import RealKafka, free_port
from pipeline.clock import utc_now
from tests.conftest import MakeTopics

_wait_seconds_max = 20.0


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> Broker:
    name = {"embedded": "embedded_broker", "apache": "real_kafka"}[request.param]
    found: Broker = request.getfixturevalue(name)
    return found


def test_records_come_back_in_order_from_each_partition(broker: Broker) -> None:
    broker.create_topics({"round-trip": 3})
    _produce(broker, "round-trip", (f"{number}".encode() for number in range(100)), partition=2)
    received = _read(broker, "round-trip", 100, partition=2)
    assert [message.value() for message in received] == [f"{number}".encode() for number in range(100)]
    assert [message.offset() for message in received] == list(range(100))


def test_a_group_goes_on_where_it_committed(broker: Broker) -> None:
    broker.create_topics({"group": 1})
    _produce(broker, "group", [b"first", b"second"])
    assert _read_as_group(broker, "group", 1) == [b"first"]
    assert _read_as_group(broker, "group", 1) == [b"second"]


def test_a_topic_made_twice_is_left_alone_unless_its_partitions_differ(broker: Broker) -> None:
    broker.create_topics({"twice": 2})
    broker.create_topics({"twice": 2})
    with pytest.raises(BrokerUnavailableError, match=r"topic twice.* has 2 partitions, not 3"):
        broker.create_topics({"twice": 3})


def test_a_topic_needs_a_partition(broker: Broker) -> None:
    with pytest.raises(BrokerUnavailableError, match="partition"):
        broker.create_topics({"none": 0})


def test_each_call_makes_topics_of_its_own(topics: MakeTopics, kafka: Broker) -> None:
    one, other = topics(calls=2, sip=1), topics(calls=2)
    assert one["calls"] != other["calls"]
    _produce(kafka, one["calls"], [b"mine"], partition=1)
    assert [message.value() for message in _read(kafka, one["calls"], 1, partition=1)] == [b"mine"]


@pytest.mark.kafka
def test_the_broker_stamps_records_whatever_the_switch_says(
    real_kafka: RealKafka, topics: MakeTopics
) -> None:
    name = topics(calls=1)["calls"]
    before = utc_now() - timedelta(milliseconds=1)  # stamps are whole milliseconds
    _produce(real_kafka, name, [b"resent"], timestamp=1_577_836_800_000)  # 2020
    (message,) = _read(real_kafka, name, 1)
    kind, milliseconds = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert before <= datetime.fromtimestamp(milliseconds / 1000, UTC) <= utc_now()


@pytest.mark.kafka
def test_the_broker_tells_the_first_offset_at_or_after_a_time(
    real_kafka: RealKafka, topics: MakeTopics
) -> None:
    name = topics(calls=1)["calls"]
    for value in (b"before", b"at", b"after"):
        _produce(real_kafka, name, [value])
        time.sleep(0.01)
    stamps = [message.timestamp()[1] for message in _read(real_kafka, name, 3)]
    assert _offset_at(real_kafka, name, stamps[1]) == 1
    assert _offset_at(real_kafka, name, stamps[1] + 1) == 2
    assert _offset_at(real_kafka, name, stamps[2] + 1) == OFFSET_END


@pytest.mark.kafka
def test_a_broker_killed_and_started_again_keeps_its_records_and_address(
    real_kafka: RealKafka, tmp_path: Path
) -> None:
    with RealKafka(tmp_path / "a folder") as broker:
        broker.create_topics({"kept": 1})
        _produce(broker, "kept", [b"before the crash"])
        address = broker.bootstrap_servers
        broker.kill()
        broker.start()
        assert broker.bootstrap_servers == address
        _produce(broker, "kept", [b"after it"])
        assert [message.value() for message in _read(broker, "kept", 2)] == [b"before the crash", b"after it"]


@pytest.mark.kafka
def test_a_broker_whose_port_was_taken_meanwhile_takes_another(
    real_kafka: RealKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter([real_kafka.port, *(free_port() for _ in range(3))])
    monkeypatch.setattr(kafka_module, "free_port", lambda: next(ports))
    with RealKafka() as broker:
        assert broker.port != real_kafka.port
        broker.create_topics({"mine": 1})


def _produce(
    broker: Broker, topic: str, values: Iterable[bytes], *, partition: int = 0, timestamp: int = 0
) -> None:
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "enable.idempotence": True, "log_level": 0}
    )
    for value in values:
        producer.produce(topic, value, partition=partition, timestamp=timestamp)
    assert producer.flush(_wait_seconds_max) == 0


def _read(broker: Broker, topic: str, count: int, *, partition: int = 0) -> list[Message]:
    """The partition's first `count` records."""
    consumer = _consumer(broker, group="unused")
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    received: list[Message] = consumer.consume(count, _wait_seconds_max)
    consumer.close()
    assert [message.error() for message in received] == [None] * count
    return received


def _read_as_group(broker: Broker, topic: str, count: int) -> list[bytes]:
    consumer = _consumer(broker, group="readers")
    consumer.subscribe([topic])
    values = [message.value() for message in consumer.consume(count, _wait_seconds_max)]
    consumer.commit(asynchronous=False)
    consumer.close()
    return values


def _offset_at(broker: Broker, topic: str, milliseconds: int) -> int:
    consumer = _consumer(broker, group="unused")
    (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, milliseconds)], timeout=_wait_seconds_max)
    consumer.close()
    offset: int = found.offset
    return offset


def _consumer(broker: Broker, *, group: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 2000,  # how long the embedded broker waits for a group's former members
            "log_level": 0,
        }
    )

"""What a month waits for, as Apache Kafka tells it: idle, empty, emptied and never-consumed partitions (C1)."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine

from deploy.stack.kafka import RealKafka
from pipeline.boundaries import BoundariesUnavailableError, KafkaBoundaries
from pipeline.closer import Closed, Waiting, close_month
from pipeline.settings import InputTopic, Settings
from rollup.months_store import BlockerKind
from schemas.periods import Period
from tests.conftest import MakeTopics
from tests.services import service
from tests.world import World, inbound

NUMBER = "+12125550101"
pytestmark = pytest.mark.kafka


class Sender:
    """Produces single records and says when the broker stamped each."""

    def __init__(self, kafka: RealKafka, **settings: object) -> None:
        self.producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 0, **settings})

    def send(
        self, topic: str, partition: int, value: bytes = b"x", timestamp: datetime | None = None
    ) -> datetime:
        stamped: list[datetime] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            assert error is None
            stamped.append(datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC))

        at = {} if timestamp is None else {"timestamp": int(timestamp.timestamp() * 1000)}
        self.producer.produce(topic, value, partition=partition, on_delivery=delivered, **at)
        assert self.producer.flush(30) == 0
        return stamped[0]


@pytest.fixture
def sender(real_kafka: RealKafka) -> Sender:
    return Sender(real_kafka)


@pytest.fixture
def topic(real_kafka: RealKafka, topics: MakeTopics) -> str:
    assert real_kafka.real
    return topics(boundaries=4)["boundaries"]


def test_a_boundary_is_the_first_later_record_or_the_end(
    real_kafka: RealKafka, sender: Sender, topic: str
) -> None:
    sender.send(topic, 0)
    last_before = max(sender.send(topic, 0), sender.send(topic, 1), sender.send(topic, 3))
    cutoff = last_before + timedelta(milliseconds=2)
    threading.Event().wait(0.01)
    assert sender.send(topic, 0) > cutoff
    sender.send(topic, 0)
    admin = AdminClient({"bootstrap.servers": real_kafka.bootstrap_servers})
    for deleted in admin.delete_records([TopicPartition(topic, 3, 1)]).values():
        deleted.result(30)
    found = KafkaBoundaries(real_kafka.bootstrap_servers).boundaries([topic], cutoff)
    assert found == {(topic, 0): 2, (topic, 1): 1, (topic, 2): 0, (topic, 3): 1}


def test_records_of_a_transaction_that_is_still_open_were_received_too(
    real_kafka: RealKafka, topic: str
) -> None:
    sender = Sender(real_kafka, **{"transactional.id": topic})
    sender.producer.init_transactions(30)
    sender.producer.begin_transaction()
    received_at = sender.send(topic, 0)
    found = KafkaBoundaries(real_kafka.bootstrap_servers).boundaries([topic], received_at + timedelta(days=1))
    assert found[topic, 0] == 1
    sender.producer.abort_transaction(30)


def test_a_topic_with_producers_clocks_is_refused(real_kafka: RealKafka, topic: str) -> None:
    own = f"{topic}-of-producers"
    real_kafka.create_topics({own: 1}, log_append_time=False)
    with pytest.raises(BoundariesUnavailableError, match="a cutoff needs LogAppendTime"):
        KafkaBoundaries(real_kafka.bootstrap_servers).boundaries([own], datetime(2026, 11, 1, tzinfo=UTC))


@pytest.fixture
def inputs(real_kafka: RealKafka, topic: str) -> list[dict[str, Any]]:
    """One input whose records carry the times that the test gives them."""
    name = f"{topic}-stamped"
    real_kafka.create_topics({name: 4}, log_append_time=False)
    return [{"topic": name, "kind": "calls"}]


def test_a_month_closes_once_every_partition_was_read_up_to_its_boundary(
    database: Engine,
    database_url: str,
    real_kafka: RealKafka,
    sender: Sender,
    inputs: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Partition 0 goes on after the cutoff, 1 is idle, 2 is empty; in 3 a transaction's marker came after the cutoff."""
    topic = inputs[0]["topic"]
    world = World(database, inputs=inputs)
    world.number(NUMBER, world.account(), None)
    month = Period(2026, 9)
    world.run("2026-09", "2027-12")
    during, after = month.starts_at + timedelta(days=3), month.ends_at + timedelta(days=3)

    def call(name: str) -> bytes:
        return json.dumps(inbound(name, NUMBER, during)).encode()

    sender.send(topic, 0, call("in time"), during)
    sender.send(topic, 0, call("late"), after)
    sender.send(topic, 1, call("idle"), during)
    marked = Sender(real_kafka, **{"transactional.id": topic})
    marked.producer.init_transactions(30)
    marked.producer.begin_transaction()
    marked.send(topic, 3, call("marked"), during)
    marked.producer.commit_transaction(30)

    settings = Settings(inputs=tuple(InputTopic(**each) for each in inputs))
    source = KafkaBoundaries(real_kafka.bootstrap_servers, require_log_append_time=False)
    pause = threading.Event()
    while source.boundaries([topic], datetime(2040, 1, 1, tzinfo=UTC))[topic, 3] < 2:
        pause.wait(0.05)  # the broker writes the marker after its word
    waiting = close_month(database, settings, source, month)
    assert isinstance(waiting, Waiting)
    assert [each.text for each in waiting.blockers if each.kind is BlockerKind.UNREAD] == [
        f"{topic}[0] has been read not at all, the boundary is 1",
        f"{topic}[1] has been read not at all, the boundary is 1",
        f"{topic}[3] has been read not at all, the boundary is 1",
    ]
    environment = {
        **os.environ,  # noqa: TID251 (passed on to the worker)
        "DATABASE_URL": database_url,
        "KAFKA_BOOTSTRAP_SERVERS": real_kafka.bootstrap_servers,
        "TENANT_BILLING_INPUTS": json.dumps(inputs),
        "TENANT_BILLING_CONSUMER_GROUP": topic,
        "TENANT_BILLING_REQUIRE_LOG_APPEND_TIME": "false",
        "TENANT_BILLING_CLOSER_INTERVAL_SECONDS": "0.2",
    }
    with service("worker", environment, tmp_path / "worker.log"):
        for _ in range(600):
            if world.query(
                "select period from periods where period = :first and state = 'closed'", first=month.first_day
            ):
                break
            pause.wait(0.1)
    assert isinstance(close_month(database, settings, source, month), Closed)
    [stated] = world.query("select body from statements where period = :first", first=month.first_day)
    assert json.loads(bytes(stated.body))["totals"]["attempts"] in {3, 4}
    assert len(world.ledger()) == 4
    assert {row.record_id for row in world.ledger() if not row.late} >= {"in time", "idle", "marked"}

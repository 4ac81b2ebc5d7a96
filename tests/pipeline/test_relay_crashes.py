"""A relay may be killed or frozen anywhere: consumers hear each event at least once, a month after its statements (C5)."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from sqlalchemy import Engine, text

from deploy.stack.broker import Broker
from pipeline.relay import relay_once, relay_producer
from schemas.events import cloud_event_headers
from tests.conftest import MakeTopics
from tests.pipeline.stopping import killed_at, program, until, waiting_point, waits

NOW = datetime(2026, 11, 3, tzinfo=UTC)
STATEMENTS = [f"statement-{number}" for number in range(6)]
PERIODS = ["period-a", "period-b"]


@pytest.fixture
def names(database: Engine, topics: MakeTopics) -> dict[str, str]:
    """Topics of the test's own, and an outbox with six statements and two months to publish there."""
    names = topics(statements=1, periods=1)
    with database.begin() as connection:
        for topic, event in [("statements", each) for each in STATEMENTS] + [
            ("periods", each) for each in PERIODS
        ]:
            headers = cloud_event_headers(event, "test.v1", event, NOW)
            connection.execute(
                text(
                    "insert into outbox (topic, key, headers, value, made_at) "
                    "values (:topic, :key, cast(:headers as jsonb), '{}', now())"
                ),
                {"topic": names[topic], "key": event, "headers": orjson.dumps(headers).decode()},
            )
    return names


def relay_arguments(database_url: str, kafka: Broker) -> list[str]:
    return ["tests.pipeline.program", "relay", database_url, kafka.bootstrap_servers]


def unpublished(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(
            connection.execute(text("select count(*) from outbox where published_at is null")).scalar_one()
        )


def heard(kafka: Broker, topic: str) -> list[Any]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "subscriber",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    messages: list[Any] = []
    while True:
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            break
        messages.append(message)
    consumer.close()
    return messages


def first_heard(kafka: Broker, topic: str) -> dict[str, int]:
    """When a subscriber that deduplicates by `ce_id` hears each event, in the order of their first arrival."""
    first: dict[str, int] = {}
    for message in heard(kafka, topic):
        first.setdefault(dict(message.headers())["ce_id"].decode(), message.timestamp()[1])
    return first


def check(kafka: Broker, names: dict[str, str]) -> None:
    statements, periods = first_heard(kafka, names["statements"]), first_heard(kafka, names["periods"])
    assert (list(statements), list(periods)) == (STATEMENTS, PERIODS)
    assert max(statements.values()) <= min(periods.values())


@pytest.mark.parametrize("when", ["before update", "after update"])
def test_a_relay_killed_between_the_brokers_word_and_its_mark_is_followed_by_one_that_sends_again(
    database: Engine,
    database_url: str,
    kafka: Broker,
    names: dict[str, str],
    tmp_path: Path,
    when: str,
) -> None:
    killed_at(database, "outbox", when, relay_arguments(database_url, kafka), tmp_path / "log")
    assert unpublished(database) == 8
    assert len(heard(kafka, names["statements"])) == 6
    assert heard(kafka, names["periods"]) == []
    while relay_once(database, relay_producer(kafka.bootstrap_servers), 3):
        pass
    assert unpublished(database) == 0
    assert len(heard(kafka, names["statements"])) == 12
    check(kafka, names)


def test_a_frozen_relay_is_followed_by_another_and_does_no_harm_when_it_wakes(
    database: Engine, database_url: str, kafka: Broker, names: dict[str, str], tmp_path: Path
) -> None:
    """Frozen where it holds the job, the broker's word, and the rows that it is about to mark."""
    first_log, second_log = tmp_path / "first", tmp_path / "second"
    with waiting_point(database, "outbox", "before update"):
        first = program(relay_arguments(database_url, kafka), first_log)
        until(lambda: waits(database), first, first_log)
        os.kill(first.process.pid, signal.SIGSTOP)
    second = program(relay_arguments(database_url, kafka), second_log)
    until(lambda: unpublished(database) == 0, second, second_log)
    second.kill()
    os.kill(first.process.pid, signal.SIGCONT)
    until(lambda: "job_failed" in first_log.read_text(), first, first_log)
    with database.begin() as connection:
        connection.execute(
            text("update outbox set published_at = null where key = :key"), {"key": PERIODS[1]}
        )
    until(lambda: unpublished(database) == 0, first, first_log)
    first.kill()
    check(kafka, names)

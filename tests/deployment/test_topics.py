"""`topics create` and `topics check`: right topics are made, wrong ones refused with what is wrong and how to mend it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from deploy.stack.kafka import RealKafka
from pipeline.cli import main
from pipeline.settings import Settings
from pipeline.topics import FoundTopic, WantedTopic, troubles, wanted_topics
from tests.conftest import MakeTopics

Type = Callable[..., tuple[int, str, str]]

WANTED = WantedTopic(
    "calls.raw",
    log_append_time=True,
    partitions=None,
    partitions_when_new=6,
    replicas=3,
    retention_min=timedelta(days=7),
    retention=timedelta(days=14),
)
RIGHT = FoundTopic(
    6,
    3,
    {
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": "2",
        "retention.ms": str(7 * 24 * 3600 * 1000),
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
    },
)


def found(**settings: str) -> FoundTopic:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return replace(RIGHT, settings={**RIGHT.settings, **named})


def test_a_right_topic_has_no_troubles() -> None:
    assert troubles(WANTED, RIGHT) == ()
    assert troubles(WANTED, found(retention_ms="-1")) == ()
    assert troubles(replace(WANTED, log_append_time=False), found(message_timestamp_type="CreateTime")) == ()
    single = replace(RIGHT, replicas=1, settings={**RIGHT.settings, "min.insync.replicas": "1"})
    assert troubles(replace(WANTED, replicas=1), single) == ()


@pytest.mark.parametrize(
    ("topic", "wrong", "mend"),
    [
        (
            found(message_timestamp_type="CreateTime"),
            "broker's clock",
            "message.timestamp.type=LogAppendTime",
        ),
        (found(retention_ms="259200000"), "before a month", "retention.ms=604800000"),
        (found(retention_bytes="1000000"), "before they are read", "retention.bytes=-1"),
        (found(cleanup_policy="compact,delete"), "all but the last", "cleanup.policy=delete"),
        (found(min_insync_replicas="1"), "lost with a broker", "min.insync.replicas=2"),
        (found(min_insync_replicas="3"), "stops the switches", "min.insync.replicas=2"),
        (
            replace(RIGHT, replicas=2, settings={**RIGHT.settings}),
            "replicas, not 3",
            "kafka-reassign-partitions",
        ),
    ],
)
def test_each_trouble_says_what_is_wrong_and_how_to_mend_it(topic: FoundTopic, wrong: str, mend: str) -> None:
    said = troubles(WANTED, topic)
    assert any(wrong in trouble and mend in trouble for trouble in said), said


def test_partitions_that_were_asked_for_must_be_there() -> None:
    (few,) = troubles(replace(WANTED, partitions=12), RIGHT)
    assert "--alter --topic calls.raw --partitions 12" in few
    (many,) = troubles(replace(WANTED, partitions=3), RIGHT)
    assert "never takes partitions away" in many


def test_records_are_kept_for_longer_than_a_close_can_take() -> None:
    settings = Settings(grace_hours=240, quarantine_wait_hours_max=72)
    wanted = {each.name: each for each in wanted_topics(settings, {}, 3)}
    assert wanted["calls.raw"].retention_min == timedelta(hours=240 + 72) + timedelta(days=4)
    assert wanted["calls.raw"].retention == wanted["calls.raw"].retention_min
    assert wanted["statements.closed"].retention is None


@pytest.fixture
def type_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tenant-billing", "topics", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        structlog.reset_defaults()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.mark.kafka
def test_missing_topics_are_made_as_they_must_be_and_a_wrong_one_stops_everything(
    real_kafka: RealKafka, topics: MakeTopics, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = topics(wrong=1)["wrong"]  # takes its name from the run: no other test uses it
    admin = AdminClient({"bootstrap.servers": real_kafka.bootstrap_servers})
    names = {kind: f"{wrong}-{kind}" for kind in ("calls", "sip", "statements", "periods")}
    inputs = [{"topic": names["calls"], "kind": "calls"}, {"topic": names["sip"], "kind": "sip"}]
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", real_kafka.bootstrap_servers)
    monkeypatch.setenv("TENANT_BILLING_INPUTS", json.dumps(inputs))
    monkeypatch.setenv("TENANT_BILLING_STATEMENTS_TOPIC", names["statements"])
    monkeypatch.setenv("TENANT_BILLING_PERIODS_TOPIC", names["periods"])

    (made,) = admin.create_topics([NewTopic(names["sip"], 2, 1)]).values()
    made.result(20)
    until(lambda: names["sip"] in admin.list_topics(timeout=20).topics)
    code, _, err = type_("create", "--replication", "1")
    assert code == 1
    assert f"{names['sip']}: message.timestamp.type is CreateTime" in err
    assert names["calls"] not in admin.list_topics(timeout=20).topics

    (gone,) = admin.delete_topics([names["sip"]]).values()
    gone.result(20)
    until(lambda: names["sip"] not in admin.list_topics(timeout=20).topics)
    assert type_("check", "--replication", "1")[0] == 1
    asked = f"{names['calls']}=4"
    code, out, err = type_("create", "--replication", "1", "--partitions", asked, "--json")
    assert code == 0, err
    assert {row["topic"]: (row["state"], row["partitions"]) for row in json.loads(out)} == {
        names["calls"]: ("made", 4),
        names["sip"]: ("made", 6),
        names["statements"]: ("made", 3),
        names["periods"]: ("made", 3),
    }
    assert "right" in type_("create", "--replication", "1", "--partitions", asked)[1]
    resource = ConfigResource(ResourceType.TOPIC, names["calls"])
    (described,) = admin.describe_configs([resource]).values()
    assert described.result(20)["message.timestamp.type"].value == "LogAppendTime"
    assert type_("check")[0] == 1  # three replicas are what it takes outside a trial
    assert type_("check", "--partitions", "strangers=3")[0] == 2
    assert type_("check", "--partitions", "calls")[0] == 2


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


def test_a_broker_that_does_not_answer_is_a_refusal(type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("pipeline.topics._answer_seconds_max", 1.0)
    code, _, err = type_("check")
    assert code == 1
    assert "Kafka does not answer" in err

"""Whatever a producer does that Kafka allows, each record is counted once; what was aborted was never sent."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

import pytest
from confluent_kafka import Producer

from deploy.stack.kafka import RealKafka
from tests.acceptance.test_workers import NUMBER, OCTOBER, Carrier, wait_until
from tests.faults.running import running_worker
from tests.faults.test_agents import settings_of
from tests.faults.test_positions import calls, gap
from tests.world import inbound

pytestmark = pytest.mark.kafka

MEGABYTE: Final = 1024 * 1024


def producer(kafka: RealKafka, **settings: Any) -> Producer:
    return Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "message.max.bytes": 4 * MEGABYTE,
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
    )


def test_every_codec_with_keys_or_none_idempotent_or_not_reads_the_same(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    for place, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        sender = producer(real_kafka, compression_type=codec, enable_idempotence=bool(place % 2), linger_ms=5)
        for call in calls(200, first=200 * place):
            key = str(call["call_id"]).encode() if place % 2 else None
            sender.produce(carrier.topics["calls"], json.dumps(call).encode(), key=key)
        assert sender.flush(30) == 0
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 1000)
    assert carrier.world.outcomes() == {("posted", ""): 1000}
    assert len(carrier.world.ledger()) == 1000


def test_tombstones_and_messages_of_a_megabyte_are_neither_lost_nor_in_the_way(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    sender = producer(real_kafka)
    topic = carrier.topics["calls"]
    large = json.dumps(inbound("large", NUMBER, OCTOBER, recording="x" * MEGABYTE)).encode()
    damaged = b'{"id": "' + b"y" * MEGABYTE
    before, after = (json.dumps(inbound(name, NUMBER, OCTOBER)).encode() for name in ("before", "after"))
    for value in (before, large, None, damaged, large, None, after):
        sender.produce(topic, value, key=b"one", partition=0)
    assert sender.flush(60) == 0
    with running_worker(settings_of(carrier, fetch_bytes_max=65_536), carrier.world.engine):
        wait_until(lambda: carrier.received() == 7)
    assert carrier.world.outcomes() == {
        ("posted", ""): 3,
        ("duplicate", ""): 1,
        ("ignored", "tombstone"): 2,
        ("quarantined", "unreadable"): 1,
    }
    [kept] = carrier.world.query("select value, key from quarantine")
    assert (bytes(kept.value), bytes(kept.key)) == (damaged, b"one")


def test_transactions_committed_and_aborted_in_turn_and_a_partition_that_ends_in_a_control_record(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    """The last record of partition 0 is an abort's marker, that of partition 1 a commit's; and more comes later."""
    topic = carrier.topics["calls"]
    sender = producer(real_kafka, transactional_id=topic, compression_type="zstd")
    sender.init_transactions(30)
    number = 0
    with running_worker(settings_of(carrier), carrier.world.engine):
        for turn in range(4):
            for partition, aborted in ((0, False), (0, True), (1, True), (1, False)):
                sender.begin_transaction()
                for call in calls(20, first=number):
                    sender.produce(topic, json.dumps(call).encode(), partition=partition)
                number += 20
                assert sender.flush(30) == 0  # an abort would throw away what was not sent yet
                if aborted:
                    sender.abort_transaction(30)
                else:
                    sender.commit_transaction(30)
            ends = (turn + 1) * 42
            wait_until(lambda at=ends: carrier.position(0) == carrier.position(1) == at)  # type: ignore[misc]
    assert carrier.world.outcomes() == {("posted", ""): 4 * 40}
    assert gap(carrier) == 0


def test_a_transaction_left_open_is_waited_for_and_holds_up_its_own_partition_only(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    topic = carrier.topics["calls"]
    sender = producer(real_kafka, transactional_id=topic)
    sender.init_transactions(30)
    sender.begin_transaction()
    sender.produce(topic, json.dumps(inbound("open", NUMBER, OCTOBER)).encode(), partition=0)
    assert sender.flush(30) == 0
    plain = producer(real_kafka)
    for partition in (0, 1):
        behind = inbound(f"behind-{partition}", NUMBER, OCTOBER + timedelta(seconds=partition))
        plain.produce(topic, json.dumps(behind).encode(), partition=partition)
    assert plain.flush(30) == 0
    with running_worker(settings_of(carrier), carrier.world.engine):
        wait_until(lambda: carrier.received() == 1)
        assert [row.record_id for row in carrier.world.ledger()] == ["behind-1"]
        sender.commit_transaction(30)
        wait_until(lambda: carrier.received() == 3)
    assert carrier.world.outcomes() == {("posted", ""): 3}

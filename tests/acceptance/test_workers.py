"""Real worker processes on a real broker: what was produced is counted once, whatever dies."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine

from deploy.stack.broker import Broker
from deploy.stack.child import Child
from deploy.stack.kafka import RealKafka
from tests.conftest import MakeTopics
from tests.services import service
from tests.world import World, inbound, invite, outbound, utc

OCTOBER = utc("2026-10-10 12:00")
NUMBER = "+12125550101"
SHARED_IP = "198.51.100.7"
BIG = "bigcustomer.mypbx.com"


class Carrier:
    """A world whose records go through Kafka to worker processes."""

    def __init__(
        self, database: Engine, database_url: str, kafka: Broker, topics: dict[str, str], folder: Path
    ) -> None:
        inputs = [{"topic": topics["calls"], "kind": "calls"}, {"topic": topics["sip"], "kind": "sip"}]
        self.world = World(database, inputs=inputs)
        self.topics, self.folder = topics, folder
        self.environment = {
            **os.environ,  # noqa: TID251 (passed on to the worker)
            "DATABASE_URL": database_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TENANT_BILLING_INPUTS": json.dumps(inputs),
            "TENANT_BILLING_CONSUMER_GROUP": f"group-{topics['calls']}",
            "TENANT_BILLING_SESSION_TIMEOUT_SECONDS": "6" if not kafka.real else "2",
            "TENANT_BILLING_BATCH_RECORDS_MAX": "50",
            "TENANT_BILLING_SIP_WAIT_SECONDS": "3",
            "TENANT_BILLING_GRACE_HOURS": "1000000",  # no month closes by itself
            "TENANT_BILLING_REQUIRE_LOG_APPEND_TIME": "true" if kafka.real else "false",
        }
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 1})
        self._workers = 0

    def produce(self, kind: str, *values: dict[str, Any] | bytes) -> None:
        for value in values:
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self._producer.produce(self.topics[kind], value=body)
        assert self._producer.flush(30) == 0

    @contextmanager
    def worker(self) -> Iterator[Child]:
        self._workers += 1
        log = self.folder / f"worker-{self._workers}.log"
        with service("worker", self.environment, log) as child:
            yield child

    def position(self, partition: int) -> int:
        """The stored position of one partition of calls; -1 where it was never read."""
        query = "select next_offset from stream_positions where topic = :topic and partition = :partition"
        rows = self.world.query(query, topic=self.topics["calls"], partition=partition)
        return int(rows[0].next_offset) if rows else -1

    def received(self) -> int:
        return sum(self.world.outcomes().values())


@pytest.fixture
def carrier(
    database: Engine, database_url: str, kafka: Broker, topics: MakeTopics, tmp_path: Path
) -> Carrier:
    carrier = Carrier(database, database_url, kafka, topics(calls=4, sip=2), tmp_path)
    account = carrier.world.account()
    carrier.world.tenant(account, BIG)
    carrier.world.number(NUMBER, account, carrier.world.tenant(account, "a.example.com"))
    carrier.world.ip(SHARED_IP, account)
    carrier.world.run()
    return carrier


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_records_and_invites_become_attributed_usage(carrier: Carrier) -> None:
    carrier.produce("calls", inbound("in", NUMBER, OCTOBER), b"not json", inbound("in", NUMBER, OCTOBER))
    carrier.produce("calls", outbound("out", SHARED_IP, OCTOBER, call_id="one@example.com"))
    carrier.produce("calls", outbound("nobody", SHARED_IP, OCTOBER, call_id="two@example.com"))
    carrier.produce("sip", invite("one@example.com", SHARED_IP, OCTOBER, BIG))  # after its call record
    with carrier.worker():
        wait_until(lambda: len(carrier.world.ledger()) == 3)
    rows = {row.record_id: (row.tenant, row.reason) for row in carrier.world.ledger()}
    assert rows == {"in": ("a.example.com", None), "out": (BIG, None), "nobody": (None, "no_tenant_header")}
    assert carrier.world.outcomes() == {
        ("posted", ""): 3,
        ("duplicate", ""): 1,
        ("quarantined", "unreadable"): 1,
        ("context", ""): 1,
    }


@pytest.mark.slow
def test_a_worker_killed_five_times_loses_and_doubles_nothing(carrier: Carrier) -> None:
    calls = [inbound(f"{index:05}", NUMBER, OCTOBER + timedelta(seconds=index)) for index in range(3000)]
    carrier.produce("calls", *calls, *calls[::7])
    wanted = len(calls) + len(calls[::7])
    for kill in range(1, 6):
        with carrier.worker() as worker:
            read_before = carrier.received()
            wait_until(lambda at=read_before + 100 * kill: carrier.received() >= min(at, wanted))  # type: ignore[misc]
            worker.kill()
    with carrier.worker():
        wait_until(lambda: carrier.received() == wanted)
    assert carrier.world.outcomes() == {("posted", ""): 3000, ("duplicate", ""): len(calls[::7])}
    [usage] = carrier.world.query("select sum(attempts)::int as n, sum(cost) as cost from monthly_usage")
    assert (usage.n, usage.cost) == (3000, Decimal("30.000000"))
    assert len(carrier.world.ledger()) == 3000


@pytest.mark.slow
def test_three_workers_share_the_partitions_and_one_of_them_dying_changes_nothing(carrier: Carrier) -> None:
    calls = [inbound(f"{index:05}", NUMBER, OCTOBER + timedelta(seconds=index)) for index in range(2000)]
    with carrier.worker() as first, carrier.worker(), carrier.worker():
        carrier.produce("calls", *calls[:1000])
        wait_until(lambda: carrier.received() > 0)
        first.kill()
        carrier.produce("calls", *calls[1000:])
        wait_until(lambda: carrier.received() == 2000)
    assert carrier.world.outcomes() == {("posted", ""): 2000}


def test_a_worker_waits_while_the_installation_is_in_bootstrap(carrier: Carrier) -> None:
    carrier.produce("calls", inbound("in", NUMBER, OCTOBER))
    with carrier.world.engine.begin() as connection:
        connection.exec_driver_sql("update installation set state = 'bootstrap'")
    with carrier.worker() as worker:
        time.sleep(4)
        assert worker.running
        assert carrier.received() == 0
        with carrier.world.engine.begin() as connection:
            connection.exec_driver_sql("update installation set state = 'running'")
        wait_until(lambda: carrier.received() == 1)


@pytest.mark.slow
def test_workers_that_come_and_go_leave_no_partition_behind(carrier: Carrier) -> None:
    calls = [inbound(f"{index:05}", NUMBER, OCTOBER + timedelta(seconds=index)) for index in range(6000)]
    with carrier.worker():
        for start in range(0, 6000, 1500):
            carrier.produce("calls", *calls[start : start + 1500])
            with carrier.worker():
                wait_until(lambda at=start + 700: carrier.received() >= at)  # type: ignore[misc]
                carrier.produce("calls", calls[start])
        wait_until(lambda: carrier.received() == 6004)
    assert carrier.world.outcomes() == {("posted", ""): 6000, ("duplicate", ""): 4}


@pytest.mark.kafka
def test_aborted_transactions_are_not_billed_and_markers_are_passed_over(
    carrier: Carrier, real_kafka: RealKafka
) -> None:
    producer = Producer(
        {"bootstrap.servers": real_kafka.bootstrap_servers, "transactional.id": carrier.topics["calls"]}
    )
    producer.init_transactions(30)
    for number in range(6):
        producer.begin_transaction()
        for serial in range(3):
            call = inbound(f"{number}-{serial}", NUMBER, OCTOBER + timedelta(seconds=serial))
            producer.produce(carrier.topics["calls"], json.dumps(call).encode(), partition=0)
        producer.flush(30)  # an abort would throw away what was not sent yet
        if number % 2:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
    with carrier.worker():
        wait_until(lambda: carrier.position(0) == 6 * 3 + 6)  # each transaction ends with a marker
    assert carrier.world.outcomes() == {("posted", ""): 9}

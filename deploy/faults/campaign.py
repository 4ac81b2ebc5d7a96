"""The campaign: traffic without end while one fault follows another; then peace, the months close, and the audit."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from deploy.faults import audit_store
from deploy.faults.audit import Event, Found, Verdict, audit
from deploy.faults.plan import Fault, months_closed, plan
from deploy.faults.stage import Stage
from deploy.faults.traffic import PARTITIONS, Traffic
from pipeline.clock import utc_now
from pipeline.kafka_logs import KafkaLogs
from rollup import audit_store as reconciling
from rollup import conservation_store
from schemas.periods import Period

_stories_at_once: Final = 12
_sending_seconds: Final = 0.1
_drain_seconds_max: Final = 180.0
_months_max: Final = 12  # no record may be older than 400 days (L6)

Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened, and what was found; nothing is wrong where `findings` is empty."""

    seed: int
    planned: Sequence[Fault]
    counts: Counter[str]
    restarts: Counter[str]
    sent: int
    records: int
    outcomes: dict[tuple[str, str], int]
    statements: int
    events: int
    verdict: Verdict
    seconds: float


def run(*, seed: int, count: int, progress: Progress, logs: Path | None = None) -> Outcome:
    """Run the campaign; the same seed plans the same faults and makes the same records. `logs` keeps the workers' logs."""
    started = time.monotonic()
    faults = plan(seed, count)
    with _folder(logs) as folder:
        months = _months(months_closed(faults) + 2)
        with Stage(folder, months) as stage:
            traffic = Traffic(seed, months)
            sending = _Sending(stage.bootstrap_servers, traffic)
            findings: list[str] = []
            with sending:
                for number, fault in enumerate(faults):
                    progress(number, fault.point or fault.kind)
                    stage.befall(fault)
                    stage.tick()
                    time.sleep(fault.pause_seconds)
                    findings += _violations(stage.engine, f"after fault {number}, {fault.kind}")
            stage.peace()
            progress(len(faults), "draining")
            findings += _drain(stage, months)
            found = _found(stage, findings)
            verdict = audit(traffic.usage, traffic.others, [str(month) for month in months], found)
            findings += verdict.findings + _own_audits(stage.engine, months)
            if findings:
                findings.append(stage.log_tail())
            return Outcome(
                seed,
                faults,
                stage.counts,
                stage.restarts,
                sending.sent,
                len(traffic.usage),
                dict(found.outcomes),
                len(found.statements),
                len(found.statement_events) + len(found.period_events),
                Verdict(verdict.lost, verdict.doubled, findings),
                time.monotonic() - started,
            )


class _Sending:
    """A producer that sends stories, a few at a time, in a thread of its own, until it is told to stop."""

    def __init__(self, bootstrap_servers: str, traffic: Traffic) -> None:
        self.sent = 0
        self._traffic = traffic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, name="traffic")
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "delivery.timeout.ms": 300_000,
                "log_level": 0,
            }
        )

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(120)
        assert left == 0, f"{left} messages were never taken by the broker"

    def _send(self) -> None:
        while not self._stop.wait(_sending_seconds):
            for message in self._traffic.stories(_stories_at_once):
                self._producer.produce(message.topic, message.value, partition=message.partition)
                self.sent += 1
            self._producer.poll(0)
            while len(self._producer) > 2000 and not self._stop.is_set():  # the broker is away
                self._producer.poll(0.1)


@contextmanager
def _folder(logs: Path | None) -> Iterator[Path]:
    """A temporary folder that Postgres, too, may enter; what workers have logged is kept where someone wants it."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            for log in folder.glob("*.log"):
                shutil.copy(log, logs)


def _months(number: int) -> tuple[Period, ...]:
    """The months that are closed, the last of them just over."""
    last = Period.of(utc_now()).plus(-1)
    return tuple(last.plus(n) for n in range(1 - min(number, _months_max), 1))


def _drain(stage: Stage, months: Sequence[Period]) -> list[str]:
    """Wait until everything is read and decided, then until every month is closed and told; says what did not come."""
    logs = KafkaLogs(stage.bootstrap_servers)

    def all_read() -> bool:
        with stage.engine.connect() as connection:
            return audit_store.waiting(connection)[0] == 0 and audit_store.read_to(
                connection, list(PARTITIONS)
            ) == sum(logs.ends(list(PARTITIONS)).values())

    def all_told() -> bool:
        with stage.engine.connect() as connection:
            states = audit_store.months_by_state(connection)
            closed = all(states[str(month)] == "closed" for month in months)
            return closed and audit_store.waiting(connection)[1] == 0

    findings = []
    if not _wait(stage, all_read):
        findings.append("not every record was read and decided in time")
    stage.close_through(months[-1])
    if not _wait(stage, all_told):
        findings.append("not every month was closed and told in time")
    logs.close()
    return findings


def _wait(stage: Stage, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _drain_seconds_max
    while time.monotonic() < deadline:
        stage.tick()
        try:
            if holds():
                return True
        except DBAPIError:
            continue
        time.sleep(0.2)
    return False


def _violations(engine: Engine, when: str) -> list[str]:
    """What does not add up at this moment, in the midst of it all."""
    try:
        with engine.connect() as connection:
            lines = conservation_store.by_topic(connection, count_rows=True)
    except DBAPIError:  # its connections were just cut
        return []
    return [f"{when}: {each}" for line in lines for each in line.violations]


def _found(stage: Stage, findings: list[str]) -> Found:
    logs = KafkaLogs(stage.bootstrap_servers)
    received = sum(logs.ends(list(PARTITIONS)).values())
    logs.close()
    with stage.engine.connect() as connection:
        for line in conservation_store.by_topic(connection, count_rows=True):
            findings += line.violations
            if line.gap:
                findings.append(f"{line.topic}: {line.gap} records are said to have been dropped by Kafka")
        return Found(
            audit_store.ledger(connection),
            audit_store.month_sums(connection),
            audit_store.outcomes(connection),
            audit_store.statements(connection),
            _events(stage.bootstrap_servers, "statements.closed"),
            _events(stage.bootstrap_servers, "periods.closed"),
            received,
        )


def _own_audits(engine: Engine, months: Sequence[Period]) -> list[str]:
    """What the product itself says of its books."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        findings = [each.text for each in reconciling.reconcile(connection)]
        for month in months:
            findings += [
                f"{month}: {each.account}/{each.tenant} is not what the ledger gives"
                for each in reconciling.rebuild(connection, month)
                if not each.same
            ]
    return findings


def _events(bootstrap_servers: str, topic: str) -> list[Event]:
    """Every event of a topic, in each partition's order."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "audit", "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    ends = {
        each: consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=30)[1]
        for each in partitions
    }
    consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
    events: list[Event] = []
    while len(events) < sum(ends.values()):
        message = consumer.poll(30)
        assert message is not None, f"{topic} could not be read to its end"
        headers = dict(message.headers() or [])
        events.append(Event(headers["ce_id"].decode(), message.value() or b"", message.timestamp()[1]))
    consumer.close()
    return events

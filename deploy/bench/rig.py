"""What the ingest benchmarks run on: a real broker, a real Postgres with fsync on, and worker processes like any other."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple, Self

import psutil
from confluent_kafka import Producer
from sqlalchemy import Engine, text

from deploy.bench.world import make_directory
from deploy.stack.child import Child
from deploy.stack.kafka import RealKafka
from deploy.stack.postgres import EmbeddedPostgres
from pipeline.clock import utc_now
from pipeline.database import connect, migrate
from schemas.periods import Period

PARTITIONS: Final = 8
wait_seconds_max: Final = 600.0
_look_seconds: Final = 0.05


class Sample(NamedTuple):
    """How many records of a topic had been committed at an instant of the benchmark's clock, in seconds."""

    at: float
    records: int


@dataclass(frozen=True, slots=True)
class Run:
    """One topic read to its end. `cpu_seconds`: of all workers; `memory_mib_max`: resident, of the largest of them."""

    samples: Sequence[Sample]
    records: int
    cpu_seconds: float
    memory_mib_max: float

    @property
    def records_per_second(self) -> float:
        """The rate while all were at work: the workers' joining and the last partitions' running out are left out."""
        window = [each for each in self.samples if self.records * 0.25 <= each.records <= self.records * 0.9]
        first, last = window[0], window[-1]
        return (last.records - first.records) / (last.at - first.at)

    @property
    def cpu_microseconds_per_record(self) -> float:
        """Processor time of the workers' whole processes, a record."""
        return self.cpu_seconds / self.records * 1e6


class Rig:
    """A broker and a database server; each benchmark takes databases and topics of its own from it."""

    def __init__(self) -> None:
        # as a server that has run for long: it writes over old segments of its log instead of making new ones
        self.postgres = EmbeddedPostgres(
            options=("max_wal_size=8GB", "min_wal_size=4GB", "shared_buffers=512MB")
        )
        self.kafka = RealKafka(heap_megabytes_max=512, short_lived=False)
        self.period = Period.of(utc_now()).plus(-1)
        self._names = count(1)
        self._templates: dict[int, str] = {}

    def __enter__(self) -> Self:
        self.postgres.start()
        self.kafka.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kafka.stop()
        self.postgres.stop()

    @contextmanager
    def database(self, tenants: int) -> Iterator[Engine]:
        """An installation with so many tenants and an empty ledger; dropped afterwards."""
        name = f"bench_{next(self._names)}"
        self._sql(f"create database {name} template {self._template(tenants)}")
        engine = connect(self.postgres.url(name), application_name="bench")
        try:
            yield engine
        finally:
            engine.dispose()
            self._sql(f"drop database {name} with (force)")

    def topic(self, values: Iterable[bytes] = (), partitions: Iterable[int] | None = None) -> str:
        """A new topic that holds these messages."""
        name = f"bench-{next(self._names)}"
        self.kafka.create_topics({name: PARTITIONS})
        self.publish(name, values, partitions)
        return name

    def publish(self, topic: str, values: Iterable[bytes], partitions: Iterable[int] | None = None) -> None:
        """Append messages to a topic, each to its partition or spread evenly, and wait for the broker."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 20})
        evenly = (serial // 500 % PARTITIONS for serial in count())
        for serial, (value, partition) in enumerate(zip(values, partitions or evenly, strict=False)):
            while True:
                try:
                    producer.produce(topic, value=value, partition=partition)
                    break
                except BufferError:
                    producer.poll(0.1)
            if serial % 1000 == 0:
                producer.poll(0)
        producer.flush()

    @contextmanager
    def workers(self, engine: Engine, number: int, **kinds: str) -> Iterator[list[Child]]:
        """Worker processes that read one topic for each kind (`calls`, `sip`); ended afterwards."""
        environment = {
            **os.environ,  # noqa: TID251 (passed on)
            "DATABASE_URL": engine.url.render_as_string(hide_password=False),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "TENANT_BILLING_CONSUMER_GROUP": f"bench-{next(self._names)}",
            "TENANT_BILLING_GRACE_HOURS": "1000000",  # no month closes meanwhile
            "TENANT_BILLING_INPUTS": json.dumps(
                [{"topic": topic, "kind": kind} for kind, topic in kinds.items()]
            ),
        }
        with ExitStack() as stack:
            yield [stack.enter_context(self._worker(environment)) for _ in range(number)]

    def read_to_end(self, engine: Engine, topic: str, records: int, workers: Sequence[Child]) -> Run:
        """Wait until a topic has been committed whole.

        Raises:
            RuntimeError: a worker ended, or it takes longer than `wait_seconds_max`.
        """
        samples: list[Sample] = []
        memory = 0.0
        started, deadline = _cpu_seconds(workers), time.monotonic() + wait_seconds_max
        while not samples or samples[-1].records < records:
            read = read_so_far(engine, topic)
            if not read:
                started = _cpu_seconds(workers)
            samples.append(Sample(time.perf_counter(), read))
            memory = max(memory, *(_resident_mib(worker) for worker in workers))
            if time.monotonic() > deadline or not all(worker.running for worker in workers):
                raise RuntimeError(f"only {read} of {records} records were read in time")
            time.sleep(_look_seconds)
        return Run(samples, records, _cpu_seconds(workers) - started, memory)

    @contextmanager
    def _worker(self, environment: dict[str, str]) -> Iterator[Child]:
        log = Path(self.postgres.root) / f"worker-{next(self._names)}.log"
        with log.open("wb") as output:
            child = Child(
                [sys.executable, "-m", "pipeline.cli", "worker"], stdout=output, environment=environment
            )
            try:
                yield child
            except RuntimeError as error:
                raise RuntimeError(f"{error}; the worker's log ends:\n{log.read_text()[-3000:]}") from None
            finally:
                child.stop(20)

    def _template(self, tenants: int) -> str:
        if tenants not in self._templates:
            name = f"template_{tenants}"
            self._sql(f"create database {name}")
            engine = connect(self.postgres.url(name), application_name="bench")
            migrate(engine)
            make_directory(engine, tenants, self.period)
            engine.dispose()
            self._templates[tenants] = name
        return self._templates[tenants]

    def _sql(self, statement: str) -> None:
        engine = connect(self.postgres.url(), application_name="bench")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))
        engine.dispose()


def read_so_far(engine: Engine, topic: str) -> int:
    """How many records of a topic have been committed."""
    with engine.connect() as connection:
        query = "select coalesce(sum(next_offset), 0)::bigint from stream_positions where topic = :topic"
        return int(connection.execute(text(query), {"topic": topic}).scalar_one())


def _cpu_seconds(workers: Sequence[Child]) -> float:
    times = [psutil.Process(worker.process.pid).cpu_times() for worker in workers]
    return float(sum(each.user + each.system for each in times))


def _resident_mib(worker: Child) -> float:
    return float(psutil.Process(worker.process.pid).memory_info().rss / 2**20)

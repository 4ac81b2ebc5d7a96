"""How fast records get from Kafka into the ledger and monthly usage, beside a plain COPY and a stock Faust agent.

One run measures all three on the same machine: a real broker, a real Postgres with fsync on, deduplication,
attribution and aggregation on. The ceiling copies the same rows into a table without key, index or partitions.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, cast

import psutil
import psycopg2.extensions
from confluent_kafka import Producer
from rich.console import Console
from sqlalchemy import Engine, text

from deploy.bench.world import call_records, make_directory
from deploy.stack.child import Child
from deploy.stack.kafka import RealKafka
from deploy.stack.postgres import EmbeddedPostgres
from pipeline.clock import utc_now
from pipeline.database import connect, migrate
from schemas.periods import Period

_PARTITIONS: Final = 8
_TENANTS: Final = 1000
_WORKERS: Final = 2
_RECORDS: Final = 200_000
_STOCK_RECORDS: Final = 2_000
_CEILING_RUNS: Final = 3
_wait_seconds_max: Final = 300.0


def run(console: Console) -> dict[str, float]:
    """Measure ingest; returns figures by name (rates in records per second, ratios without unit)."""
    postgres, kafka = EmbeddedPostgres(), RealKafka(heap_megabytes_max=512, short_lived=False)
    postgres.start()
    try:
        kafka.start()
        return _measure(console, postgres, kafka)
    finally:
        kafka.stop()
        postgres.stop()


def _measure(console: Console, postgres: EmbeddedPostgres, kafka: RealKafka) -> dict[str, float]:
    engine = connect(postgres.url(), application_name="bench")
    migrate(engine)
    period = Period.of(utc_now()).plus(-1)
    make_directory(engine, _TENANTS, period)
    kafka.create_topics({"calls.raw": _PARTITIONS, "sip.raw": 1, "calls.stock": 1})
    _publish(kafka, "calls.raw", call_records(_RECORDS, _TENANTS, period))
    _publish(kafka, "calls.stock", call_records(_STOCK_RECORDS, _TENANTS, period, seed=2))
    ingest, cpu = _ingest_rate(postgres, kafka, engine)
    console.print(
        f"Kafka to committed: {ingest:,.0f} records/s by {_WORKERS} workers, {cpu:.0f} µs of CPU a record"
    )
    ceiling = _ceiling_rate(engine)
    console.print(f"plain COPY of the same rows: {ceiling:,.0f} rows/s (median of {_CEILING_RUNS})")
    stock = _stock_rate(postgres, kafka, engine)
    console.print(f"stock Faust, one insert a row: {stock:,.0f} records/s")
    engine.dispose()
    return {
        "ingest_records_per_second": ingest,
        "copy_rows_per_second": ceiling,
        "stock_faust_records_per_second": stock,
        "worker_cpu_us_per_event": cpu,
        "ingest_to_copy": ingest / ceiling,
        "ingest_to_stock_faust": ingest / stock,
    }


def _ingest_rate(postgres: EmbeddedPostgres, kafka: RealKafka, engine: Engine) -> tuple[float, float]:
    """Records a second while all workers are at work, and their CPU time per record in microseconds.

    The first fifth (workers joining the group) and the last tenth (partitions running out) are left out of the rate.
    """
    samples: list[tuple[float, int]] = []
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(postgres, kafka, number)) for number in range(_WORKERS)]
        started = [_cpu_seconds(worker) for worker in workers]
        deadline = time.monotonic() + _wait_seconds_max
        while not samples or samples[-1][1] < _RECORDS:
            posted = _read_so_far(engine)
            if not posted:
                started = [_cpu_seconds(worker) for worker in workers]
            samples.append((time.perf_counter(), posted))
            if time.monotonic() > deadline or not all(worker.running for worker in workers):
                raise RuntimeError(f"only {posted} of {_RECORDS} records were read in time")
            time.sleep(0.05)
        used = sum(_cpu_seconds(worker) for worker in workers) - sum(started)
    with engine.connect() as connection:
        in_ledger = connection.execute(text("select count(*) from usage_records")).scalar_one()
        in_usage = connection.execute(text("select sum(attempts) from monthly_usage")).scalar_one()
    assert in_ledger == in_usage == _RECORDS, (in_ledger, in_usage)
    window = [sample for sample in samples if _RECORDS * 0.2 <= sample[1] <= _RECORDS * 0.9]
    (first_at, first), (last_at, last) = window[0], window[-1]
    return (last - first) / (last_at - first_at), used / _RECORDS * 1e6


def _cpu_seconds(worker: Child) -> float:
    times = psutil.Process(worker.process.pid).cpu_times()
    return float(times.user + times.system)


def _read_so_far(engine: Engine) -> int:
    with engine.connect() as connection:
        query = "select coalesce(sum(next_offset), 0)::bigint from stream_positions where topic = 'calls.raw'"
        return int(connection.execute(text(query)).scalar_one())


def _ceiling_rate(engine: Engine) -> float:
    """Rows a second of a plain COPY of the ledger's own rows into a bare table, from memory."""
    connection = engine.raw_connection()
    with closing(cast("psycopg2.extensions.cursor", connection.cursor())) as cursor:
        rows = io.BytesIO()
        cursor.copy_expert("copy (select * from usage_records) to stdout", rows)
        rates = []
        for _ in range(_CEILING_RUNS):
            cursor.execute(
                "drop table if exists bare; create table bare as select * from usage_records limit 0"
            )
            connection.commit()
            rows.seek(0)
            started = time.perf_counter()
            cursor.copy_expert("copy bare from stdin", rows)
            connection.commit()
            rates.append(_RECORDS / (time.perf_counter() - started))
        cursor.execute("drop table bare")
        connection.commit()
    connection.close()
    return statistics.median(rates)


def _stock_rate(postgres: EmbeddedPostgres, kafka: RealKafka, engine: Engine) -> float:
    with engine.begin() as connection:
        connection.execute(
            text(
                "create table stock (switch text, id text, started_at timestamptz, answered_seconds numeric, cost numeric)"
            )
        )
    arguments = [kafka.bootstrap_servers, "calls.stock", postgres.url(), str(_STOCK_RECORDS)]
    done = subprocess.run(  # noqa: S603 (our own module)
        [sys.executable, "-W", "ignore", "-m", "deploy.bench.stock_faust", *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=_wait_seconds_max,
    )
    return float(done.stdout.strip().splitlines()[-1])


@contextmanager
def _worker(postgres: EmbeddedPostgres, kafka: RealKafka, number: int) -> Iterator[Child]:
    """A worker process like any other, its log kept beside the database until the end."""
    environment = {
        **os.environ,  # noqa: TID251 (passed on)
        "DATABASE_URL": postgres.url(),
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TENANT_BILLING_GRACE_HOURS": "1000000",  # no month closes meanwhile
    }
    log = Path(postgres.root) / f"worker-{number}.log"
    with log.open("wb") as output:
        arguments = [sys.executable, "-m", "pipeline.cli", "worker"]
        child = Child(arguments, stdout=output, environment=environment)
        try:
            yield child
        except RuntimeError as error:
            raise RuntimeError(f"{error}; the worker's log ends:\n{log.read_text()[-3000:]}") from None
        finally:
            child.stop(20)


def _publish(kafka: RealKafka, topic: str, values: Iterable[bytes]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for serial, value in enumerate(values):
        producer.produce(topic, value=value, key=str(serial).encode())
        producer.poll(0)
    producer.flush()

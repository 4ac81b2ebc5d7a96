"""How fast records get from Kafka into the ledger and monthly usage, beside a plain COPY and a stock Faust agent.

One run measures all on the same machine, in turn: a real broker, a real Postgres with fsync on, deduplication,
attribution and aggregation on. The ceiling copies the same rows, as text, into a table without key, index or partitions.
Each figure is the median of `_REPEATS` rounds; ratios are taken within a round.
"""

from __future__ import annotations

import io
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final, cast

import psycopg2.extensions
from rich.console import Console
from sqlalchemy import Engine, text

from deploy.bench.rig import PARTITIONS, Rig, Run
from deploy.bench.stages import stage_costs
from deploy.bench.world import call_records, strewn

_TENANTS: Final = 1000
_WORKERS: Final = 2
_RECORDS: Final = 1_000_000
_STOCK_RECORDS: Final = 2_000
_REPEATS: Final = 5
_RESENT_SHARE: Final = 0.01
_RESENT_WITHIN: Final = 20_000
_stock_seconds_max: Final = 300.0


def run(console: Console) -> dict[str, float]:
    """Measure ingest; returns figures by name (rates in records per second, ratios without unit)."""
    figures: defaultdict[str, list[float]] = defaultdict(list)
    with Rig() as rig:
        values = list(call_records(_RECORDS, _TENANTS, rig.period))
        for stage, cost in stage_costs(values[:40_000], rig).items():
            figures[stage].append(cost)
            console.print(f"  {stage:34} {cost:6.2f} µs of CPU a record")
        resent = list(_with_resends(len(values)))
        with rig.database(_TENANTS) as engine:  # not measured: a new server makes its log's files
            _ingest(rig, engine, rig.topic(values), len(values), len(values))
        for number in range(1, _REPEATS + 1):
            told = _round(rig, values, resent)
            for name, figure in told.items():
                figures[name].append(figure)
            console.print(
                f"round {number}: " + ", ".join(f"{name} {each:,.4g}" for name, each in told.items())
            )
    for name, each in figures.items():
        if len(each) > 1:
            console.print(f"{name:32} {min(each):,.4g} to {max(each):,.4g}", highlight=False)
    return {name: statistics.median(each) for name, each in figures.items()}


def _round(rig: Rig, values: Sequence[bytes], resent: Sequence[int]) -> dict[str, float]:
    with rig.database(_TENANTS) as engine:
        plain = _ingest(rig, engine, rig.topic(values), len(values), len(values))
        replay = _ingest(rig, engine, rig.topic(values), len(values), len(values))
        ceiling = _ceiling_rate(engine)
        stock = _stock_rate(rig, engine)
    again = [values[place] for place in resent]
    with rig.database(_TENANTS) as engine:
        out_of_order = _ingest(rig, engine, rig.topic(strewn(values)), len(values), len(values))
    with rig.database(_TENANTS) as engine:  # as producers resend that give a record's id as its key
        topic = rig.topic(again, [place // 500 % PARTITIONS for place in resent])
        one_percent = _ingest(rig, engine, topic, len(again), len(values))
    with rig.database(
        _TENANTS
    ) as engine:  # and those that give none: half of the resends reach the other worker
        elsewhere = _ingest(rig, engine, rig.topic(again), len(again), len(values))
    return {
        "copy_rows_per_second": ceiling,
        "ingest_records_per_second": plain.records_per_second,
        "stock_faust_records_per_second": stock,
        "worker_process_cpu_us_per_event": plain.cpu_microseconds_per_record,
        "ingest_to_copy": plain.records_per_second / ceiling,
        "ingest_to_copy_strewn": out_of_order.records_per_second / ceiling,
        "ingest_to_copy_1pct": one_percent.records_per_second / ceiling,
        "ingest_to_copy_1pct_elsewhere": elsewhere.records_per_second / ceiling,
        "replay_to_copy": replay.records_per_second / ceiling,
        "ingest_to_stock_faust": plain.records_per_second / stock,
    }


def _ingest(rig: Rig, engine: Engine, topic: str, records: int, different: int) -> Run:
    """Read a topic of so many messages to its end; the ledger must hold the different ones after it, no more."""
    with rig.workers(engine, _WORKERS, calls=topic) as workers:
        done = rig.read_to_end(engine, topic, records, workers)
    with engine.connect() as connection:
        in_ledger = connection.execute(text("select count(*) from usage_records")).scalar_one()
        in_usage = connection.execute(text("select sum(attempts) from monthly_usage")).scalar_one()
    if not in_ledger == in_usage == different:
        raise RuntimeError(
            f"{different} records came to {in_ledger} in the ledger, {in_usage} in monthly usage"
        )
    return done


def _with_resends(records: int) -> Iterator[int]:
    """The places of so many records, one in a hundred of them sent again a little later."""
    chosen = random.Random(3)  # noqa: S311 (traffic, not secrets)
    for place in range(records):
        yield place
        if chosen.random() < _RESENT_SHARE:
            yield max(place - chosen.randrange(_RESENT_WITHIN), 0)


def _ceiling_rate(engine: Engine) -> float:
    """Rows a second of a plain COPY of the ledger's own rows into a bare table, from memory."""
    connection = engine.raw_connection()
    with closing(cast("psycopg2.extensions.cursor", connection.cursor())) as cursor:
        rows = io.BytesIO()
        cursor.copy_expert("copy (select * from usage_records) to stdout", rows)
        cursor.execute("create table bare as select * from usage_records limit 0")
        connection.commit()
        rows.seek(0)
        started = time.perf_counter()
        cursor.copy_expert("copy bare from stdin", rows)
        connection.commit()
        seconds = time.perf_counter() - started
        cursor.execute("select count(*) from bare")
        copied = cursor.fetchone()
        cursor.execute("drop table bare")
        connection.commit()
    connection.close()
    assert copied is not None
    return float(copied[0]) / seconds


def _stock_rate(rig: Rig, engine: Engine) -> float:
    with engine.begin() as connection:
        connection.execute(
            text(
                "create table stock (switch text, id text, started_at timestamptz, answered_seconds numeric, cost numeric)"
            )
        )
    topic = rig.topic()
    rig.publish(topic, call_records(_STOCK_RECORDS, _TENANTS, rig.period, seed=2))
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    arguments = [rig.kafka.bootstrap_servers, topic, url, str(_STOCK_RECORDS)]
    done = subprocess.run(  # noqa: S603 (our own module)
        [sys.executable, "-W", "ignore", "-m", "deploy.bench.stock_faust", *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=_stock_seconds_max,
    )
    return float(done.stdout.strip().splitlines()[-1])

"""What closing a month costs beside one scan of it, and whether a full ledger slows the close or ingest down.

Two databases on one server hold the same month, one with a tenth of the other's records; both are spread over the
month and its 10 000 tenants. Each figure compares within one run, in turns, because machines are shared:

`close_to_scan`: the whole close (peaks, statements, events and commit included) over one sequential
`select … sum … group by` of the same rows. `close_growth`: seconds of the large close over those of the small one, for
ten times the rows. `ingest_growth`: records a second of one day's traffic posted into the large ledger over those into
the small one. `month_wide_ingest_growth`: the same for records that are strewn evenly over the whole month, such as a
resend of all of it in no order; no traffic is like that. `reconcile_to_scan`: `tenant-billing reconcile` of the closed
month over the same scan.

Each batch that is strewn over the month touches another page of the unique index for nearly every record, and Postgres
writes a page whole to its log when it is touched for the first time after a checkpoint. So what such a batch costs is
told beside its rate, in bytes of log a record: it grows with the pages of the index, not with the records.

`CLOSE_RECORDS=1000000` runs it with fewer records than 10 million.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console
from sqlalchemy import Engine, text

from deploy.bench.ledgers import TENANTS, benched_month, ledger, settle
from deploy.bench.world import call_records, strewn
from deploy.stack.postgres import EmbeddedPostgres
from pipeline import position_store
from pipeline.ordinary import Messages, prepare_batch, read
from pipeline.posting import BatchPoster, PreparedBatch
from pipeline.settings import Settings
from pipeline.snapshot import Snapshots
from pipeline.worker import input_spec
from rollup import audit_store, close_store
from rollup.announcement import EventTopics
from schemas.binary import microseconds
from schemas.periods import utc_text

_RECORDS: Final = int(os.environ.get("CLOSE_RECORDS", "10000000"))  # noqa: TID251 (make passes its variables through)
_BATCH_RECORDS: Final = 4_000
_BATCHES: Final = 24
_TURNS: Final = 3
_SERVER: Final = ("shared_buffers=512MB", "max_wal_size=8GB")
_LAST_DAY: Final = 28  # of those that the traffic is spread over


class Posting(NamedTuple):
    """What posting into one ledger takes: records a second, and bytes of Postgres's log a record."""

    rate: float
    log_bytes: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} records/s with {self.log_bytes:,.0f} bytes of log each"


def run(console: Console) -> dict[str, float]:
    """Measure the close; returns figures by name (ratios without unit)."""
    postgres = EmbeddedPostgres(options=_SERVER).start()
    try:
        with (
            ledger(console, postgres, _RECORDS // 10) as small,
            ledger(console, postgres, _RECORDS) as large,
        ):
            return _ingest_figures(console, small, large) | _close_figures(console, small, large)
    finally:
        postgres.stop()


def _ingest_figures(console: Console, small: Engine, large: Engine) -> dict[str, float]:
    # the strewn traffic comes first: it makes the rows of monthly usage, which traffic of later days finds there
    month_wide = _posted("strewn over the month", _strewn, small, large, console)
    in_order = _posted("a day's traffic", _of_one_day, small, large, console)
    return {"ingest_growth": in_order, "month_wide_ingest_growth": month_wide}


def _close_figures(console: Console, small: Engine, large: Engine) -> dict[str, float]:
    scans, closes, small_closes = [], [], []
    for turn in range(_TURNS):
        last = turn == _TURNS - 1
        scans.append(_scan_seconds(large))
        small_closes.append(_close_seconds(small, commit=last))
        closes.append(_close_seconds(large, commit=last))
        console.print(
            f"one scan {scans[-1]:.1f} s, its close {closes[-1]:.1f} s, a tenth of it {small_closes[-1]:.1f} s"
        )
    scan, close = statistics.median(scans), statistics.median(closes)
    reconcile = _reconcile_seconds(large)
    console.print(f"reconciliation {reconcile:.1f} s")
    return {
        "close_to_scan": close / scan,
        "close_growth": close / statistics.median(small_closes),
        "reconcile_to_scan": reconcile / scan,
    }


def _scan_seconds(engine: Engine) -> float:
    """Seconds of one sequential pass that adds up what a bill is made of."""
    month = benched_month()
    with engine.begin() as connection:
        connection.exec_driver_sql("set local max_parallel_workers_per_gather = 0")
        started = time.perf_counter()
        connection.execute(
            text(
                "select account_id, tenant_id, usage_class, count(*), sum(answered_seconds), sum(billed_seconds), "
                "sum(cost) from usage_records where started_date >= :first and started_date <= :last group by 1, 2, 3"
            ),
            {"first": month.first_day, "last": month.last_day},
        ).all()
        return time.perf_counter() - started


def _close_seconds(engine: Engine, *, commit: bool) -> float:
    """Seconds of the whole close of the sealed month, until it is committed; or of one that is undone."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "update periods set state = 'sealed', sealed_at = clock_timestamp() "
                "where period = :period and state = 'open'"
            ),
            {"period": benched_month().first_day},
        )
    started = time.perf_counter()
    with engine.begin() as connection:
        closed = close_store.close(
            connection, benched_month(), EventTopics("statements.closed", "periods.closed")
        )
        if not commit:
            connection.rollback()
    seconds = time.perf_counter() - started
    assert closed.statement_count == TENANTS + 1, closed.statement_count
    return seconds


def _reconcile_seconds(engine: Engine) -> float:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        started = time.perf_counter()
        found = audit_store.reconcile(connection)
        assert found == (), found[:3]
        return time.perf_counter() - started


def _posted(
    what: str, traffic: Callable[[], Iterator[bytes]], small: Engine, large: Engine, console: Console
) -> float:
    """The rate at which one worker posts into the large ledger over that into the small one."""
    into_small, into_large = _postings([small, large], traffic)
    console.print(
        f"{what}: {into_small} into the small ledger, {into_large} into the large one", soft_wrap=True
    )
    return into_large.rate / into_small.rate


def _postings(engines: Sequence[Engine], traffic: Callable[[], Iterator[bytes]]) -> list[Posting]:
    """What one worker posts into each ledger, batch by batch in turns; decoding is left out, and the first batch."""
    batches = [list(_batches(engine, traffic())) for engine in engines]
    posters = [BatchPoster(engine) for engine in engines]
    for engine in engines:
        settle(engine)
    seconds: list[list[float]] = [[] for _ in engines]
    log_bytes: list[list[float]] = [[] for _ in engines]
    for number in range(_BATCHES):
        for which in range(len(engines)) if number % 2 else reversed(range(len(engines))):
            before, started = _log_end(engines[which]), time.perf_counter()
            posters[which].post(batches[which][number])
            seconds[which].append(time.perf_counter() - started)
            log_bytes[which].append(_log_end(engines[which]) - before)
    return [
        Posting(
            _BATCH_RECORDS / statistics.median(taken[1:]), statistics.median(written[1:]) / _BATCH_RECORDS
        )
        for taken, written in zip(seconds, log_bytes, strict=True)
    ]


def _log_end(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")) or 0)


def _of_one_day() -> Iterator[bytes]:
    """Traffic as it comes: all of one day."""
    for value in call_records(_BATCH_RECORDS * _BATCHES, TENANTS, benched_month(), seed=1):
        record = json.loads(value)
        earlier = _LAST_DAY - datetime.fromisoformat(record["started_at"]).day
        for name in ("started_at", "answered_at", "ended_at"):
            if record[name] is None:
                continue
            record[name] = utc_text(datetime.fromisoformat(record[name]) + timedelta(days=earlier))
        yield json.dumps(record, separators=(",", ":")).encode()


def _strewn() -> Iterator[bytes]:
    """A resend of a whole month in no order: each batch touches every day's pages."""
    return iter(strewn(list(call_records(_BATCH_RECORDS * _BATCHES, TENANTS, benched_month(), seed=2))))


def _batches(engine: Engine, values: Iterator[bytes]) -> Iterator[PreparedBatch]:
    """Traffic ready to be posted, behind what its partition has read already."""
    settings = Settings()
    with engine.begin() as connection:
        position = position_store.ensure_position(connection, "calls.raw", 1, 0)
    spec = input_spec(settings, settings.inputs_of("calls")[0], position.id)
    snapshot = Snapshots(engine).current
    received_at = microseconds(benched_month().ends_at + timedelta(hours=1))
    first = position.next_offset
    while batch := list(islice(values, _BATCH_RECORDS)):
        records = len(batch)
        offsets, received = np.arange(first, first + records), np.full(records, received_at)
        messages = Messages(offsets, received, [None] * records, batch)
        ordinary, items = prepare_batch(spec, read(spec, messages), snapshot)
        yield PreparedBatch(position.id, first, first + records, items, ordinary)
        first += records

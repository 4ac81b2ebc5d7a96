"""What closing a month costs beside one scan of it, and whether a full ledger slows the close or ingest down.

Two databases on one server hold the same month, one with a tenth of the other's records; both are spread over the
month and its 10 000 tenants. Each figure compares within one run, in turns, because machines are shared:

`close_to_scan`: the whole close (peaks, statements, events and commit included) over one sequential
`select … sum … group by` of the same rows. `close_growth`: seconds of the large close over those of the small one, for
ten times the rows. `ingest_growth`: records a second of one day's traffic posted into the large ledger over those into
the small one; `month_wide_ingest_growth`: the same for records that are strewn over the whole month, which no traffic is.
`reconcile_to_scan`: `tenant-billing reconcile` of the closed month over the same scan.

`CLOSE_RECORDS=1000000` runs it with fewer records than 10 million.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from rich.console import Console
from sqlalchemy import Engine, text

from deploy.bench.world import call_records, make_directory
from deploy.stack.postgres import EmbeddedPostgres
from pipeline import position_store
from pipeline.clock import utc_now
from pipeline.database import connect, migrate
from pipeline.posting import BatchPoster, PreparedBatch
from pipeline.prepare import Message, decode, prepare
from pipeline.settings import Settings
from pipeline.snapshot import Snapshots
from pipeline.worker import input_spec
from rollup import audit_store, close_store
from rollup.announcement import EventTopics
from schemas.periods import Period, utc_text

_RECORDS: Final = int(os.environ.get("CLOSE_RECORDS", "10000000"))  # noqa: TID251 (make passes its variables through)
_TENANTS: Final = 10_000
_FILL_RECORDS: Final = 500_000  # in one insert
_BATCH_RECORDS: Final = 4_000
_BATCHES: Final = 12
_SCANS: Final = 3
_SERVER: Final = ("shared_buffers=512MB", "max_wal_size=8GB")
_LAST_DAY: Final = 28  # of those that the traffic is spread over


def run(console: Console) -> dict[str, float]:
    """Measure the close; returns figures by name (ratios without unit)."""
    postgres = EmbeddedPostgres(options=_SERVER).start()
    try:
        with (
            _ledger(console, postgres, _RECORDS // 10) as small,
            _ledger(console, postgres, _RECORDS) as large,
        ):
            return _measure(console, small, large)
    finally:
        postgres.stop()


def _measure(console: Console, small: Engine, large: Engine) -> dict[str, float]:
    small_strewn, large_strewn = _ingest_rates(
        _strewn, small, large
    )  # first: it makes the rows of monthly usage
    small_rate, large_rate = _ingest_rates(_of_one_day, small, large)
    console.print(
        f"posting a day's traffic: {small_rate:,.0f} records/s into the small ledger, {large_rate:,.0f} into the large "
        f"one; strewn over the month: {small_strewn:,.0f} and {large_strewn:,.0f}",
        soft_wrap=True,
    )
    scan = statistics.median(_scan_seconds(large) for _ in range(_SCANS))
    small_close, large_close = _close_seconds(small), _close_seconds(large)
    reconcile = _reconcile_seconds(large)
    console.print(
        f"one scan {scan:.1f} s, its close {large_close:.1f} s (a tenth of it {small_close:.1f} s), "
        f"its reconciliation {reconcile:.1f} s",
        soft_wrap=True,
    )
    return {
        "close_to_scan": large_close / scan,
        "close_growth": large_close / small_close,
        "ingest_growth": large_rate / small_rate,
        "month_wide_ingest_growth": large_strewn / small_strewn,
        "reconcile_to_scan": reconcile / scan,
    }


@contextmanager
def _ledger(console: Console, postgres: EmbeddedPostgres, records: int) -> Iterator[Engine]:
    """A database with a month of so many records, vacuumed as a ledger that grew over a month would be."""
    name = f"ledger_{records}"
    outside = connect(postgres.url(), application_name="bench").execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with outside.connect() as connection:
        connection.exec_driver_sql(f"create database {name}")
    outside.dispose()
    engine = connect(postgres.url(name), application_name="bench")
    migrate(engine)
    make_directory(engine, _TENANTS, _month())
    started = time.perf_counter()
    _fill(engine, records)
    console.print(f"{records:,} records made in {time.perf_counter() - started:.0f} s")
    yield engine
    engine.dispose()


def _month() -> Period:
    return Period.of(utc_now()).plus(-1)


def _fill(engine: Engine, records: int) -> None:
    """Records in the order in which they would have come, and the sums that posting them would have kept."""
    with engine.begin() as connection:
        position = position_store.ensure_position(connection, "calls.raw", 0, 0)
    for first in range(0, records, _FILL_RECORDS):
        with engine.begin() as connection:
            connection.execute(
                text(_RECORDS_SQL),
                {
                    "first": first,
                    "last": min(first + _FILL_RECORDS, records) - 1,
                    "records": records,
                    "tenants": _TENANTS,
                    "period": _month().first_day,
                    "starts_at": _month().starts_at,
                    "seconds": (_month().ends_at - _month().starts_at).total_seconds() - 1,
                    "position_id": position.id,
                },
            )
    with engine.begin() as connection:
        connection.execute(text(_SUMS_SQL), {"position_id": position.id})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum (analyze) usage_records")


_RECORDS_SQL: Final = """
insert into usage_records (started_date, key, content, period, late, account_id, tenant_id, usage_class, rule,
    assignment_id, switch, record_id, call_id, service, direction, from_number, to_number, source_ip,
    started_at, answered_at, ended_at, answered, answered_seconds, billed_seconds, cost, currency, received_at,
    position_id, kafka_offset)
select (started_at at time zone 'UTC')::date, md5(n::text)::uuid, md5('c' || n)::uuid, :period, false, 1, tenant,
    (array['inbound_conversational', 'outbound_conversational', 'outbound_international', 'inbound_toll_free'])[1 + n % 4],
    case n % 2 when 0 then 'A2' else 'A3' end, tenant, 'sbc-nyc-1', md5('r' || n)::uuid::text, md5('i' || n)::uuid::text,
    'call', case n % 2 when 0 then 'inbound' else 'outbound' end, '+14155550' || lpad((n % 1000)::text, 3, '0'),
    '+12125550' || lpad((n % 1000)::text, 3, '0'), '192.0.2.1'::inet + (n % 200), started_at, answered_at,
    answered_at + make_interval(secs => seconds), answered_at is not null,
    case when answered_at is null then 0 else seconds end, case when answered_at is null then 0 else seconds end,
    case when answered_at is null then 0 else seconds * 0.000142 end, 'USD', started_at + interval '15 minutes',
    :position_id, n
from (
    select n, 1 + floor(:tenants * power(random(), 2))::int as tenant, 6 + floor(random() * 594)::int as seconds,
        started_at, case when n % 10 < 9 then started_at + interval '5 seconds' end as answered_at
    from (
        select n, cast(:starts_at as timestamptz)
            + make_interval(secs => cast(:seconds as float) * (n + random()) / :records) as started_at
        from generate_series(cast(:first as bigint), :last) as n
    ) as begun
) as made
"""
_SUMS_SQL: Final = """
insert into monthly_usage (shard, period, usage_period, account_id, tenant_id, usage_class, currency, attempts, calls,
    answered_seconds, billed_seconds, cost)
select :position_id, period, period, account_id, tenant_id, usage_class, currency, count(*),
    count(*) filter (where answered), sum(answered_seconds), sum(billed_seconds), sum(cost)
from usage_records group by period, account_id, tenant_id, usage_class, currency
"""


def _scan_seconds(engine: Engine) -> float:
    """Seconds of one sequential pass that adds up what a bill is made of."""
    with engine.begin() as connection:
        connection.exec_driver_sql("set local max_parallel_workers_per_gather = 0")
        started = time.perf_counter()
        connection.execute(
            text(
                "select account_id, tenant_id, usage_class, count(*), sum(answered_seconds), sum(billed_seconds), "
                "sum(cost) from usage_records where started_date >= :first and started_date <= :last group by 1, 2, 3"
            ),
            {"first": _month().first_day, "last": _month().last_day},
        ).all()
        return time.perf_counter() - started


def _close_seconds(engine: Engine) -> float:
    """Seconds of the whole close of the sealed month, until it is committed."""
    with engine.begin() as connection:
        connection.execute(
            text("update periods set state = 'sealed', sealed_at = clock_timestamp() where period = :period"),
            {"period": _month().first_day},
        )
    started = time.perf_counter()
    with engine.begin() as connection:
        closed = close_store.close(connection, _month(), EventTopics("statements.closed", "periods.closed"))
    seconds = time.perf_counter() - started
    assert closed.statement_count == _TENANTS + 1, closed.statement_count
    return seconds


def _reconcile_seconds(engine: Engine) -> float:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        started = time.perf_counter()
        found = audit_store.reconcile(connection)
        assert found == (), found[:3]
        return time.perf_counter() - started


def _ingest_rates(traffic: Callable[[], Iterator[bytes]], *engines: Engine) -> list[float]:
    """Records a second that one worker posts into each ledger, batch by batch in turns; decoding is left out."""
    batches = [list(_batches(engine, traffic())) for engine in engines]
    posters = [BatchPoster(engine) for engine in engines]
    seconds: list[list[float]] = [[] for _ in engines]
    for number in range(_BATCHES):
        for poster, mine, taken in zip(posters, batches, seconds, strict=True):
            started = time.perf_counter()
            poster.post(mine[number])
            taken.append(time.perf_counter() - started)
    return [_BATCH_RECORDS / statistics.median(taken[1:]) for taken in seconds]


def _of_one_day() -> Iterator[bytes]:
    """Traffic as it comes: all of one day."""
    for value in call_records(_BATCH_RECORDS * _BATCHES, _TENANTS, _month(), seed=1):
        record = json.loads(value)
        earlier = _LAST_DAY - datetime.fromisoformat(record["started_at"]).day
        for name in ("started_at", "answered_at", "ended_at"):
            record[name] = utc_text(datetime.fromisoformat(record[name]) + timedelta(days=earlier))
        yield json.dumps(record, separators=(",", ":")).encode()


def _strewn() -> Iterator[bytes]:
    """A resend of a whole month in no order: each batch touches every day's pages."""
    return call_records(_BATCH_RECORDS * _BATCHES, _TENANTS, _month(), seed=2)


def _batches(engine: Engine, values: Iterator[bytes]) -> Iterator[PreparedBatch]:
    """Traffic ready to be posted, behind what its partition has read already."""
    settings = Settings()
    with engine.begin() as connection:
        position = position_store.ensure_position(connection, "calls.raw", 1, 0)
    spec = input_spec(settings, settings.inputs_of("calls")[0], position.id)
    snapshot = Snapshots(engine).current
    received_at = _month().ends_at + timedelta(hours=1)
    first = position.next_offset
    while batch := list(islice(values, _BATCH_RECORDS)):
        messages = [Message(first + index, received_at, None, value) for index, value in enumerate(batch)]
        items = prepare(spec, decode(spec, messages), snapshot)
        yield PreparedBatch(position.id, first, first + len(items), items)
        first += len(items)

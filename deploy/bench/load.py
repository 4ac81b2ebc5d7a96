"""How a worker behaves under load: delay, memory with a backlog, and what growth, more workers and SIP events change.

Rates are those of the ingest benchmark (deploy/bench/ingest.py); each ratio is taken within one run.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from confluent_kafka import Producer
from rich.console import Console
from sqlalchemy import Engine, text

from deploy.bench.rig import PARTITIONS, Rig, Run, read_so_far, wait_seconds_max
from deploy.bench.world import again_as_others, call_records, sip_events, strewn
from deploy.stack.child import Child

_TENANTS: Final = 1000
_FEW: Final = 100
_MANY: Final = 10_000
_RECORDS: Final = 1_000_000
_BACKLOG_COPIES: Final = 5  # 5 million records
_MILLION: Final = 1_000_000
# A broker compiles what it does often, and gives its processor to that meanwhile.
_WARM_COPIES: Final = (2, 3, 4)
_WARM_SECONDS: Final = 10  # for each copy
_STEADY_SECONDS: Final = 20
_PARTS: Final = 5  # of the steady time
_LONE_RECORDS: Final = 20
_HEARD_OF: Final = (
    21  # of every so many records one is timed: the sender shares the processor with what it measures
)
_burst_seconds: Final = 0.01
_look_seconds: Final = 0.01


def run(console: Console) -> dict[str, float]:
    """Measure; returns figures by name."""
    figures: dict[str, float] = {}
    with Rig() as rig:
        values = list(call_records(_RECORDS, _TENANTS, rig.period))
        # not measured: a new server makes its log's files, a new broker compiles
        with rig.database(_TENANTS) as engine:
            _calls(rig, engine, values)
        for part in (_workers_and_sip, _latency, _tenants, _ledger, _backlog):
            told = part(rig, values)
            figures |= told
            console.print(
                ", ".join(f"{name} {figure:,.4g}" for name, figure in told.items()), highlight=False
            )
    return figures


def _workers_and_sip(rig: Rig, values: Sequence[bytes]) -> dict[str, float]:
    """Two workers beside one, what waits for locks meanwhile, and SIP events beside calls."""
    with rig.database(_TENANTS) as engine:
        one = _calls(rig, engine, values, workers=1)
    with rig.database(_TENANTS) as engine, _watched_locks(engine) as waits:
        two = _calls(rig, engine, values)
    with rig.database(_TENANTS) as engine:
        events = list(sip_events(len(values), _TENANTS, rig.period))
        topic = rig.topic(events)
        with rig.workers(engine, 2, sip=topic) as workers:
            sip = rig.read_to_end(engine, topic, len(events), workers)
    return {
        "two_workers_to_one": two.records_per_second / one.records_per_second,
        "lock_waits_per_look": statistics.fmean(waits["else"]),
        "extension_waits_per_look": statistics.fmean(waits["extend"]),
        "sip_to_calls": sip.records_per_second / two.records_per_second,
    }


def _latency(rig: Rig, values: Sequence[bytes]) -> dict[str, float]:
    """Milliseconds from Kafka's append to monthly usage: at half of what two workers can, and of lone records.

    Each figure is the median of the steady time's five parts, with the spread.
    """
    with rig.database(_TENANTS) as engine:
        full = _calls(rig, engine, values).records_per_second
    with rig.database(_TENANTS) as engine:
        topic = rig.topic()
        with rig.workers(engine, 2, calls=topic) as workers:
            steady = _Steady(rig, engine, topic)
            steady.send(values[:PARTITIONS])
            steady.wait_for_all(workers)
            lone = []
            for value in values[PARTITIONS : PARTITIONS + _LONE_RECORDS]:
                steady.forget()
                steady.send([value])
                steady.wait_for_all(workers)
                lone += steady.latencies(1)[0]
            for copy in _WARM_COPIES:
                steady.send_at(_as_others(values, copy), full / 2, _WARM_SECONDS)
            steady.wait_for_all(workers)
            steady.forget()
            steady.send_at(values[PARTITIONS + _LONE_RECORDS :], full / 2, _STEADY_SECONDS)
            steady.wait_for_all(workers)
            steady.close()
            cuts = [statistics.quantiles(part, n=100) for part in steady.latencies(_PARTS)]
    medians, last = [each[49] for each in cuts], [each[98] for each in cuts]
    return {
        "latency_records_per_second": full / 2,
        "latency_p50_ms": statistics.median(medians),
        "latency_p50_ms_least": min(medians),
        "latency_p50_ms_most": max(medians),
        "latency_p99_ms": statistics.median(last),
        "latency_p99_ms_most": max(last),
        "latency_lone_max_ms": max(lone),
    }


def _tenants(rig: Rig, values: Sequence[bytes]) -> dict[str, float]:
    """How much dearer a record is with many tenants than with few."""
    rates = {}
    for tenants in (_FEW, _MANY):
        with rig.database(tenants) as engine:
            records = list(call_records(len(values), tenants, rig.period))
            rates[tenants] = _calls(rig, engine, records).records_per_second
    return {"growth_tenants": rates[_FEW] / rates[_MANY]}


def _ledger(rig: Rig, values: Sequence[bytes]) -> dict[str, float]:
    """The rate with 1 and with 10 million rows in the ledger, beside that of an empty one.

    Traffic comes as it does from switches, in the order in which calls started: a batch touches one day's pages. Strewn over
    the month, as when a switch empties a queue of weeks, each record touches a page of its own.
    """
    with rig.database(_TENANTS) as engine:
        empty = _calls(rig, engine, values).records_per_second
        rates = []
        for copy, rows in enumerate((_MILLION, 10 * _MILLION), start=1):
            _fill_ledger(engine, rows)
            rates.append(_calls(rig, engine, _as_others(values, copy)).records_per_second)
        out_of_order = _calls(rig, engine, strewn(_as_others(values, 3))).records_per_second
    return {
        "growth_ledger_1m": rates[0] / empty,
        "growth_ledger": rates[1] / empty,
        "growth_ledger_strewn": out_of_order / empty,
    }


def _as_others(values: Sequence[bytes], copy: int) -> list[bytes]:
    return [value.replace(b'"0001', b'"%04x' % copy) for value in values]


def _backlog(rig: Rig, values: Sequence[bytes]) -> dict[str, float]:
    """The most memory that one worker held while it read a backlog of five million records."""
    with rig.database(_TENANTS) as engine:
        topic = rig.topic(again_as_others(values, _BACKLOG_COPIES))
        with rig.workers(engine, 1, calls=topic) as workers:
            done = rig.read_to_end(engine, topic, len(values) * _BACKLOG_COPIES, workers)
    return {"worker_rss_mib": done.memory_mib_max}


def _calls(rig: Rig, engine: Engine, values: Sequence[bytes], workers: int = 2) -> Run:
    topic = rig.topic(values)
    with rig.workers(engine, workers, calls=topic) as started:
        return rig.read_to_end(engine, topic, len(values), started)


def _fill_ledger(engine: Engine, rows_wanted: int) -> None:
    """Fill the ledger up by copies of its own rows under other identities, spread over the same days."""
    with engine.connect() as connection:
        columns = connection.execute(
            text(
                "select string_agg(attname, ', ' order by attnum) from pg_attribute where attrelid = "
                "'usage_records'::regclass and attnum > 0 and attname not in ('key', 'record_id')"
            )
        ).scalar_one()
        rows = connection.execute(text("select count(*) from usage_records")).scalar_one()
    copies = -(-(rows_wanted - rows) // rows)
    for copy in range(copies):
        with engine.begin() as connection:
            connection.execute(
                text(
                    f"insert into usage_records ({columns}, key, record_id) "  # noqa: S608 (the table's own columns)
                    f"select {columns}, md5(key || :copy)::uuid, record_id || :copy from usage_records "
                    "order by started_date, md5(key || :copy) limit :rows"
                ),
                {"copy": f"-{rows_wanted}-{copy}", "rows": min(rows, rows_wanted - rows - copy * rows)},
            )


@contextmanager
def _watched_locks(engine: Engine) -> Iterator[dict[str, list[int]]]:
    """How many sessions were waiting for a lock, at each look while it lasts: for a table's next page, or for anything else.

    Whoever fills a table's last page adds the next one, alone for some microseconds; that is no lock of a row or a transaction.
    """
    seen: dict[str, list[int]] = {"extend": [], "else": []}
    over = threading.Event()

    def look() -> None:
        query = text(
            "select count(*) filter (where wait_event = 'extend'), count(*) filter (where wait_event <> 'extend') "
            "from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not over.wait(0.05):
                for which, sessions in zip(seen, connection.execute(query).one(), strict=True):
                    seen[which].append(sessions)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


class _Steady:
    """Sends records at a rate, and tells of each how long it took from Kafka's append to monthly usage.

    A partition's records become visible in their order, in the transaction that moves its position: so that says which.
    """

    def __init__(self, rig: Rig, engine: Engine, topic: str) -> None:
        self._engine, self._topic = engine, topic
        # one statement a look, because looking costs what it looks at
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._producer = Producer({"bootstrap.servers": rig.kafka.bootstrap_servers, "linger.ms": 0})
        self._sent = 0
        self._appended: dict[tuple[int, int], float] = {}
        self._seen: list[tuple[float, dict[int, int]]] = []

    def close(self) -> None:
        """Look no more."""
        self._connection.close()

    def send(self, values: Sequence[bytes]) -> None:
        for value in values:
            self._producer.produce(
                self._topic, value=value, partition=self._sent % PARTITIONS, on_delivery=self._delivered
            )
            self._sent += 1
        self._producer.flush()

    def send_at(self, values: Sequence[bytes], rate: float, seconds: float) -> None:
        """Send at a rate a second for so long, or until there is no more, looking at what is visible meanwhile."""
        over = threading.Event()
        looker = threading.Thread(target=self._look_until, args=(over,))
        looker.start()
        started, place = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds and place < len(values):
            due = min(int(elapsed * rate), len(values))
            for value in values[place:due]:
                heard = {"on_delivery": self._delivered} if self._sent % _HEARD_OF == 0 else {}
                self._producer.produce(self._topic, value=value, partition=self._sent % PARTITIONS, **heard)
                self._sent += 1
            place = due
            self._producer.poll(0)
            time.sleep(_burst_seconds)
        self._producer.flush()
        time.sleep(1)
        over.set()
        looker.join()

    def wait_for_all(self, workers: Sequence[Child]) -> None:
        deadline = time.monotonic() + wait_seconds_max
        while read_so_far(self._engine, self._topic) < self._sent:
            self._look()
            if time.monotonic() > deadline or not all(worker.running for worker in workers):
                raise RuntimeError("what was sent did not become visible")
            time.sleep(_look_seconds)
        self._look()

    def forget(self) -> None:
        """Start anew: what was sent so far is measured no more."""
        self._appended.clear()
        self._seen.clear()

    def latencies(self, parts: int) -> list[list[float]]:
        """Milliseconds of each record that was sent since `forget` and is timed, in so many parts of equal length."""
        told: list[list[float]] = [[] for _ in range(parts)]
        first, last = min(self._appended.values()), max(self._appended.values())
        for partition in range(PARTITIONS):
            looks = iter(self._seen)
            at, counts = next(looks)
            for (_, offset), appended in sorted(
                each for each in self._appended.items() if each[0][0] == partition
            ):
                while counts.get(partition, 0) <= offset:
                    at, counts = next(looks)
                part = int((appended - first) / (last - first) * parts) if last > first else 0
                told[min(part, parts - 1)].append((at - appended) * 1000)
        return told

    def _look_until(self, over: threading.Event) -> None:
        while not over.wait(_look_seconds):
            self._look()

    def _look(self) -> None:
        counts = self._visible()
        if not self._seen or self._seen[-1][1] != counts:
            self._seen.append((time.time(), counts))  # noqa: TID251 (beside Kafka's own timestamps)

    def _visible(self) -> dict[int, int]:
        query = text("select partition, next_offset from stream_positions where topic = :topic")
        return {row[0]: row[1] for row in self._connection.execute(query, {"topic": self._topic})}

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            raise RuntimeError(str(error))
        key = message.partition(), message.offset()  # type: ignore[attr-defined]
        self._appended[key] = message.timestamp()[1] / 1000  # type: ignore[attr-defined]

"""What the directory costs with ten million assignments: memory, load, refresh, and look-ups by its size.

The database is a real one, filled first (some minutes, 6 GB on disk for as long as it runs). Look-ups are timed as a
worker makes them, in batches of 2 000 texts and instants, by the CPU time of this process: waiting for nothing, they
are the same on an idle machine. Uniform traffic asks for each number as often as for any other, which no cache likes.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np
import psutil
from rich.console import Console
from sqlalchemy import Engine

from attribution.assets import FOREVER, to_microseconds
from attribution.changes_store import take_change_instant
from attribution.directory import Changes, Directory
from attribution.directory_store import load_directory, refresh_directory, take_fence
from attribution.number_columns import NumberColumns
from deploy.bench.holdings import addresses, make_holdings, move, number_of
from deploy.stack.postgres import EmbeddedPostgres
from pipeline.database import connect, migrate
from schemas.binary import Integers

Figures = dict[str, float]
Ask = Callable[[Sequence[str], Integers], Sequence[object]]

_NUMBERS: Final = 9_000_000
_NETWORKS: Final = 100_000
_TENANTS: Final = 100_000
_SIZES: Final = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
_BATCH: Final = 2_000
_BATCHES: Final = 100
_CHANGES: Final = 1_000
_REFRESHES: Final = 7
_SKEW: Final = 1.2  # exponent of the numbers' share of skewed traffic
_MONTH: Final = datetime(2026, 10, 1, tzinfo=UTC)
_SERVER: Final = ("fsync=off", "full_page_writes=off", "max_wal_size=4GB", "shared_buffers=1GB")
_MIB: Final = 1024 * 1024


def run(console: Console) -> Figures:
    """Measure the directory; returns figures by name, with their unit in it."""
    postgres = EmbeddedPostgres(options=_SERVER)
    postgres.start()
    try:
        engine = connect(postgres.url(), application_name="bench")
        migrate(engine)
        started = time.perf_counter()
        make_holdings(engine, _NUMBERS, _NETWORKS, _TENANTS)
        console.print(f"filled a database in {time.perf_counter() - started:.0f} s")
        figures = _measure(console, engine)
        engine.dispose()
    finally:
        postgres.stop()
    return figures


def _measure(console: Console, engine: Engine) -> Figures:
    figures, directory = _load(engine)
    figures |= _number_figures("10m", directory, _NUMBERS)
    figures |= _network_figures(directory)
    figures["directory_refresh_ms_10m"] = _refresh_milliseconds(console, engine, directory)
    del directory
    for name, numbers in _SIZES.items():
        figures |= _number_figures(name, _directory_of(numbers), numbers)
    return figures


def _load(engine: Engine) -> tuple[Figures, Directory]:
    """How long a load takes, and what it adds to this process: when it is done, and at its height."""
    resident = psutil.Process().memory_info().rss
    started = time.perf_counter()
    directory = _loaded(engine)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {
        "directory_load_s_10m": seconds,
        "directory_rss_mib_10m": (psutil.Process().memory_info().rss - resident) / _MIB,
        "directory_peak_rss_mib_10m": (peak - resident) / _MIB,
    }, directory


def _loaded(engine: Engine, before: Directory | None = None) -> Directory:
    with engine.begin() as connection:
        as_of = take_fence(connection)
    with engine.connect() as connection:
        return refresh_directory(connection, before, as_of) if before else load_directory(connection, as_of)


def _refresh_milliseconds(console: Console, engine: Engine, directory: Directory) -> float:
    """The median time from asking for a fence to a directory with a thousand assets moved, ten of them networks."""
    taken: list[float] = []
    taken_none: list[float] = []
    for turn in range(_REFRESHES):
        first = 1 + turn * _CHANGES * 2
        numbers = [number_of(asset) for asset in range(first, first + _CHANGES * 2) if asset % 100 != 7]
        networks = [f"10.{turn}.{block}.9/32" for block in range(10)]
        with engine.begin() as connection:
            at = take_change_instant(connection)
            assert move(connection, at, numbers[: _CHANGES - len(networks)], networks) == _CHANGES
        for durations in (taken, taken_none):
            started = time.perf_counter()
            directory = _loaded(engine, directory)
            durations.append(time.perf_counter() - started)
    console.print(f"a refresh with nothing changed: {statistics.median(taken_none) * 1000:.1f} ms")
    return statistics.median(taken) * 1000


def _number_figures(size: str, directory: Directory, numbers: int) -> Figures:
    chosen = np.random.default_rng(1)

    def uniform() -> Sequence[str]:
        return [number_of(asset) for asset in chosen.integers(1, numbers + 1, _BATCH).tolist()]

    def skewed() -> Sequence[str]:
        ranks = np.minimum(chosen.zipf(_SKEW, _BATCH), numbers)
        return [number_of(asset) for asset in ranks.tolist()]

    return {
        f"directory_lookup_us_{size}": _microseconds(directory.numbers_in_force, uniform),
        f"directory_lookup_skewed_us_{size}": _microseconds(directory.numbers_in_force, skewed),
    }


def _network_figures(directory: Directory) -> Figures:
    """Addresses of every network in turn: seen for the first time, and again."""
    everywhere = addresses(_NETWORKS)
    np.random.default_rng(1).shuffle(everywhere)
    batches = [everywhere[first : first + _BATCH] for first in range(0, len(everywhere), _BATCH)]

    def turns() -> Iterator[Sequence[str]]:
        while True:
            yield from batches

    asked = turns()
    first = _microseconds(directory.ips_in_force, lambda: next(asked), len(batches))
    return {
        "directory_prefix_first_lookup_us_100k": first,
        "directory_prefix_lookup_us_100k": _microseconds(directory.ips_in_force, lambda: next(asked)),
    }


def _microseconds(ask: Ask, batch: Callable[[], Sequence[str]], batches: int = _BATCHES) -> float:
    """Microseconds of CPU a look-up, in the median batch."""
    spread = np.random.default_rng(2)
    taken = []
    for _ in range(batches):
        texts = batch()
        at = to_microseconds(_MONTH) + (spread.uniform(0, 28 * 86_400, len(texts)) * 1e6).astype(np.int64)
        started = time.process_time()
        found = ask(texts, at)
        taken.append((time.process_time() - started) / len(texts))
        assert sum(each is not None for each in found) > 0.95 * len(texts)
    return statistics.median(taken) * 1e6


def _directory_of(numbers: int) -> Directory:
    """A directory of so many numbers, as a load would make it."""
    assets = np.arange(1, numbers + 1)
    columns = NumberColumns(
        numbers=10_000_000_000 + assets * 104_729 % 7_999_999_993,
        made=to_microseconds(datetime(2018, 1, 1, tzinfo=UTC)) + assets * 5_000_000,
        ended=np.full(numbers, FOREVER),
        ids=assets,
        accounts=1 + assets % 1_000,
        tenants=1 + assets % 100_000,
    )
    return Directory.of(_MONTH, Changes(), columns)

"""The jobs around the agents: resolver, closer and relay, as threads of a worker.

Each is done by one process at a time, whoever holds its lock; every worker stands by for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine

from pipeline.closer import run_closer
from pipeline.relay import run_relay
from pipeline.resolver import run_resolver
from pipeline.settings import Settings

_JOBS: Final[dict[str, Callable[[Settings, Engine, threading.Event], None]]] = {
    "resolver": run_resolver,
    "closer": run_closer,
    "relay": run_relay,
}
_stop_seconds_max: Final = 5.0  # all are crash-safe: what is not done in time is done by the next


@contextmanager
def running_jobs(settings: Settings, engine: Engine) -> Iterator[None]:
    """Run all jobs in the background while the caller does its own work."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=job, args=(settings, engine, stop), name=name, daemon=True)
        for name, job in _JOBS.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(_stop_seconds_max)

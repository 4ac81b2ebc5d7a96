"""A worker's agents inside the test's own process, on a real broker: its faults can be chosen, its end can be seen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from pipeline.settings import Settings
from pipeline.transport import BatchApp
from pipeline.watching import WorkerView
from pipeline.worker import build_app


@contextmanager
def running_worker(settings: Settings, engine: Engine) -> Iterator[BatchApp]:
    """Run the agents in a thread while the block runs."""
    started: list[BatchApp] = []
    ready, stop = threading.Event(), threading.Event()

    async def work() -> None:
        app = build_app(settings, engine, WorkerView())
        await app.start()
        started.append(app)
        ready.set()
        while not (stop.is_set() or app.should_stop):  # noqa: ASYNC110 (one of the two is another thread's)
            await asyncio.sleep(0.05)
        await app.stop()

    thread = threading.Thread(target=lambda: asyncio.run(work()), name="worker")
    thread.start()
    assert ready.wait(60)
    try:
        yield started[0]
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()

"""A worker that stands still in the middle of posting, longer than its group waits, and then goes on as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from deploy.faults import program
from tests.acceptance.test_workers import NUMBER, OCTOBER, Carrier, wait_until
from tests.world import inbound

pytestmark = pytest.mark.kafka

MIDST = "in the transaction, ledger written"


@contextmanager
def workers(carrier: Carrier, folder: Path, number: int) -> Iterator[Sequence[BaseProcess]]:
    """Workers that a fuse can stop."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deploy.faults.program"])
    running = [
        context.Process(
            target=program.run,
            args=(folder, folder / f"worker-{place}.log", carrier.environment),
            daemon=True,
        )
        for place in range(number)
    ]
    for each in running:
        each.start()
    try:
        yield running
    finally:
        for each in running:
            each.kill()
            each.join()


@pytest.mark.slow
def test_what_a_zombie_still_writes_is_refused_and_what_it_held_is_free_meanwhile(
    carrier: Carrier, tmp_path: Path
) -> None:
    calls = [inbound(f"{index:04}", NUMBER, OCTOBER + timedelta(seconds=index)) for index in range(400)]
    with workers(carrier, tmp_path, 2):
        carrier.produce("calls", *calls[:100])
        wait_until(lambda: carrier.received() == 100)
        program.lay(tmp_path, MIDST, "freeze")
        carrier.produce("calls", *calls[100:200])
        wait_until(lambda: program.taken(tmp_path, MIDST) is not None)
        zombie = program.taken(tmp_path, MIDST)
        assert zombie is not None
        carrier.produce("calls", *calls[200:300])
        wait_until(lambda: carrier.received() == 300)  # by the other worker alone
        os.kill(zombie, signal.SIGCONT)
        carrier.produce("calls", *calls[300:], *calls)
        wait_until(lambda: carrier.received() == 800)
        wait_until(_told(tmp_path, "place_lost", "batch_failed", "place_not_found"))
    assert carrier.world.outcomes() == {("posted", ""): 400, ("duplicate", ""): 400}
    assert len(carrier.world.ledger()) == 400


def _told(folder: Path, *events: str) -> Callable[[], bool]:
    """Whether a worker has said one of these of itself."""
    return lambda: any(event in log.read_text() for log in folder.glob("worker-*.log") for event in events)

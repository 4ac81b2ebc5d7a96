"""A worker as it always runs, but that it ends, or stands still, where the campaign has laid a fuse.

A fuse is a file named after a point. Whoever comes to the point first takes it away, and does to itself what it says.
Product code has no hooks: its functions are wrapped by name before the ordinary command line runs.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final

from deploy.faults.plan import POINTS, Point
from pipeline import cli, closer, election, position_store
from rollup import close_store, months_store, outbox_store

SESSION_SECONDS: Final = 2.0
SILENT_SECONDS: Final = 1.5
_PR_SET_PDEATHSIG: Final = 1


def run(folder: Path, log: Path, environment: Mapping[str, str]) -> None:
    """Be a worker. Called in a process of its own, whose environment and output become the worker's."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    os.environ.clear()  # noqa: TID251 (this process becomes the worker)
    os.environ.update(environment)  # noqa: TID251 (same)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    election.silent_seconds_max = SILENT_SECONDS
    for module, name, seconds in (
        (position_store, "silent_seconds_max", SILENT_SECONDS),
        (position_store, "lock_wait_seconds_max", 3),
        (position_store, "idle_seconds_max", 3),
        (months_store, "seal_wait_seconds_max", 2),
        (outbox_store, "frozen_seconds_max", 2),
        (close_store, "frozen_seconds_max", 3),
    ):
        setattr(module, name, seconds)
    for point in POINTS:
        _wrap(point, folder)
    _gate(folder)
    sys.argv = ["tenant-billing", "worker"]
    cli.main()


def lay(folder: Path, point: str, action: str) -> None:
    """Lay a fuse: whoever comes to the point is killed (`kill`) or stands still (`freeze`)."""
    beside = folder / "fuse.new"
    beside.write_text(action)
    beside.replace(_fuse(folder, point))


def taken(folder: Path, point: str) -> int | None:
    """Which process has met a fuse, if one has."""
    claims = [*folder.glob(f"{_fuse(folder, point).name}.*")]
    return int(claims[0].suffix[1:]) if claims else None


def clear(folder: Path, point: str) -> None:
    """Take a fuse away, met or not."""
    for each in folder.glob(f"{_fuse(folder, point).name}*"):
        each.unlink(missing_ok=True)


def _fuse(folder: Path, point: str) -> Path:
    return folder / ("fuse-" + point.replace(" ", "-").replace(",", ""))


def _wrap(point: Point, folder: Path) -> None:
    owner: Any = importlib.import_module(point.module)
    *classes, name = point.function.split(".")
    for each in classes:
        owner = getattr(owner, each)
    setattr(owner, name, _fused(getattr(owner, name), _fuse(folder, point.name), after=point.after))


def _fused(function: Callable[..., Any], fuse: Path, *, after: bool) -> Callable[..., Any]:
    @wraps(function)
    def fused(*args: Any, **options: Any) -> Any:  # noqa: ANN401 (whatever the product's function takes and gives)
        if not after:
            _meet(fuse)
        result = function(*args, **options)
        if after:
            _meet(fuse)
        return result

    return fused


def _meet(fuse: Path) -> None:
    if not fuse.exists():
        return
    action = fuse.read_text() if fuse.exists() else ""
    try:
        fuse.rename(f"{fuse}.{os.getpid()}")
    except FileNotFoundError:
        return  # another was faster
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def _gate(folder: Path) -> None:
    """Months close when the campaign says so: their cutoffs have all passed long ago."""
    close_month = closer.close_month

    def gated(*args: Any) -> Any:  # noqa: ANN401 (same)
        period = args[3]
        gate = folder / "gate"
        if not gate.exists() or str(period) > gate.read_text():
            return closer.Waiting(period, ())
        return close_month(*args)

    closer.close_month = gated  # type: ignore[assignment] # takes and gives the same

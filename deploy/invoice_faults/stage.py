"""What the campaign plays on: two invoicers, Stripe's sandbox, a broker, a Postgres, and one clock for all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from deploy.invoice_faults import world_store
from deploy.invoice_faults.program import FROZEN_SECONDS_MAX
from deploy.stack import sandbox_door
from deploy.stack.child import Child

INVOICERS: Final = ("invoicer-a", "invoicer-b")
TICK: Final = timedelta(seconds=10)
TICK_SECONDS: Final = 0.2
_PER_SECOND_MAX: Final = 500  # far above what the machine can do: here it is not the pace that is tried
_start_seconds_max: Final = 60.0
_OURS: Final = ("TENANT_BILLING_", "STRIPE_", "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")


@dataclass
class Counts:
    """What was done to them."""

    kills: int = 0
    freezes: int = 0
    died_of_frost: int = 0
    sessions_cut: int = 0
    days_passed_over: int = 0
    other_ends: list[str] = field(default_factory=list)


class Stage:
    """The invoicers and their clock. `folder` takes their logs and the clock."""

    def __init__(self, folder: Path, engine: Engine, addresses: dict[str, str], now: datetime) -> None:
        self.engine = engine
        self.counts = Counts()
        self.now = now
        self._folder = folder
        self._sandbox_url = addresses["STRIPE_API_BASE"]
        ours = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}  # noqa: TID251 (passed on)
        self._environment = {
            **ours,
            **addresses,
            "TENANT_BILLING_STRIPE_REQUESTS_PER_SECOND_MAX": str(_PER_SECOND_MAX),
            "TENANT_BILLING_INVOICER_INTERVAL_SECONDS": "0.05",
            "TENANT_BILLING_SESSION_TIMEOUT_SECONDS": "2",
            "TENANT_BILLING_LOG_LEVEL": "error",
        }
        self._children: dict[str, Child] = {}
        self._set_clock(now)

    def start_all(self) -> None:
        """Start the invoicers that do not run."""
        for name in INVOICERS:
            if name not in self._children:
                self._start(name)

    def tick(self) -> None:
        """Let some time pass; an invoicer that ended by itself is noted, and started again."""
        time.sleep(TICK_SECONDS)
        self._set_clock(self.now + TICK)
        for name, child in list(self._children.items()):
            if not child.running:
                self.counts.other_ends.append(f"{name}: {child.process.returncode}; {self._log_tail(name)}")
                self._start(name)

    def kill(self, name: str) -> None:
        """SIGKILL, and start it again."""
        self._kill(name)
        self._start(name)

    def pass_over(self, span: timedelta) -> None:
        """Kill all, let so long go by with nobody at work, and start them again."""
        for name in INVOICERS:
            self._kill(name)
        while sandbox_door.requests_under_way(self._sandbox_url):
            time.sleep(0.05)  # in so long a time every request has come to its end
        self._set_clock(self.now + span)
        self.counts.days_passed_over += 1
        self.start_all()

    def freeze(self, name: str) -> None:
        """SIGSTOP, its database sessions lost meanwhile, and SIGCONT: it must die before it does anything."""
        self._wait_until_at_work(name)
        child = self._children[name]
        child.process.send_signal(signal.SIGSTOP)
        self.cut_sessions([name])
        deadline = time.monotonic() + FROZEN_SECONDS_MAX + 0.5
        while time.monotonic() < deadline:
            self.tick()
        child.process.send_signal(signal.SIGCONT)
        self.counts.freezes += 1
        try:
            ended = child.process.wait(10)
        except subprocess.TimeoutExpired:
            ended = 0
            child.kill()
        self.counts.died_of_frost += ended == -signal.SIGALRM
        del self._children[name]
        self._start(name)

    def cut_sessions(self, names: Iterable[str]) -> None:
        """Have Postgres end an invoicer's connections, and with them its locks: the other may take its accounts."""
        with self.engine.begin() as connection:
            self.counts.sessions_cut += world_store.cut_sessions(connection, list(names))

    def stop(self) -> None:
        """Ask all to end."""
        for name in list(self._children):
            self._children.pop(name).stop(20)

    def _wait_until_at_work(self, name: str) -> None:
        """One that has only just been started believes nothing yet, and may go on after a freeze."""
        deadline = time.monotonic() + _start_seconds_max
        while time.monotonic() < deadline:
            with self.engine.begin() as connection:
                if world_store.sessions(connection, name):
                    return
            self.tick()

    def _start(self, name: str) -> None:
        with self._log(name).open("ab") as log:
            program = ["-m", "deploy.invoice_faults.program", name, str(self._clock_file)]
            self._children[name] = Child(
                [sys.executable, *program], stdout=log, environment=self._environment
            )

    def _kill(self, name: str) -> None:
        self._children.pop(name).kill()
        self.counts.kills += 1

    def _set_clock(self, now: datetime) -> None:
        beside = self._folder / "clock.new"
        beside.write_text(now.isoformat())
        beside.replace(self._clock_file)
        sandbox_door.move_clock(self._sandbox_url, now)
        self.now = now

    def _log_tail(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-1500:]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    @property
    def _clock_file(self) -> Path:
        return self._folder / "clock"

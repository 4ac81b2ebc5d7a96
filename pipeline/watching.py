"""What a service shows of itself while it runs: its health, and what Prometheus asks.

Without a port (`metrics_port` 0) nothing is opened and nothing is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from prometheus_client import REGISTRY
from sqlalchemy import Engine

from pipeline.health import Health, Pulse, database_answers, door
from pipeline.kafka_logs import KafkaLogs
from pipeline.metrics import catalogue
from pipeline.metrics.lag import LagWatch, Partition
from pipeline.metrics.observer import Observer, Reading, Sample
from pipeline.metrics.readings import invoicer_readings, worker_readings
from pipeline.settings import Settings
from pipeline.snapshot import Snapshots
from pipeline.transport import BatchApp


@dataclass(slots=True)
class WorkerView:
    """The worker inside this process, as far as it has come; `build_app` fills it in."""

    app: BatchApp | None = None
    snapshots: Snapshots | None = None

    def partitions(self) -> frozenset[Partition]:
        """The partitions it reads, their positions loaded."""
        placed = self.app.placed if self.app else frozenset()
        return frozenset((tp.topic, tp.partition) for tp in placed)

    def directory_loaded(self) -> str | None:
        """A check."""
        return None if self.snapshots else "is not loaded yet"

    def positions_loaded(self) -> str | None:
        """A check; a worker that stands by, with no partition for it, has none to load."""
        if self.app is not None and (self.app.unassigned or self.app.placed):
            return None
        return "are not loaded yet"

    def samples(self) -> Sequence[Sample]:
        """What there is to tell without asking anyone."""
        as_of = [self.snapshots.current.as_of.timestamp()] if self.snapshots else []
        return [
            Sample(catalogue.ASSIGNED_PARTITIONS, (), len(self.partitions())),
            *(Sample(catalogue.DIRECTORY_AS_OF, (), instant) for instant in as_of),
        ]


@contextmanager
def watched_worker(settings: Settings, engine: Engine) -> Iterator[WorkerView]:
    """Show a worker while the block runs; the block fills in the view.

    Raises:
        PortTakenError: the port cannot be had.
    """
    view = WorkerView()
    if not settings.metrics_port:
        yield view
        return
    lag = LagWatch(
        engine,
        KafkaLogs(settings.kafka_bootstrap_servers, settings.kafka_security),
        [each.topic for each in settings.inputs],
        view.partitions,
        time.monotonic,
    )

    def partitions_move() -> str | None:
        stuck = lag.stuck_seconds > settings.stuck_seconds_max
        return f"one has not moved for more than {settings.stuck_seconds_max:g} s" if stuck else None

    often = settings.observe_interval_seconds
    inside = (Reading("worker", often, view.samples), *worker_readings(settings, engine))
    health = Health(
        ready={
            "database": lambda: database_answers(engine),
            "directory": view.directory_loaded,
            "positions": view.positions_loaded,
        },
        live={"partitions": partitions_move},
    )
    # Kafka's answers may be long in coming: they have a thread of their own
    with _shown(settings, health, [inside, [Reading("lag", often, lag.read)]]):
        yield view


@contextmanager
def watched_invoicer(settings: Settings, engine: Engine) -> Iterator[Pulse]:
    """Show an invoicer while the block runs; its loops `beat` the pulse as `scheduler`, `consumer` and `assigned`.

    Raises:
        PortTakenError: the port cannot be had.
    """
    pulse = Pulse(time.monotonic)
    if not settings.metrics_port:
        yield pulse
        return
    stuck = settings.stuck_seconds_max
    health = Health(
        ready={
            "database": lambda: database_answers(engine),
            "events": lambda: pulse.begun("assigned"),
            "scheduler": lambda: pulse.begun("scheduler"),
        },
        live={
            "events": lambda: pulse.beats("consumer", stuck),
            "scheduler": lambda: pulse.beats("scheduler", stuck),
        },
    )
    with _shown(settings, health, [invoicer_readings(settings, engine)]):
        yield pulse


@contextmanager
def _shown(settings: Settings, health: Health, readings: Sequence[Sequence[Reading]]) -> Iterator[None]:
    """The port open, and what is told read in the background, each group by itself."""
    stop = Event()
    observer = Observer(readings, time.monotonic)
    with door(settings.metrics_host, settings.metrics_port, health):
        REGISTRY.register(observer)
        observer.start(stop)
        try:
            yield
        finally:
            stop.set()
            REGISTRY.unregister(observer)

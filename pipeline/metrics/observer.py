"""Telling Prometheus what Postgres and Kafka hold: read in the background, so that a scrape never waits for either.

Each reading is tried by itself: one that fails takes none with it. What it told last is repeated for a short while, then
left out, so that no alert is silent on figures from before an outage.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final, NamedTuple

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from pipeline.metrics.catalogue import READING_UP, Kind, Metric

_log = structlog.get_logger(__name__)
_periods_kept: Final = 3
_WORD: Final = re.compile(r"[a-z][a-z_]{0,39}")
words_max: Final = 40
OTHER: Final = "other"


class Sample(NamedTuple):
    """One value of a metric, with its labels in the metric's order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Something that is read as a whole, every so often; what it raises is logged by its kind."""

    name: str
    every_seconds: float
    read: Callable[[], Sequence[Sample]]


@dataclass(slots=True)
class _Latest:
    samples: Sequence[Sample] = ()
    read_at: float = float("-inf")
    tried_at: float = float("-inf")
    up: bool = False


class Observer(Collector):
    """Reads each group in a thread of its own, so that none waits for another's, and hands each scrape the latest values.

    `monotonic` gives seconds that only grow.
    """

    def __init__(self, groups: Sequence[Sequence[Reading]], monotonic: Callable[[], float]) -> None:
        self._groups = groups
        self._readings = {each: _Latest() for group in groups for each in group}
        self._monotonic = monotonic

    def start(self, stop: Event) -> None:
        """Read until `stop`."""
        for group in self._groups:
            Thread(target=self._run, args=(group, stop), name="observer", daemon=True).start()

    def read_due(self, group: Sequence[Reading]) -> None:
        """Try each reading of a group whose time has come."""
        for reading in group:
            latest = self._readings[reading]
            if self._monotonic() >= latest.tried_at + reading.every_seconds:
                self._read(reading, latest)

    def collect(self) -> Iterator[Family]:
        """What Prometheus asks for at a scrape."""
        now = self._monotonic()
        samples = [
            sample
            for reading, latest in self._readings.items()
            if now <= latest.read_at + _periods_kept * reading.every_seconds
            for sample in latest.samples
        ]
        tried = [(each, latest) for each, latest in self._readings.items() if latest.tried_at > float("-inf")]
        samples += [Sample(READING_UP, (each.name,), float(latest.up)) for each, latest in tried]
        yield from families(samples)

    def describe(self) -> Iterable[Family]:
        """Nothing is promised beforehand: what is told depends on what could be read."""
        return ()

    def _run(self, group: Sequence[Reading], stop: Event) -> None:
        pause = min(each.every_seconds for each in group) / 2
        while not stop.is_set():
            self.read_due(group)
            stop.wait(pause)

    def _read(self, reading: Reading, latest: _Latest) -> None:
        try:
            latest.samples = reading.read()
            latest.read_at = self._monotonic()
            up = True
        except Exception as error:  # noqa: BLE001 (whatever an outage raises, the next try may work)
            up = False
            if latest.up or latest.tried_at == float("-inf"):
                _log.warning("reading_failed", reading=reading.name, error=type(error).__name__)
        latest.up, latest.tried_at = up, self._monotonic()


def families(samples: Iterable[Sample]) -> Iterator[Family]:
    """Samples by metric, in Prometheus's own form; several of the same labels are added up."""
    by_metric: defaultdict[Metric, defaultdict[tuple[str, ...], float]] = defaultdict(
        lambda: defaultdict(float)
    )
    for sample in samples:
        by_metric[sample.metric][sample.labels] += sample.value
    for metric, values in by_metric.items():
        shape = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
        family = shape(metric.full_name, metric.meaning, labels=metric.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        yield family


def bounded(words: Iterable[str]) -> dict[str, str]:
    """What each word may be called in a label: itself, if it is one of the program's kind and there are not too many.

    A second door behind the first: reasons come from code, and a mistake there must not put a record's content, or
    endless series, into Prometheus.
    """
    known = sorted({word for word in words if _WORD.fullmatch(word) or not word})[:words_max]
    return defaultdict(lambda: OTHER, {word: word for word in known})

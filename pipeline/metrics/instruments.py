"""What a process counts while it works: the catalogue's own metrics, ready to be moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final, Literal

import prometheus_client

from pipeline.metrics import catalogue
from pipeline.metrics.catalogue import Metric

Step = Literal["decode", "attribute", "post"]

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # one series more for each counter, which nobody asks for


def _counter(metric: Metric) -> prometheus_client.Counter:
    return prometheus_client.Counter(metric.full_name, metric.meaning, metric.labels)


def _histogram(metric: Metric) -> prometheus_client.Histogram:
    return prometheus_client.Histogram(
        metric.full_name, metric.meaning, metric.labels, buckets=metric.buckets
    )


RECORDS: Final = _counter(catalogue.RECORDS)
BATCH_RECORDS: Final = _histogram(catalogue.BATCH_RECORDS)
BATCH_STEP_SECONDS: Final = _histogram(catalogue.BATCH_STEP_SECONDS)
BATCH_FAILURES: Final = _counter(catalogue.BATCH_FAILURES)
PLACES_LOST: Final = _counter(catalogue.PLACES_LOST)
RELEASED: Final = _counter(catalogue.RELEASED)
EVENTS: Final = _counter(catalogue.EVENTS)
STRIPE_REQUESTS: Final = _counter(catalogue.STRIPE_REQUESTS)
STRIPE_SECONDS: Final = _histogram(catalogue.STRIPE_SECONDS)


class Steps:
    """How long each step of one batch of a topic takes; a step may be taken in several goes."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._seconds: dict[Step, float] = {}

    @contextmanager
    def timed(self, step: Step) -> Iterator[None]:
        """One go of a step."""
        started = perf_counter()
        yield
        self._seconds[step] = self._seconds.get(step, 0.0) + perf_counter() - started

    def tell(self) -> None:
        """Observe what was measured."""
        for step, seconds in self._seconds.items():
            BATCH_STEP_SECONDS.labels(topic=self._topic, step=step).observe(seconds)

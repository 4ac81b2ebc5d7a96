"""What Prometheus is told: one catalogue, what a process counts itself, and what is read from Postgres and Kafka."""

from pipeline.metrics.instruments import (
    BATCH_FAILURES,
    BATCH_RECORDS,
    EVENTS,
    PLACES_LOST,
    RECORDS,
    RELEASED,
    STRIPE_REQUESTS,
    STRIPE_SECONDS,
    Steps,
)

__all__ = [
    "BATCH_FAILURES",
    "BATCH_RECORDS",
    "EVENTS",
    "PLACES_LOST",
    "RECORDS",
    "RELEASED",
    "STRIPE_REQUESTS",
    "STRIPE_SECONDS",
    "Steps",
]

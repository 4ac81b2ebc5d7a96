"""The one catalogue of metrics: name, kind, unit and meaning of each; labels small and bounded."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECORDS: Final = Counter(
    "tenant_billing_records_total",
    "Records that came to an outcome (conservation).",
    ["topic", "outcome", "reason"],
)
POSTING_SECONDS: Final = Histogram(
    "tenant_billing_posting_seconds",
    "Seconds from handing a batch to Postgres to its commit.",
    ["topic"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
BATCH_FAILURES: Final = Counter(
    "tenant_billing_batch_failures_total", "Batches that failed and were read again.", ["topic"]
)
HELD: Final = Gauge("tenant_billing_held_records", "Records that wait for their tenant to be told.")
RELEASED: Final = Counter("tenant_billing_released_records_total", "Held records that the resolver decided.")

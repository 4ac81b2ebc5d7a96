"""`deploy/metrics.md`, made from the catalogue: `python -m pipeline.metrics.documentation` prints it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pipeline.metrics.catalogue import CATALOGUE, LABELS, Metric, Source, labels_in_use

_HEAD = """# Metrics

Made from the catalogue in [`pipeline/metrics/catalogue.py`](../pipeline/metrics/catalogue.py) by `make metrics`; do not edit.

Workers and invoicers tell these at `/metrics` of `TENANT_BILLING_METRICS_PORT`, beside Python's own (`process_…`, `python_…`). What a process
tells **of itself** is added up over processes: `sum`. What it tells **of the installation** was read from Postgres or Kafka and is the same
whoever tells it: `max`, never `sum`. The rules in [`prometheus/rules/recording.yml`](prometheus/rules/recording.yml) do so already.
"""


def page() -> str:
    """The whole page."""
    return "\n".join((_HEAD, *_sections(), *_labels())) + "\n"


def _sections() -> Iterator[str]:
    for source in Source:
        metrics = [metric for metric in CATALOGUE if metric.source is source]
        yield f"## Told by {source}\n"
        yield "| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|"
        yield from map(_row, metrics)
        yield ""


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.full_name}` | {metric.kind} | {metric.unit} | {labels} | {metric.meaning} |"


def _labels() -> Iterator[str]:
    yield "## Labels\n\nFew and bounded; never a phone number, an address or an Account ID.\n"
    yield "| label | values |\n|---|---|"
    for label in labels_in_use():
        yield f"| `{label}` | {LABELS[label]} |"


if __name__ == "__main__":
    sys.stdout.write(page())

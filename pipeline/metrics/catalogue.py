"""The one catalogue of metrics: what each is called, counts and means. `deploy/metrics.md` is made from it.

Labels are few and bounded: topics and partitions of the installation, states and reasons that the program knows. Never a
phone number, an address, an Account ID, or anything else that a record says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PREFIX: Final = "tenant_billing_"


class Kind(StrEnum):
    """How a value moves: a counter only grows, a gauge goes both ways, a histogram counts observations by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Who tells a metric, and so how several processes' values are put together.

    What a process did itself is added up over processes. What is read from Postgres or Kafka is the installation's, the
    same whoever tells it: of several processes the largest is taken, never the sum.
    """

    WORKER = "each worker, of itself"
    INVOICER = "each invoicer, of itself"
    SERVICE = "each worker and invoicer, of itself"
    BY_WORKER = "each worker, of the installation"
    BY_INVOICER = "each invoicer, of the installation"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `name` lacks the common prefix; `unit` is what one is; `buckets` are a histogram's upper bounds."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    source: Source
    meaning: str
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As Prometheus knows it."""
        return PREFIX + self.name

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its time series: a histogram has three."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.full_name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.full_name,)


LABELS: Final = {
    "currency": "ISO 4217, of accounts",
    "directory": "`accounts`, `tenants`, `numbers`, `ips`",
    "notice": "`untaxed`, `changed`, `no_payment_method`, `other`",
    "outcome": "of a record: `posted`, `duplicate`, `held`, `quarantined`, `ignored`, `context`; "
    "of an event: `acknowledged`, `refused`; of a request: `ok`, `temporary`, `permission`, `refused`",
    "owner": "`account`: its unassigned usage; `nobody`: the carrier's unowned usage",
    "partition": "Kafka's number of it",
    "reading": "a group of the metrics below, read together",
    "reason": "why a record came to its outcome, or what a month waits for: words of the program, never of a record",
    "state": "of a month or an invoice",
    "step": "`decode`, `attribute`, `post`: what is done with a batch",
    "term": "`received`, `held`, `quarantined`, `posted`: which two sides are compared",
    "topic": "a topic of the installation",
}

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RECORDS: Final = (1, 10, 100, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000)

# What a process counts while it works.
RECORDS: Final = Metric(
    "records_total",
    Kind.COUNTER,
    "records",
    ("topic", "outcome", "reason"),
    Source.WORKER,
    "Records that this worker has committed, by what they came to.",
)
BATCH_RECORDS: Final = Metric(
    "batch_records",
    Kind.HISTOGRAM,
    "records",
    ("topic",),
    Source.WORKER,
    "Records of one transaction: one batch, or several that were waiting together.",
    _RECORDS,
)
BATCH_STEP_SECONDS: Final = Metric(
    "batch_step_seconds",
    Kind.HISTOGRAM,
    "seconds",
    ("topic", "step"),
    Source.WORKER,
    "How long one step of a batch takes: decode and attribute per batch, post from the hand-over to the commit.",
    _SECONDS,
)
BATCH_FAILURES: Final = Metric(
    "batch_failures_total",
    Kind.COUNTER,
    "batches",
    ("topic",),
    Source.WORKER,
    "Batches that failed and were read again; nothing of them was written.",
)
PLACES_LOST: Final = Metric(
    "places_lost_total",
    Kind.COUNTER,
    "batches",
    ("topic",),
    Source.WORKER,
    "Batches that found their position elsewhere: another worker had the partition. Harmless, if rare.",
)
RELEASED: Final = Metric(
    "released_records_total",
    Kind.COUNTER,
    "records",
    (),
    Source.WORKER,
    "Held records that this worker's resolver decided.",
)
DIRECTORY_AS_OF: Final = Metric(
    "directory_as_of_timestamp_seconds",
    Kind.GAUGE,
    "seconds since 1970",
    (),
    Source.WORKER,
    "The instant up to which this worker's directory is complete; it moves when a later call comes in (A7).",
)
ASSIGNED_PARTITIONS: Final = Metric(
    "assigned_partitions",
    Kind.GAUGE,
    "partitions",
    (),
    Source.WORKER,
    "Partitions that this worker reads, their positions loaded.",
)
STUCK_SECONDS: Final = Metric(
    "stuck_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    Source.WORKER,
    "The longest that one of this worker's partitions has held unread records without its position moving; 0: none.",
)
EVENTS: Final = Metric(
    "events_total",
    Kind.COUNTER,
    "events",
    ("topic", "outcome"),
    Source.WORKER,
    "Events that this worker's relay has sent, by the broker's word.",
)
STRIPE_REQUESTS: Final = Metric(
    "stripe_requests_total",
    Kind.COUNTER,
    "requests",
    ("outcome",),
    Source.INVOICER,
    "Requests to Stripe, repeats by the library included in one: temporary ones are made again later (I8).",
)
STRIPE_SECONDS: Final = Metric(
    "stripe_request_seconds",
    Kind.HISTOGRAM,
    "seconds",
    (),
    Source.INVOICER,
    "How long a request to Stripe takes, the wait for its turn included.",
    _SECONDS,
)
READING_UP: Final = Metric(
    "reading_up",
    Kind.GAUGE,
    "1 or 0",
    ("reading",),
    Source.SERVICE,
    "Whether the latest reading worked. What one that fails would tell is left out after a while, rather than told old.",
)

# What is read from Postgres and Kafka: by workers, of the stream and the months.
RECEIVED: Final = Metric(
    "received_records_total",
    Kind.COUNTER,
    "records",
    ("topic",),
    Source.BY_WORKER,
    "Records received since the beginning: the left side of conservation.",
)
OUTCOMES: Final = Metric(
    "outcome_records",
    Kind.GAUGE,
    "records",
    ("topic", "outcome", "reason"),
    Source.BY_WORKER,
    "What has become of all records received: the terms of conservation. Releases and replays move them.",
)
CONSERVATION_DIFFERENCE: Final = Metric(
    "conservation_difference_records",
    Kind.GAUGE,
    "records",
    ("topic", "term"),
    Source.BY_WORKER,
    "By how many records conservation fails: received against the sum of outcomes; held, quarantined and posted against "
    "the rows that wait, are kept, and are in the ledger. Anything but 0 is a fault.",
)
LAG_RECORDS: Final = Metric(
    "lag_records",
    Kind.GAUGE,
    "records",
    ("topic", "partition"),
    Source.BY_WORKER,
    "Offsets between the stored position and the end of Kafka's log.",
)
LAG_SECONDS: Final = Metric(
    "lag_seconds",
    Kind.GAUGE,
    "seconds",
    ("topic", "partition"),
    Source.BY_WORKER,
    "How long the oldest unread record can have been waiting at most; 0 where everything was read.",
)
OFFSET_GAP: Final = Metric(
    "offset_gap_records_total",
    Kind.COUNTER,
    "records",
    ("topic", "partition"),
    Source.BY_WORKER,
    "Records that Kafka had dropped before they were read.",
)
HELD: Final = Metric(
    "held_records",
    Kind.GAUGE,
    "records",
    ("reason",),
    Source.BY_WORKER,
    "Records that wait for their tenant to be told.",
)
HELD_OLDEST: Final = Metric(
    "held_oldest_seconds",
    Kind.GAUGE,
    "seconds",
    ("reason",),
    Source.BY_WORKER,
    "How long ago the oldest held record was received; 0 where none waits.",
)
HELD_OVERDUE: Final = Metric(
    "held_overdue_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    Source.BY_WORKER,
    "How long the longest held record has waited beyond its time: more than a little means that the resolver does not "
    "work, or that SIP events are not read.",
)
QUARANTINED: Final = Metric(
    "quarantined_records",
    Kind.GAUGE,
    "records",
    ("reason",),
    Source.BY_WORKER,
    "Records in quarantine that nobody has replayed or discarded yet.",
)
HEADER_IGNORED: Final = Metric(
    "header_ignored_records",
    Kind.GAUGE,
    "records",
    (),
    Source.BY_WORKER,
    "Records posted to months that are not closed, whose X-Tenant header named someone else than their dedicated IP's "
    "tenant (A4).",
)
UNATTRIBUTED: Final = Metric(
    "unattributed_records",
    Kind.GAUGE,
    "records",
    ("owner",),
    Source.BY_WORKER,
    "Records without a tenant in months that are not closed.",
)
DIRECTORY_ENTRIES: Final = Metric(
    "directory_entries",
    Kind.GAUGE,
    "rows",
    ("directory",),
    Source.BY_WORKER,
    "The directory's size: accounts, and tenants and assignments in force.",
)
PERIODS: Final = Metric(
    "periods",
    Kind.GAUGE,
    "months",
    ("state",),
    Source.BY_WORKER,
    "Months by state.",
)
MONTHS_AHEAD: Final = Metric(
    "months_ahead",
    Kind.GAUGE,
    "months",
    (),
    Source.BY_WORKER,
    "Months made beyond the present one: without the next one its first records would fail.",
)
CLOSE_OVERDUE: Final = Metric(
    "close_overdue_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    Source.BY_WORKER,
    "How long the oldest month that is not closed could have been closing already, by its cutoff; 0: none could.",
)
CLOSE_WAITS: Final = Metric(
    "close_waits",
    Kind.GAUGE,
    "things",
    ("reason",),
    Source.BY_WORKER,
    "What the oldest month that is over and open still waits for; `tenant-billing period status` says it in words.",
)
SEALED_SECONDS: Final = Metric(
    "sealed_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    Source.BY_WORKER,
    "How long the longest sealed month has been without its statements; 0: none is.",
)
OUTBOX: Final = Metric(
    "outbox_events",
    Kind.GAUGE,
    "events",
    (),
    Source.BY_WORKER,
    "Events that wait to be published.",
)
OUTBOX_OLDEST: Final = Metric(
    "outbox_oldest_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    Source.BY_WORKER,
    "How long the oldest event has waited to be published; 0 where none does.",
)
CHAIN_BREAKS: Final = Metric(
    "statement_chain_breaks",
    Kind.GAUGE,
    "links",
    (),
    Source.BY_WORKER,
    "Broken or missing links among the latest statements' hashes (C7); `tenant-billing reconcile` checks all of them.",
)

# By invoicers, of the invoices.
INVOICES: Final = Metric(
    "invoices",
    Kind.GAUGE,
    "invoices",
    ("state",),
    Source.BY_INVOICER,
    "Invoices by state.",
)
INVOICE_OVERDUE: Final = Metric(
    "invoice_overdue_seconds",
    Kind.GAUGE,
    "seconds",
    (),
    Source.BY_INVOICER,
    "How long the longest invoice has been due to be worked on; those of paused accounts are left out.",
)
INVOICE_NOTICES: Final = Metric(
    "invoice_notices",
    Kind.GAUGE,
    "invoices",
    ("notice",),
    Source.BY_INVOICER,
    "Invoices of the last three months that went otherwise than the profile asked.",
)
PAUSED_ACCOUNTS: Final = Metric(
    "paused_accounts",
    Kind.GAUGE,
    "accounts",
    (),
    Source.BY_INVOICER,
    "Accounts whose Stripe refuses us, so that none of their invoices is worked on (I8).",
)
REFUSED_EVENTS: Final = Metric(
    "refused_events",
    Kind.GAUGE,
    "events",
    (),
    Source.BY_INVOICER,
    "Statement-closed events that the invoicer could not take, unresolved.",
)
UNHEARD_STATEMENTS: Final = Metric(
    "unheard_statements",
    Kind.GAUGE,
    "statements",
    (),
    Source.BY_INVOICER,
    "Tenants' statements of the last three months of whose closing the invoicer has not heard.",
)
PHANTOM_FEES: Final = Metric(
    "phantom_fees_total",
    Kind.COUNTER,
    "fees",
    ("currency",),
    Source.BY_INVOICER,
    "Phantom fees charged to accounts (I6).",
)
PHANTOM_FEE_AMOUNT: Final = Metric(
    "phantom_fee_amount_total",
    Kind.COUNTER,
    "units of the currency",
    ("currency",),
    Source.BY_INVOICER,
    "What the phantom fees come to; an indication: the exact amounts are in `tenant-billing fees`.",
)

CATALOGUE: Final = tuple(each for each in globals().values() if isinstance(each, Metric))


def labels_in_use() -> Iterator[str]:
    """Every label of the catalogue, by name."""
    yield from sorted({label for metric in CATALOGUE for label in metric.labels})

"""What is read for Prometheus, and by whom: the stream and the months by workers, the invoices by invoicers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine, text

from invoicing import listing_store
from invoicing.invoicer import NO_PAYMENT_METHOD
from invoicing.refresh import CHANGED, UNTAXED
from invoicing.states import State
from pipeline import metrics_store
from pipeline.metrics import catalogue
from pipeline.metrics.catalogue import Metric
from pipeline.metrics.observer import OTHER, Reading, Sample, bounded
from pipeline.settings import Settings
from rollup import conservation_store, months_store, reading_store
from rollup.months_store import BlockerKind, PeriodRow, Waits, cutoff_margin

_seldom: Final = 6  # what costs more is read so much less often
_statement_seconds_max: Final = 5
_NOTICES: Final = {UNTAXED: "untaxed", CHANGED: "changed", NO_PAYMENT_METHOD: "no_payment_method"}
_PERIOD_STATES: Final = ("open", "sealed", "closed")

Ask = Callable[[Connection], Sequence[Sample]]


def worker_readings(settings: Settings, engine: Engine) -> tuple[Reading, ...]:
    """What a worker tells of the installation."""
    often = settings.observe_interval_seconds
    seldom = often * _seldom
    waits = Waits(settings.grace, timedelta(hours=settings.quarantine_wait_hours_max))
    return (
        Reading("outcomes", often, _asked(engine, _outcomes)),
        Reading("held", often, _asked(engine, _held)),
        Reading("outbox", often, _asked(engine, _outbox)),
        Reading("months", often, _asked(engine, lambda connection: _months(connection, waits))),
        Reading("conservation", seldom, _asked(engine, _conservation)),
        Reading("quarantine", seldom, _asked(engine, _quarantine)),
        Reading("attribution", seldom, _asked(engine, _attribution)),
        Reading("statements", seldom, _asked(engine, _statements)),
    )


def invoicer_readings(settings: Settings, engine: Engine) -> tuple[Reading, ...]:
    """What an invoicer tells of the installation."""
    often = settings.observe_interval_seconds
    return (
        Reading("invoices", often, _asked(engine, _invoices)),
        Reading("fees", often * _seldom, _asked(engine, _fees)),
    )


def _asked(engine: Engine, ask: Ask) -> Callable[[], Sequence[Sample]]:
    """A reading in a transaction of its own, which gives up rather than weigh on the database."""

    def read() -> Sequence[Sample]:
        with engine.begin() as connection:
            connection.execute(text(f"set local statement_timeout = '{_statement_seconds_max}s'"))
            return ask(connection)

    return read


def _outcomes(connection: Connection) -> Sequence[Sample]:
    counts = reading_store.outcome_counts(connection)
    word = bounded(count.reason for count in counts)
    return [
        *_each(catalogue.RECEIVED, metrics_store.received(connection)),
        *(
            Sample(catalogue.OUTCOMES, (count.topic, count.outcome, word[count.reason]), count.records)
            for count in counts
        ),
    ]


def _conservation(connection: Connection) -> Sequence[Sample]:
    *topics, everything = conservation_store.by_topic(connection)
    outcomes = ("posted", "duplicate", "held", "quarantined", "ignored", "context")
    samples = []
    for line in topics:
        differences = {
            "received": line.received - sum(getattr(line, outcome) for outcome in outcomes),
            "held": line.held - line.waiting,
            "quarantined": line.quarantined - line.kept,
        }
        samples += [
            Sample(catalogue.CONSERVATION_DIFFERENCE, (line.topic, term), difference)
            for term, difference in differences.items()
        ]
    posted = everything.posted - (everything.posted if everything.ledger is None else everything.ledger)
    return [*samples, Sample(catalogue.CONSERVATION_DIFFERENCE, ("all", "posted"), posted)]


def _held(connection: Connection) -> Sequence[Sample]:
    waiting = metrics_store.held(connection)
    return [
        *(Sample(catalogue.HELD, (each.reason,), each.records) for each in waiting),
        *(Sample(catalogue.HELD_OLDEST, (each.reason,), each.oldest_seconds) for each in waiting),
        Sample(catalogue.HELD_OVERDUE, (), metrics_store.held_overdue_seconds(connection)),
    ]


def _quarantine(connection: Connection) -> Sequence[Sample]:
    return _words(catalogue.QUARANTINED, metrics_store.quarantined(connection))


def _attribution(connection: Connection) -> Sequence[Sample]:
    size = metrics_store.directory_size(connection)
    return [
        Sample(catalogue.HEADER_IGNORED, (), metrics_store.headers_ignored(connection)),
        *_each(catalogue.UNATTRIBUTED, metrics_store.unattributed(connection)),
        *_each(catalogue.DIRECTORY_ENTRIES, size._asdict()),
    ]


def _outbox(connection: Connection) -> Sequence[Sample]:
    depth = metrics_store.outbox(connection)
    return [
        Sample(catalogue.OUTBOX, (), depth.events),
        Sample(catalogue.OUTBOX_OLDEST, (), depth.oldest_seconds),
    ]


def _months(connection: Connection, waits: Waits) -> Sequence[Sample]:
    ages = metrics_store.month_ages(connection)
    return [
        *_each(catalogue.PERIODS, dict.fromkeys(_PERIOD_STATES, 0) | metrics_store.periods(connection)),
        Sample(catalogue.MONTHS_AHEAD, (), ages.months_ahead),
        Sample(catalogue.SEALED_SECONDS, (), ages.sealed_seconds),
        *_close(connection, waits),
    ]


def _close(connection: Connection, waits: Waits) -> Iterable[Sample]:
    """What the oldest month that is not closed waits for, and since when it could have been closing."""
    now = months_store.database_now(connection)
    unclosed = next((row for row in months_store.period_rows(connection) if row.state != "closed"), None)
    reasons = dict.fromkeys((str(kind) for kind in BlockerKind), 0)
    overdue = 0.0
    if unclosed is not None and unclosed.period.ends_at <= now:
        for blocker in months_store.what_blocks(connection, unclosed.period, now, waits):
            reasons[blocker.kind] += 1
        overdue = max(0.0, (now - _could_close_at(unclosed, waits)).total_seconds())
    yield from _each(catalogue.CLOSE_WAITS, reasons)
    yield Sample(catalogue.CLOSE_OVERDUE, (), overdue)


def _could_close_at(row: PeriodRow, waits: Waits) -> datetime:
    return (row.cutoff_at or row.period.ends_at + waits.grace) + cutoff_margin


def _statements(connection: Connection) -> Sequence[Sample]:
    return [Sample(catalogue.CHAIN_BREAKS, (), metrics_store.chain_breaks(connection))]


def _invoices(connection: Connection) -> Sequence[Sample]:
    states = dict.fromkeys((str(state) for state in State), 0) | listing_store.count_by_state(connection)
    notices = dict.fromkeys((*_NOTICES.values(), OTHER), 0)
    for notice, invoices in metrics_store.invoice_notices(connection).items():
        notices[_NOTICES.get(notice, OTHER)] += invoices
    return [
        *_words(catalogue.INVOICES, states),
        *_each(catalogue.INVOICE_NOTICES, notices),
        Sample(catalogue.INVOICE_OVERDUE, (), metrics_store.invoice_overdue_seconds(connection)),
        Sample(catalogue.PAUSED_ACCOUNTS, (), metrics_store.paused_accounts(connection)),
        Sample(catalogue.REFUSED_EVENTS, (), metrics_store.refused_events(connection)),
        Sample(catalogue.UNHEARD_STATEMENTS, (), metrics_store.unheard_statements(connection)),
    ]


def _fees(connection: Connection) -> Sequence[Sample]:
    fees = metrics_store.phantom_fees(connection)
    return [
        *(Sample(catalogue.PHANTOM_FEES, (each.currency,), each.fees) for each in fees),
        *(Sample(catalogue.PHANTOM_FEE_AMOUNT, (each.currency,), each.amount) for each in fees),
    ]


def _each(metric: Metric, values: Mapping[str, float]) -> list[Sample]:
    return [Sample(metric, (label,), value) for label, value in values.items()]


def _words(metric: Metric, values: Mapping[str, float]) -> list[Sample]:
    word = bounded(values)
    return [Sample(metric, (word[label],), value) for label, value in values.items()]

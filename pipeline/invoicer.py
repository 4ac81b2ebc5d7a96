"""The invoicing process: hears of closed statements, and works each account's invoices off.

Two loops that meet only in Postgres (I0). The consumer writes due rows and commits its offsets after them. The
scheduler takes every account that has something to do, each under its own lock and in its own thread, so that one
account's trouble never holds up another's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never
from urllib.parse import urlsplit

import structlog
from confluent_kafka import Consumer, KafkaException, Message
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from invoicing import store
from invoicing.gateway import API_BASE, Admit, StripeGateway
from invoicing.invoicer import Invoicer, Worked, backoff
from invoicing.news import RefusalReason, RefusedNews, StatementNews, read_news
from invoicing.news_store import Receipt, receive_statement, refuse_event
from invoicing.pace import Pace
from invoicing.refresh import refresh_invoice
from pipeline.clock import utc_now
from pipeline.settings import Settings
from schemas.locks import Lock

SANDBOX_KEY: Final = "sk_test_sandbox"
EVENTS_PER_BATCH_MAX: Final = 500
ACCOUNTS_AT_ONCE_MAX: Final = 4  # each holds two of the engine's connections: its lock's and its work's
ROWS_PER_PASS_MAX: Final = 200
CONSUMER_REST_SECONDS: Final = 2.0

_REFUSED: Final[dict[Receipt, RefusalReason]] = {
    Receipt.NO_SUCH_STATEMENT: "no_such_statement",
    Receipt.OTHER_BYTES: "other_bytes",
}

_log = structlog.get_logger()


def run_invoicer(
    settings: Settings, engine: Engine, stop: threading.Event, clock: Callable[[], datetime] = utc_now
) -> None:
    """Run until `stop` is set: consume `statements.closed`, make and schedule invoices, read what was sent.

    Raises:
        ValueError: neither a Stripe key nor a sandbox's address is set.
    """
    pace = Pace(settings.stripe_requests_per_second_max, time.monotonic, stop.wait)
    invoicer = Invoicer(engine, stripe_gateway(settings, pace.admit), clock)
    consumer = threading.Thread(
        target=consume_statements, args=(settings, engine, stop, clock), name="statements-consumer"
    )
    consumer.start()
    try:
        Scheduler(invoicer, stop).run(settings.invoicer_interval_seconds)
    finally:
        stop.set()
        consumer.join()


def stripe_gateway(settings: Settings, admit: Admit = lambda _account: None) -> StripeGateway:
    """Stripe as the settings say: the real one with a key, else the sandbox at `STRIPE_API_BASE`.

    Raises:
        ValueError: neither is set, or a live key would travel unencrypted.
    """
    base = settings.stripe_api_base
    if settings.stripe_api_key is None:
        if base is None:
            raise ValueError(
                "no way to Stripe: set STRIPE_API_KEY, or STRIPE_API_BASE to the address of a sandbox "
                "(python -m invoicing.sandbox)"
            )
        return StripeGateway(SANDBOX_KEY, api_base=base, admit=admit)
    key = settings.stripe_api_key.get_secret_value()
    if "_live_" in key and urlsplit(base or API_BASE).scheme != "https":
        raise ValueError("a live Stripe key is only sent over https; correct STRIPE_API_BASE")
    return StripeGateway(key, api_base=base or API_BASE, admit=admit)


def consume_statements(
    settings: Settings, engine: Engine, stop: threading.Event, clock: Callable[[], datetime]
) -> None:
    """Write a due row for each statement that closed, until `stop`; an outage of Kafka or Postgres is waited out."""
    while not stop.is_set():
        try:
            with _consumer(settings) as consumer:
                while not stop.is_set():
                    _consume_batch(consumer, engine, clock)
        except (KafkaException, SQLAlchemyError) as error:
            # nothing was committed to Kafka: a new consumer begins again where the last commit was
            _log.warning("statements_consumer_interrupted", error=type(error).__name__)
            stop.wait(CONSUMER_REST_SECONDS)


def take_event(connection: Connection, message: Message, now: datetime) -> Receipt | RefusedNews:
    """Take one event of `statements.closed`; one that cannot be taken is kept where people see it."""
    value = message.value()
    news = read_news(dict(message.headers() or []), value)
    match news:
        case StatementNews(statement_id=statement_id, sha256=sha256):
            receipt = receive_statement(connection, statement_id, now, sha256)
            if receipt not in _REFUSED:
                return receipt
            refused = RefusedNews(_REFUSED[receipt], f"statement {statement_id}")
        case RefusedNews():
            refused = news
        case _:
            assert_never(news)
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    refuse_event(connection, topic, partition, offset, refused, message.key(), value, now)
    _log.error("statement_event_refused", reason=refused.reason, partition=partition, offset=offset)
    return refused


@dataclass(slots=True)
class Scheduler:
    """Works every account's due rows off, each account in a thread of its own, one process at a time per account."""

    invoicer: Invoicer
    stop: threading.Event
    _busy: dict[int, Future[bool]] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _rests_until: dict[int, datetime] = field(default_factory=dict)

    def run(self, interval_seconds: float) -> None:
        """Look for work until stopped; an outage of Postgres is waited out."""
        with ThreadPoolExecutor(ACCOUNTS_AT_ONCE_MAX, thread_name_prefix="invoicer") as pool:
            while not self.stop.wait(interval_seconds):
                try:
                    self._start_passes(pool)
                except SQLAlchemyError as error:
                    _log.warning("invoicer_interrupted", error=type(error).__name__)

    def run_pass(self, account_id: int) -> bool:
        """Do what an account has to do now. False: Stripe did not answer, and the account should rest."""
        with self._account_lock(account_id) as ours:
            if not ours:
                return True
            return self._work_rows(account_id) and self._read_sent(account_id)

    def _start_passes(self, pool: ThreadPoolExecutor) -> None:
        self._collect()
        now = self.invoicer.clock()
        with self.invoicer.engine.begin() as connection:
            accounts = store.due_accounts(connection, now)
        for account_id in accounts:
            rests_until = self._rests_until.get(account_id)
            if account_id not in self._busy and (rests_until is None or rests_until <= now):
                self._busy[account_id] = pool.submit(self.run_pass, account_id)

    def _collect(self) -> None:
        for account_id, future in list(self._busy.items()):
            if future.done():
                del self._busy[account_id]
                self._note(account_id, future)

    def _note(self, account_id: int, future: Future[bool]) -> None:
        error = future.exception()
        if error is not None:
            _log.error("invoicer_pass_failed", account=account_id, error=type(error).__name__)
        if error is None and future.result():
            self._failures.pop(account_id, None)
            self._rests_until.pop(account_id, None)
            return
        failures = self._failures.get(account_id, 0)
        self._failures[account_id] = failures + 1
        self._rests_until[account_id] = self.invoicer.clock() + backoff(failures)

    def _work_rows(self, account_id: int) -> bool:
        with self.invoicer.engine.begin() as connection:
            now = self.invoicer.clock()
            due = store.due_invoices(connection, account_id, now, ROWS_PER_PASS_MAX)
        for invoice_id in due:
            if self.stop.is_set():
                return True
            match self.invoicer.work(invoice_id):
                case Worked.DONE:
                    continue
                case Worked.PAUSED:
                    _log.error("invoicing_paused", account=account_id)
                    return True
                case Worked.LATER:
                    _log.warning("invoicing_delayed", account=account_id)
                    return False
        return True

    def _read_sent(self, account_id: int) -> bool:
        with self.invoicer.engine.begin() as connection:
            now = self.invoicer.clock()
            unread = store.unread_invoices(
                connection, account_id, now, due_only=True, rows_max=ROWS_PER_PASS_MAX
            )
        for invoice_id in unread:
            if self.stop.is_set():
                break
            refresh_invoice(self.invoicer, invoice_id)
        return True

    @contextmanager
    def _account_lock(self, account_id: int) -> Iterator[bool]:
        """Hold the account's session lock. Yields False where another process has it."""
        keys = {"kind": Lock.INVOICE_ACCOUNT, "account": account_id}
        with self.invoicer.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            taken = bool(connection.scalar(text("select pg_try_advisory_lock(:kind, :account)"), keys))
            try:
                yield taken
            finally:
                if taken:
                    _unlock(connection, keys)


def _unlock(connection: Connection, keys: dict[str, int]) -> None:
    """Give the lock up, or close the real connection: back in the pool it must not hold the lock."""
    try:
        connection.execute(text("select pg_advisory_unlock(:kind, :account)"), keys)
    except DBAPIError:
        connection.invalidate()


@contextmanager
def _consumer(settings: Settings) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": f"{settings.consumer_group}.invoicing",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": int(settings.session_timeout_seconds * 1000),
        }
    )
    try:
        consumer.subscribe([settings.statements_topic])
        yield consumer
    finally:
        consumer.close()


def _consume_batch(consumer: Consumer, engine: Engine, clock: Callable[[], datetime]) -> None:
    messages = [
        message for message in consumer.consume(EVENTS_PER_BATCH_MAX, timeout=0.5) if not message.error()
    ]
    if not messages:
        return
    with engine.begin() as connection:
        outcomes = [take_event(connection, message, clock()) for message in messages]
    consumer.commit(asynchronous=False)
    refused = sum(isinstance(outcome, RefusedNews) for outcome in outcomes)
    _log.info("statements_received", events=len(outcomes), refused=refused, new=outcomes.count(Receipt.NEW))

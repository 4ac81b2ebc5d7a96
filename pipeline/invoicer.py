"""The invoicing process: hears of closed statements, and works each account's invoices off.

Two loops that meet only in Postgres (I0). The consumer writes due rows and commits its offsets after them. The
scheduler (`invoice_passes`) takes every account that has something to do, each under its own lock and in threads of its
own, so that one account's trouble never holds up another's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, assert_never
from urllib.parse import urlsplit

import structlog
from confluent_kafka import Consumer, KafkaException, Message
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from invoicing.door import TIMEOUT_SECONDS, Limiter
from invoicing.gateway import API_BASE, StripeGateway
from invoicing.invoicer import Invoicer
from invoicing.news import RefusalReason, RefusedNews, StatementNews, read_news
from invoicing.news_store import Receipt, receive_statement, refuse_event
from invoicing.pace import Pace
from pipeline.clock import utc_now
from pipeline.counted_gateway import CountedGateway
from pipeline.health import Pulse
from pipeline.invoice_passes import Scheduler
from pipeline.invoice_progress import Tell
from pipeline.kafka_security import librdkafka_options
from pipeline.settings import Settings
from pipeline.signals import dying_when_frozen

SANDBOX_KEY: Final = "sk_test_sandbox"
EVENTS_PER_BATCH_MAX: Final = 500
FROZEN_SECONDS_MAX: Final = 1_800.0  # well below the hour between our trust in a key and Stripe's promise
TELL_SECONDS: Final = 1.0
CONSUMER_REST_SECONDS: Final = 2.0

_REFUSED: Final[dict[Receipt, RefusalReason]] = {
    Receipt.NO_SUCH_STATEMENT: "no_such_statement",
    Receipt.OTHER_BYTES: "other_bytes",
}

_log = structlog.get_logger()


def run_invoicer(
    settings: Settings,
    engine: Engine,
    stop: threading.Event,
    clock: Callable[[], datetime] = utc_now,
    pulse: Pulse | None = None,
    timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
    frozen_seconds_max: float = FROZEN_SECONDS_MAX,
) -> None:
    """Run until `stop` is set: consume `statements.closed`, make and schedule invoices, read what was sent.

    `pulse` is told that the loops go round. Who was frozen for longer than `frozen_seconds_max` dies instead of going on.

    Raises:
        ValueError: neither a Stripe key nor a sandbox's address is set.
    """
    pace = Pace(settings.stripe_requests_per_second_max, time.monotonic, stop.wait)
    invoicer = Invoicer(engine, stripe_gateway(settings, pace, timeout_seconds), clock)
    pulse = pulse or Pulse(time.monotonic)
    consumer = threading.Thread(
        target=consume_statements, args=(settings, engine, stop, clock, pulse), name="statements-consumer"
    )
    consumer.start()
    try:
        with dying_when_frozen(frozen_seconds_max) as alive:
            Scheduler(invoicer, stop, pulse, pace).run(settings.invoicer_interval_seconds, alive)
    finally:
        stop.set()
        consumer.join()


def work_off(
    settings: Settings,
    engine: Engine,
    stop: threading.Event,
    tell: Tell,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Do what is due now, at the permitted pace, and return: what `run_invoicer` does, once and without listening.

    `tell` hears every second how far each account is. An account that another process works on is left to it.

    Raises:
        ValueError: neither a Stripe key nor a sandbox's address is set.
    """
    pace = Pace(settings.stripe_requests_per_second_max, time.monotonic, stop.wait)
    invoicer = Invoicer(engine, stripe_gateway(settings, pace), clock)
    scheduler = Scheduler(invoicer, stop, Pulse(time.monotonic), pace, tell, TELL_SECONDS)
    scheduler.run_until_idle(TELL_SECONDS)


def stripe_gateway(
    settings: Settings,
    limiter: Limiter | None = None,
    timeout_seconds: tuple[float, float] = TIMEOUT_SECONDS,
) -> StripeGateway:
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
        return CountedGateway(SANDBOX_KEY, api_base=base, limiter=limiter, timeout_seconds=timeout_seconds)
    key = settings.stripe_api_key.get_secret_value()
    if "_live_" in key and urlsplit(base or API_BASE).scheme != "https":
        raise ValueError("a live Stripe key is only sent over https; correct STRIPE_API_BASE")
    return CountedGateway(key, api_base=base or API_BASE, limiter=limiter, timeout_seconds=timeout_seconds)


def consume_statements(
    settings: Settings, engine: Engine, stop: threading.Event, clock: Callable[[], datetime], pulse: Pulse
) -> None:
    """Write a due row for each statement that closed, until `stop`; an outage of Kafka or Postgres is waited out."""
    while not stop.is_set():
        pulse.beat("consumer")
        try:
            with _consumer(settings, pulse) as consumer:
                while not stop.is_set():
                    _consume_batch(consumer, engine, clock)
                    pulse.beat("consumer")
        except Exception as error:  # noqa: BLE001 (a thread that died of it would be missed by nobody)
            # nothing was committed to Kafka: a new consumer begins again where the last commit was
            outage = isinstance(error, (KafkaException, SQLAlchemyError))
            say = _log.warning if outage else _log.error
            say("statements_consumer_interrupted", error=type(error).__name__)
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


@contextmanager
def _consumer(settings: Settings, pulse: Pulse) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            **librdkafka_options(settings.kafka_security),
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": f"{settings.consumer_group}.invoicing",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": int(settings.session_timeout_seconds * 1000),
        }
    )
    try:
        consumer.subscribe([settings.statements_topic], on_assign=lambda *_: pulse.beat("assigned"))
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

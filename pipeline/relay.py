"""Telling the world: the outbox is published in order, at least once, and what was acknowledged is marked (C5).

An event waits until every event before it on another topic was acknowledged: so a month's event comes after all its
statements. A crash between the broker's word and the mark sends an event again; subscribers deduplicate by `ce_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from threading import Event
from typing import Final, Protocol

import structlog
from confluent_kafka import KafkaError, Message, Producer
from sqlalchemy import Engine

from pipeline import metrics
from pipeline.election import while_elected
from pipeline.kafka_security import UNSECURED, KafkaSecurity, librdkafka_options
from pipeline.settings import Settings
from rollup import outbox_store
from rollup.outbox_store import Acknowledged, OutboxEvent
from schemas.locks import Lock

_log = structlog.get_logger(__name__)
_batch_events_max: Final = 500
_delivery_seconds_max: Final = 30.0

Delivered = Callable[[KafkaError | None, Message], None]


class EventProducer(Protocol):
    """What the relay needs of a Kafka producer."""

    def produce(
        self,
        topic: str,
        *,
        key: bytes,
        value: bytes,
        headers: list[tuple[str, bytes]],
        on_delivery: Delivered,
    ) -> None:
        """Send one event; `on_delivery` is called with the broker's word during `flush`."""
        ...

    def flush(self, timeout: float) -> int:
        """Wait for the broker's word on everything sent; returns how many are still without."""
        ...


def run_relay(settings: Settings, engine: Engine, stop: Event) -> None:
    """Publish the outbox until `stop`; one process of an installation does it at a time."""
    producer = relay_producer(settings.kafka_bootstrap_servers, settings.kafka_security)

    def once() -> bool:
        producer.poll(0)  # what it has to log, also where nothing is to be sent
        return relay_once(engine, producer) > 0

    while_elected(engine, Lock.RELAY, stop, settings.relay_interval_seconds, once)
    producer.flush(_delivery_seconds_max)


def relay_producer(bootstrap_servers: str, security: KafkaSecurity = UNSECURED) -> Producer:
    """An idempotent producer: the broker's retries neither lose, double nor reorder."""
    return Producer(
        {
            **librdkafka_options(security),
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "zstd",
            "message.max.bytes": 8 * 1024 * 1024,
            "delivery.timeout.ms": int(_delivery_seconds_max * 1000),
        }
    )


def relay_once(engine: Engine, producer: EventProducer, limit: int = _batch_events_max) -> int:
    """Publish the next events and mark those acknowledged.

    Returns:
        How many were; fewer than waited where the broker did not take one, which is then sent again next time.
    """
    with engine.connect() as connection:
        events = outbox_store.pending(connection, limit)
    published = 0
    for run in _runs(events):
        refused: list[str] = []
        acknowledged = _publish(producer, run, refused)
        with engine.begin() as connection:
            outbox_store.mark_published(connection, acknowledged)
        published += len(acknowledged)
        sent = {"acknowledged": len(acknowledged), "refused": len(run) - len(acknowledged)}
        for outcome, events_sent in sent.items():
            metrics.EVENTS.labels(topic=run[0].topic, outcome=outcome).inc(events_sent)
        if len(acknowledged) < len(run):
            _log.warning(
                "events_not_acknowledged",
                events=len(run) - len(acknowledged),
                topic=run[0].topic,
                first_error=refused[0] if refused else "no answer",
            )
            break
    if published:
        _log.info("events_published", events=published)
    return published


def _runs(events: Sequence[OutboxEvent]) -> Iterator[list[OutboxEvent]]:
    """Events in order, cut wherever the topic changes."""
    for _, run in groupby(events, key=lambda event: event.topic):
        yield list(run)


def _publish(
    producer: EventProducer, events: Sequence[OutboxEvent], refused: list[str]
) -> list[Acknowledged]:
    acknowledged: list[Acknowledged] = []
    for event in events:
        producer.produce(
            event.topic,
            key=event.key.encode(),
            value=event.value,
            headers=[(name, value.encode()) for name, value in event.headers.items()],
            on_delivery=_noting(event.id, acknowledged, refused),
        )
    producer.flush(_delivery_seconds_max + 5)
    return list(acknowledged)


def _noting(event_id: int, acknowledged: list[Acknowledged], refused: list[str]) -> Delivered:
    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            acknowledged.append(Acknowledged(event_id, message.partition(), message.offset()))
        else:
            refused.append(str(error))

    return delivered

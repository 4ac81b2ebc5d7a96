"""Sending lines of a file to a topic, as `tenant-billing publish` does, and saying how many the broker took."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from pipeline.kafka_security import UNSECURED, KafkaSecurity, librdkafka_options

in_flight_records_max: Final = 10_000
_delivery_seconds_max: Final = 20.0  # then a record has failed, with the broker's or the network's reason
_flush_seconds_max: Final = 60.0


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What became of the lines: `sent` = `acknowledged` + `failed`; `first_error` says why one failed."""

    sent: int
    acknowledged: int
    failed: int
    first_error: str | None = None


def publish_lines(
    bootstrap_servers: str,
    topic: str,
    lines: Iterable[bytes],
    *,
    key_of: Callable[[bytes], bytes | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    in_flight_max: int = in_flight_records_max,
    security: KafkaSecurity = UNSECURED,
) -> PublishReport:
    """Send each line that is not blank as one record.

    Args:
        bootstrap_servers: where the cluster is.
        topic: where to.
        lines: the records' bytes; a line feed at the end is not sent.
        key_of: a record's key; None sends records without keys.
        progress: told (sent, acknowledged) after each record and at the end.
        in_flight_max: records sent and not yet acknowledged, at most.
        security: how we show who we are.
    """
    producer = Producer(
        {
            **librdkafka_options(security),
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 20,
            "compression.type": "zstd",
            "queue.buffering.max.messages": in_flight_max,
            "message.timeout.ms": int(_delivery_seconds_max * 1000),
        }
    )
    tally = _Tally()
    for line in lines:
        value = line.rstrip(b"\r\n")
        if not value.strip():
            continue
        while tally.sent - tally.acknowledged - tally.failed >= in_flight_max:
            producer.poll(0.1)
        producer.produce(topic, value, key_of(value) if key_of else None, on_delivery=tally.delivered)
        tally.sent += 1
        producer.poll(0)
        if progress:
            progress(tally.sent, tally.acknowledged)
    producer.flush(_flush_seconds_max)
    if progress:
        progress(tally.sent, tally.acknowledged)
    return PublishReport(tally.sent, tally.acknowledged, tally.sent - tally.acknowledged, tally.first_error)


class _Tally:
    """Counts what was sent and what the broker said of it."""

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.failed = 0
        self.first_error: str | None = None

    def delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.acknowledged += 1
        else:
            self.failed += 1
            self.first_error = self.first_error or str(error)

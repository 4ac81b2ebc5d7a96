"""Sending the sample traffic to Kafka, no faster than it is read.

The embedded broker drops what it has no room for, and says nothing. So sending waits whenever too much is unread,
and what was read is compared with what the broker acknowledged, partition by partition.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from confluent_kafka import KafkaError, Message, Producer
from sqlalchemy import Engine

from deploy.sample.expected import Group
from pipeline.position_store import partition_states

unread_records_max: Final = 6_000  # of about 400 bytes: far from the 5 MiB that one partition holds
_flush_seconds_max: Final = 30.0
_look_every_records: Final = 500
_poll_seconds: Final = 0.1


class NotAcknowledgedError(RuntimeError):
    """The broker did not take everything that was sent."""


class Sender:
    """Sends groups of messages, and knows how far each partition must be read."""

    def __init__(self, bootstrap_servers: str, engine: Engine) -> None:
        self.acknowledged = 0
        self.ends: dict[tuple[str, int], int] = defaultdict(int)  # one past the last acknowledged offset
        self._engine = engine
        self._refused: list[str] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "zstd",
                "linger.ms": 5,
                "batch.num.messages": 2_000,
            }
        )

    def send(
        self, groups: Iterable[Group], check: Callable[[], None], progress: Callable[[int], None]
    ) -> None:
        """Send groups in order, and wait until the broker has taken them.

        Args:
            groups: the messages of one follow one another without a pause.
            check: called while waiting; raises if there is nothing more to wait for.
            progress: told how many more messages were sent.

        Raises:
            NotAcknowledgedError: a message was refused or not answered.
        """
        sent = looked_at = self.acknowledged
        for group in groups:
            if sent - looked_at >= _look_every_records:
                self._wait_for_readers(sent, check)
                looked_at = sent
            for message in group.messages:
                self._producer.produce(message.topic, message.value, message.key, on_delivery=self._delivered)
            sent += len(group.messages)
            progress(len(group.messages))
            self._producer.poll(0)
        unanswered = self._producer.flush(_flush_seconds_max)
        if unanswered or self._refused or self.acknowledged != sent:
            reason = self._refused[0] if self._refused else f"{unanswered} without an answer"
            raise NotAcknowledgedError(
                f"{sent} messages were sent, {self.acknowledged} acknowledged: {reason}"
            )

    def unread(self) -> int:
        """How many acknowledged messages have not been read and committed yet."""
        with self._engine.connect() as connection:
            states = partition_states(connection, sorted({topic for topic, _ in self.ends}))
        read = {(state.topic, state.partition): state.next_offset for state in states}
        return sum(max(end - read.get(partition, 0), 0) for partition, end in self.ends.items())

    def _wait_for_readers(self, sent: int, check: Callable[[], None]) -> None:
        pause = threading.Event()
        while (sent - self.acknowledged) + self.unread() >= unread_records_max:
            check()
            self._producer.poll(0)
            pause.wait(_poll_seconds)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refused.append(str(error))
            return
        self.acknowledged += 1
        partition = (message.topic(), message.partition())
        self.ends[partition] = max(self.ends[partition], message.offset() + 1)

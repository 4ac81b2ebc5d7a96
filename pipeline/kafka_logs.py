"""What Kafka's logs hold: partitions and ends of topics, asked without joining a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from pipeline.kafka_security import UNSECURED, KafkaSecurity, librdkafka_options

_timeout_seconds: Final = 10.0


class KafkaLogs:
    """A reader of metadata and offsets; never subscribes, never commits."""

    def __init__(self, bootstrap_servers: str, security: KafkaSecurity = UNSECURED) -> None:
        self._consumer = Consumer(
            {
                **librdkafka_options(security),
                "bootstrap.servers": bootstrap_servers,
                "group.id": "tenant-billing-logs",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "allow.auto.create.topics": False,
            }
        )

    def partitions(self, topic: str) -> list[int]:
        """The partition numbers of a topic; none where it does not exist."""
        described = self._consumer.list_topics(topic, timeout=_timeout_seconds).topics[topic]
        return sorted(described.partitions) if described.error is None else []

    def ends(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """The offset behind the last record of each partition that a committed reader may read."""
        ends = {}
        self._consumer.poll(0)  # what it has to log
        for topic in topics:
            for partition in self.partitions(topic):
                _, end = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=_timeout_seconds, cached=False
                )
                ends[topic, partition] = end
        return ends

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

"""How far must each partition be read before a month may seal: what Kafka says (C1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from pipeline.kafka_security import UNSECURED, KafkaSecurity, librdkafka_options
from pipeline.topic_ids import KafkaTopicIds
from schemas.periods import utc_text

_TIMESTAMP_TYPE: Final = "message.timestamp.type"


class BoundariesUnavailableError(RuntimeError):
    """Kafka did not say, or its answer cannot be trusted; the message says why."""


class BoundarySource(Protocol):
    """Whoever knows where a month's records end."""

    def boundaries(self, topics: Iterable[str], at: datetime) -> Mapping[tuple[str, int], int]:
        """For every partition the first offset received at or after an instant, or its end where none is."""
        ...

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """Kafka's own id of each topic; none where it does not tell."""
        ...


class KafkaBoundaries:
    """Asks the brokers.

    Args:
        bootstrap_servers: where the cluster is.
        security: how we show who we are.
        require_log_append_time: refuse topics whose records carry the producers' clocks.
        answer_seconds_max: how long each question may take.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        security: KafkaSecurity = UNSECURED,
        *,
        require_log_append_time: bool = True,
        answer_seconds_max: float = 20.0,
    ) -> None:
        self._cluster = {**librdkafka_options(security), "bootstrap.servers": bootstrap_servers}
        self._require_log_append_time = require_log_append_time
        self._seconds_max = answer_seconds_max
        self._ids = KafkaTopicIds(bootstrap_servers, security)

    def boundaries(self, topics: Iterable[str], at: datetime) -> Mapping[tuple[str, int], int]:
        """See `BoundarySource`.

        Raises:
            BoundariesUnavailableError: no answer, no such topic, or another timestamp type than LogAppendTime.
        """
        wanted = sorted(set(topics))
        try:
            if self._require_log_append_time:
                self._refuse_producer_clocks(wanted)
            return self._ask(wanted, at)
        except (KafkaException, TimeoutError) as error:
            why = str(error) or "no answer in time"
            raise BoundariesUnavailableError(
                f"Kafka did not tell the offsets for {utc_text(at)}: {why}"
            ) from error

    def topic_ids(self, topics: Iterable[str]) -> Mapping[str, str]:
        """See `BoundarySource`; the embedded broker, which is the only one without LogAppendTime, tells none.

        Raises:
            BoundariesUnavailableError: no answer.
        """
        if not self._require_log_append_time:
            return {}
        try:
            return self._ids.of(topics)
        except KafkaException as error:
            raise BoundariesUnavailableError(f"Kafka did not tell the topics' ids: {error}") from error

    def _ask(self, topics: list[str], at: datetime) -> Mapping[tuple[str, int], int]:
        consumer = Consumer(
            {
                **self._cluster,
                "group.id": "tenant-billing-boundaries",
                "enable.auto.commit": False,
                # An open transaction's records were received too: the end lies behind them.
                "isolation.level": "read_uncommitted",
            }
        )
        try:
            instant = int(at.timestamp() * 1000)
            partitions = [each for topic in topics for each in self._partitions(consumer, topic, instant)]
            if not partitions:
                return {}
            found = consumer.offsets_for_times(partitions, timeout=self._seconds_max)
            return {(each.topic, each.partition): self._offset(consumer, each) for each in found}
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer, topic: str, instant: int) -> list[TopicPartition]:
        metadata = consumer.list_topics(topic, timeout=self._seconds_max).topics[topic]
        if metadata.error is not None:
            raise BoundariesUnavailableError(f"topic {topic}: {metadata.error}")
        return [TopicPartition(topic, partition, instant) for partition in sorted(metadata.partitions)]

    def _offset(self, consumer: Consumer, found: TopicPartition) -> int:
        """The offset for the time asked; where nothing is later (-1), the end at this moment."""
        if found.error is not None:
            raise BoundariesUnavailableError(f"{found.topic}[{found.partition}]: {found.error}")
        if found.offset >= 0:
            return int(found.offset)
        partition = TopicPartition(found.topic, found.partition)
        _, end = consumer.get_watermark_offsets(partition, timeout=self._seconds_max)
        return int(end)

    def _refuse_producer_clocks(self, topics: list[str]) -> None:
        admin = AdminClient(self._cluster)
        asked = admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic) for topic in topics], request_timeout=self._seconds_max
        )
        for resource, answer in asked.items():
            value = answer.result(self._seconds_max)[_TIMESTAMP_TYPE].value
            if value != "LogAppendTime":
                raise BoundariesUnavailableError(
                    f"topic {resource.name} has {_TIMESTAMP_TYPE}={value}: a cutoff needs LogAppendTime"
                )

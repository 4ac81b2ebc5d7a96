"""Which topic is it: Kafka's own id, which tells a topic that was deleted and made anew from the one before, and its ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, Protocol

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from faust.types import TP

from pipeline.kafka_security import UNSECURED, KafkaSecurity, librdkafka_options

_answer_seconds_max: Final = 10.0


class TopicIds(Protocol):
    """Whoever knows topics by their ids."""

    def of(self, topics: Iterable[str]) -> Mapping[str, str]:
        """The id of each topic that exists."""
        ...


class KafkaTopicIds:
    """Asks the brokers; Apache Kafka tells ids since 2.8."""

    def __init__(self, bootstrap_servers: str, security: KafkaSecurity = UNSECURED) -> None:
        self._cluster = {**librdkafka_options(security), "bootstrap.servers": bootstrap_servers}
        self._admin: AdminClient | None = None

    def of(self, topics: Iterable[str]) -> Mapping[str, str]:
        """See `TopicIds`.

        Raises:
            KafkaException: no answer.
        """
        asked = self._brokers().describe_topics(
            TopicCollection(sorted(set(topics))), request_timeout=_answer_seconds_max
        )
        found = {}
        for topic, answer in asked.items():
            try:
                found[topic] = str(answer.result().topic_id)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        return found

    def ends(self, tps: Collection[TP]) -> Mapping[TP, int]:
        """The offset behind the last record of each partition, whoever may read that record yet; in one question.

        Raises:
            KafkaException: no answer.
        """
        if not tps:
            return {}
        asked = self._brokers().list_offsets(
            {TopicPartition(*tp): OffsetSpec.latest() for tp in sorted(tps)},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=_answer_seconds_max,
        )
        return {TP(place.topic, place.partition): answer.result().offset for place, answer in asked.items()}

    def _brokers(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(self._cluster)
        self._admin.poll(0)  # what it has to log
        return self._admin

"""What the demo, the tests and the benchmarks ask of a Kafka broker, whichever one it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class BrokerUnavailableError(RuntimeError):
    """The broker cannot run here, or did not start; the message says why."""


class Broker(Protocol):
    """A started broker on loopback: Apache Kafka or librdkafka's embedded one."""

    @property
    def real(self) -> bool:
        """Whether this is Apache Kafka: persistent, with LogAppendTime and offsets for a time."""
        ...

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`, as every Kafka client takes it."""
        ...

    def create_topics(self, partitions: Mapping[str, int]) -> None:
        """Make topics, by name and number of partitions, and wait until they take records.

        A topic that exists with as many partitions is left alone.

        Raises:
            BrokerUnavailableError: the broker refused, or the topic exists with another number.
        """
        ...

    def stop(self) -> None:
        """End the broker; what it kept in a temporary folder is gone."""
        ...

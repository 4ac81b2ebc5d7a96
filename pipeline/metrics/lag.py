"""How far behind each partition is, by records and by seconds, and whether this worker's own partitions move.

Lag is Kafka's log against the position stored in Postgres, so it is known also for partitions that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, Engine

from pipeline import position_store
from pipeline.metrics import catalogue
from pipeline.metrics.observer import Sample
from pipeline.position_store import PartitionState
from rollup import months_store

Partition = tuple[str, int]


class Logs(Protocol):
    """Whoever knows where Kafka's logs end."""

    def ends(self, topics: Sequence[str]) -> Mapping[Partition, int]:
        """The offset behind the last record of each partition."""
        ...


class _Standstill(NamedTuple):
    """A partition of ours that has unread records: its position, and since when it stands there."""

    next_offset: int
    since: float


class LagWatch:
    """Compares logs with positions again and again.

    Args:
        engine: where positions are stored.
        logs: where logs end.
        topics: the input topics.
        owned: the partitions that this worker reads now.
        monotonic: gives seconds that only grow.
    """

    def __init__(
        self,
        engine: Engine,
        logs: Logs,
        topics: Sequence[str],
        owned: Callable[[], AbstractSet[Partition]],
        monotonic: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._logs = logs
        self._topics = topics
        self._owned = owned
        self._monotonic = monotonic
        self._standstills: dict[Partition, _Standstill] = {}
        self._caught_up_at: dict[Partition, datetime] = {}

    def read(self) -> Sequence[Sample]:
        """Look once; what cannot be asked is no standstill: an outage is not healed by a restart."""
        before, self._standstills = self._standstills, {}
        ends = self._logs.ends(self._topics)
        with self._engine.connect() as connection:
            now = months_store.database_now(connection)
            states = _states(connection, self._topics)
        self._standstills = self._unmoved(before, ends, states)
        samples = []
        for partition, end in ends.items():
            state = states.get(partition)
            labels = (partition[0], str(partition[1]))
            behind = max(0, end - (state.next_offset if state else 0))
            if not behind:
                self._caught_up_at[partition] = now
            samples += [
                Sample(catalogue.LAG_RECORDS, labels, behind),
                Sample(
                    catalogue.LAG_SECONDS, labels, self._seconds(partition, state, now) if behind else 0.0
                ),
                Sample(catalogue.OFFSET_GAP, labels, state.gap_records if state else 0),
            ]
        return [*samples, Sample(catalogue.STUCK_SECONDS, (), self.stuck_seconds)]

    @property
    def stuck_seconds(self) -> float:
        """The longest that one of this worker's partitions has stood still with unread records, as last seen."""
        now = self._monotonic()
        return max((now - each.since for each in self._standstills.values()), default=0.0)

    def _unmoved(
        self,
        before: Mapping[Partition, _Standstill],
        ends: Mapping[Partition, int],
        states: Mapping[Partition, PartitionState],
    ) -> dict[Partition, _Standstill]:
        now = self._monotonic()
        found = {}
        for partition in self._owned() & ends.keys():
            next_offset = states[partition].next_offset if partition in states else 0
            if next_offset < ends[partition]:
                known = before.get(partition)
                same = known is not None and known.next_offset == next_offset
                found[partition] = known if known and same else _Standstill(next_offset, now)
        return found

    def _seconds(self, partition: Partition, state: PartitionState | None, now: datetime) -> float:
        """What is unread came after what was read, and after the end that was reached last."""
        known = [self._caught_up_at.get(partition), state.read_through_at if state else None]
        latest = max((instant for instant in known if instant is not None), default=None)
        if latest is None:  # never read: since the first look, at least
            latest = self._caught_up_at.setdefault(partition, now)
        return max(0.0, (now - latest).total_seconds())


def _states(connection: Connection, topics: Sequence[str]) -> dict[Partition, PartitionState]:
    found = position_store.partition_states(connection, topics)
    return {(state.topic, state.partition): state for state in found}

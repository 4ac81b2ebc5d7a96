"""How far a set of topics has been read, by Kafka's timestamps (A10)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from pipeline import position_store
from pipeline.kafka_logs import KafkaLogs
from rollup import months_store

_end_margin: Final = timedelta(
    seconds=5
)  # a partition read to its end counts as read up to 5 s before that poll


def read_through(engine: Engine, logs: KafkaLogs, topics: Sequence[str]) -> datetime | None:
    """The instant before which every partition of the topics has been read; None while one has not been read at all."""
    if not topics:
        return None
    with engine.connect() as connection:
        asked_at = months_store.database_now(connection)
    ends = logs.ends(topics)
    with engine.begin() as connection:
        position_store.read_to_end(connection, ends, asked_at - _end_margin)
        states = {
            (state.topic, state.partition): state.read_through_at
            for state in position_store.partition_states(connection, topics)
        }
    reached = [states.get(partition) for partition in ends]
    if not reached or any(instant is None for instant in reached):
        return None
    return min(instant for instant in reached if instant is not None)

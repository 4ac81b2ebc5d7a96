"""Where a worker's partitions are read from: Postgres's positions, checked against Kafka's logs."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from faust.types import TP
from sqlalchemy import Engine

from pipeline import position_store
from pipeline.position_store import Position
from pipeline.topic_ids import TopicIds
from pipeline.transport import LogRange, RefusedPlaceError

_log = structlog.get_logger(__name__)


class PositionBeyondLogError(RefusedPlaceError):
    """A stored position lies above the end of Kafka's log: the topic was made anew, or this is another cluster.

    Reading on would silently drop whatever is written up to the stored offset, so the worker refuses.
    """


class TopicMadeAnewError(RefusedPlaceError):
    """A stored position is of a topic that is gone: another one bears its name, in which its offset means nothing."""


class Positions:
    """Positions of the partitions that this worker was assigned, with the ids of their rows.

    Args:
        engine: where they are.
        topic_ids: tells a topic made anew from the one before; None: only its log's end can.
    """

    def __init__(self, engine: Engine, topic_ids: TopicIds | None = None) -> None:
        self._engine = engine
        self._topic_ids = topic_ids
        self._ids: dict[TP, int] = {}

    def id_of(self, tp: TP) -> int:
        """The row of a partition that has been assigned."""
        return self._ids[tp]

    def positions(self, ranges: Mapping[TP, LogRange]) -> Mapping[TP, int]:
        """The next offset of each partition; one that was never read begins at the earliest record there is.

        Raises:
            PositionBeyondLogError: a stored position lies above the log's end.
            TopicMadeAnewError: it was read from another topic of the same name.
        """
        topic_ids = self._topic_ids.of({tp.topic for tp in ranges}) if self._topic_ids and ranges else {}
        with self._engine.begin() as connection:
            for process in position_store.end_silent_sessions(connection):
                _log.warning("silent_session_ended", server_process=process)
            found = {
                tp: position_store.ensure_position(
                    connection, tp.topic, tp.partition, log.start, topic_ids.get(tp.topic)
                )
                for tp, log in sorted(ranges.items())
            }
        self._ids |= {tp: position.id for tp, position in found.items()}
        return {
            tp: self._checked(tp, position, ranges[tp], topic_ids.get(tp.topic))
            for tp, position in found.items()
        }

    def _checked(self, tp: TP, position: Position, log: LogRange, topic_id: str | None) -> int:
        refuse_another_topic(tp, position, topic_id)
        refuse_beyond(tp, position, log.end)
        if position.next_offset >= log.start:
            return position.next_offset
        with self._engine.begin() as connection:
            skipped = position_store.skip_gap(connection, position, log.start)
        if skipped:
            _log.error(
                "offset_gap",
                topic=tp.topic,
                partition=tp.partition,
                first=position.next_offset,
                records=log.start - position.next_offset,
            )
        return log.start  # where it was moved meanwhile, the first batch finds that out (L3)


def refuse_another_topic(tp: TP, position: Position, topic_id: str | None) -> None:
    """Raise where a position was read from another topic of the same name, and name the command that resolves it.

    Args:
        tp: the partition.
        position: as it is stored.
        topic_id: Kafka's id of the topic that bears the name now; None where it does not tell.

    Raises:
        TopicMadeAnewError: it is another topic.
    """
    if topic_id is not None and position.topic_id not in {None, topic_id}:
        raise TopicMadeAnewError(
            f"{tp.topic}[{tp.partition}]: the database has read up to offset {position.next_offset} of topic "
            f"{position.topic_id}, but this is topic {topic_id}. If the topic was made anew, {_reset(tp)} begins at its "
            "earliest record; if not, KAFKA_BOOTSTRAP_SERVERS names another cluster."
        )


def refuse_beyond(tp: TP, position: Position, end: int) -> None:
    """Raise where a position lies above the end of its log, and name the command that resolves it.

    Raises:
        PositionBeyondLogError: it does.
    """
    if position.next_offset > end:
        raise PositionBeyondLogError(
            f"{tp.topic}[{tp.partition}]: the database has read up to offset {position.next_offset}, but Kafka's log "
            f"ends at {end}. If the topic was made anew, {_reset(tp)} begins at its earliest record; if not, "
            "KAFKA_BOOTSTRAP_SERVERS names another cluster."
        )


def _reset(tp: TP) -> str:
    return f"`tenant-billing position reset {tp.topic} {tp.partition} --to-start`"

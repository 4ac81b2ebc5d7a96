"""Where a worker's partitions are read from: Postgres's positions, checked against Kafka's logs."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from faust.types import TP
from sqlalchemy import Engine

from pipeline import position_store
from pipeline.position_store import Position
from pipeline.transport import LogRange

_log = structlog.get_logger(__name__)


class PositionBeyondLogError(RuntimeError):
    """A stored position lies above the end of Kafka's log: the topic was made anew, or this is another cluster.

    Reading on would silently drop whatever is written up to the stored offset, so the worker refuses.
    """


class Positions:
    """Positions of the partitions that this worker was assigned, with the ids of their rows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ids: dict[TP, int] = {}

    def id_of(self, tp: TP) -> int:
        """The row of a partition that has been assigned."""
        return self._ids[tp]

    def positions(self, ranges: Mapping[TP, LogRange]) -> Mapping[TP, int]:
        """The next offset of each partition.

        Raises:
            PositionBeyondLogError: a stored position lies above the log's end.
        """
        with self._engine.begin() as connection:
            found = {
                tp: position_store.ensure_position(connection, tp.topic, tp.partition, log.start)
                for tp, log in sorted(ranges.items())
            }
        self._ids |= {tp: position.id for tp, position in found.items()}
        return {tp: self._checked(tp, position, ranges[tp]) for tp, position in found.items()}

    def _checked(self, tp: TP, position: Position, log: LogRange) -> int:
        if position.next_offset > log.end:
            raise PositionBeyondLogError(
                f"{tp.topic}[{tp.partition}]: the database has read up to offset {position.next_offset}, but Kafka's log "
                f"ends at {log.end}. The topic was made anew, or KAFKA_BOOTSTRAP_SERVERS names another cluster."
            )
        if position.next_offset >= log.start:
            return position.next_offset
        with self._engine.begin() as connection:
            position_store.skip_gap(connection, position, log.start)
        _log.error(
            "offset_gap",
            topic=tp.topic,
            partition=tp.partition,
            first=position.next_offset,
            records=log.start - position.next_offset,
        )
        return log.start

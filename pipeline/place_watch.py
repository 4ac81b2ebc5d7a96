"""Is what a worker reads still what it began to read: asked again every few seconds, beside the stream.

At an assignment every place is checked (`positions.py`). A topic that is deleted and made anew under a running worker
would else be noticed only at the next one, minutes later: until then nothing of it is read, or it is read on at the old
offset, over all that the new log holds below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from faust.types import TP
from sqlalchemy import Engine

from pipeline import position_store
from pipeline.logs import told
from pipeline.positions import refuse_another_topic, refuse_beyond
from pipeline.settings import Settings
from pipeline.topic_ids import KafkaTopicIds
from pipeline.transport import BatchApp, RefusedPlaceError

_log = structlog.get_logger(__name__)
look_interval_seconds = 5.0


def watch_places(app: BatchApp, engine: Engine, settings: Settings, kafka: KafkaTopicIds) -> None:
    """Let an app look at its input topics again and again while it runs; one that must not be read on ends it.

    All of them, not only those it has partitions of: it has none of a topic that has just been made anew.
    """
    topics = [each.topic for each in settings.inputs]

    async def look() -> None:
        try:
            await asyncio.to_thread(
                look_at_places, engine, kafka, topics, ids_told=settings.require_log_append_time
            )
        except RefusedPlaceError as refused:
            _log.error("position_refused", error=told(refused))
            await app.crash(refused)
        except Exception as error:  # noqa: BLE001 (what cannot be asked is asked next time: an outage is none of this)
            _log.warning("places_not_looked_at", error=told(error))

    app.timer(look_interval_seconds, name="places")(look)


def look_at_places(engine: Engine, kafka: KafkaTopicIds, topics: Sequence[str], *, ids_told: bool) -> None:
    """Compare stored positions with what Kafka holds under their topics' names now; positions first, for both only grow.

    Args:
        engine: where positions are stored.
        kafka: tells the topics' ids and the ends of their logs.
        topics: those to look at.
        ids_told: whether the brokers tell ids at all; else only a log's end can say that it is another.

    Raises:
        RefusedPlaceError: a position is of another log.
    """
    with engine.connect() as connection:
        stored = {
            TP(topic, partition): position
            for topic in topics
            for partition, position in position_store.positions_of(connection, topic).items()
        }
    if ids_told:
        topic_ids = kafka.of(topics)
        for topic in {tp.topic for tp in stored} - topic_ids.keys():
            _log.error("input_topic_missing", topic=topic)
        stored = {tp: position for tp, position in stored.items() if tp.topic in topic_ids}
        for tp, position in stored.items():
            refuse_another_topic(tp, position, topic_ids[tp.topic])
    for tp, end in kafka.ends(stored).items():
        refuse_beyond(tp, stored[tp], end)

"""Where reading stands: position list, position reset, position retire."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer
from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline import position_store
from pipeline.cli import session
from pipeline.cli.output import AsJson, Refused, say, show
from pipeline.kafka_security import librdkafka_options
from pipeline.position_store import Position
from pipeline.settings import Settings
from pipeline.topic_ids import KafkaTopicIds
from pipeline.transport import LogRange

_answer_seconds_max = 10.0


class Standing(NamedTuple):
    """A partition: where its position stands, what Kafka's log holds, and what speaks against reading on."""

    topic: str
    partition: int
    next_offset: int | None
    log_start: int
    log_end: int
    trouble: str | None


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    position = typer.Typer(no_args_is_help=True, help="How far each partition has been read.")
    position.command("list")(position_list)
    position.command("reset")(position_reset)
    position.command("retire")(position_retire)
    app.add_typer(position, name="position")


def position_list(*, as_json: AsJson = False) -> None:
    """List every partition's position beside Kafka's log, and what speaks against reading on from there."""
    settings = session.settings()
    rows = []
    for topic in settings.inputs:
        topic_id, logs = _logs(settings, topic.topic)
        with session.transaction("position list") as connection:
            positions = position_store.positions_of(connection, topic.topic)
        rows += [
            _standing(topic.topic, each, positions.get(each), log, topic_id)
            for each, log in sorted(logs.items())
        ]
    show(rows, as_json=as_json, title="positions", empty="no input topic exists")


def position_reset(
    topic: Annotated[str, typer.Argument(help="An input topic that was made anew.")],
    partition: Annotated[int | None, typer.Argument(help="Only this partition.")] = None,
    *,
    to_start: Annotated[
        bool, typer.Option("--to-start", help="Begin at the earliest record that the new log holds.")
    ] = False,
) -> None:
    """Begin a topic that was made anew at its earliest record: the way out where a worker refuses to read on.

    What was read from the old log stays as it is. Positions that fit their log are left alone; records that come a
    second time are duplicates, and change nothing.
    """
    if not to_start:
        raise Refused("say --to-start: no other place is safe to begin at", exit_code=2)
    settings = session.settings()
    if topic not in {each.topic for each in settings.inputs}:
        raise Refused(f"{topic} is no input topic of this installation")
    topic_id, logs = _logs(settings, topic)
    if partition is not None and partition not in logs:
        raise Refused(f"{topic} has no partition {partition}")
    reset = []
    with session.transaction("position reset") as connection:
        positions = position_store.positions_of(connection, topic)
        for number in sorted(logs) if partition is None else [partition]:
            standing = _standing(topic, number, positions.get(number), logs[number], topic_id)
            if standing.trouble is not None:
                lost = position_store.begin_anew(connection, topic, number, standing.log_start, topic_id)
                reset.append((standing, lost))
    if not reset:
        raise Refused("nothing to reset: every position fits its log")
    for each, lost in reset:
        say(f"{topic}[{each.partition}] begins at offset {each.log_start} ({each.trouble}){_lost(lost)}")


def position_retire(
    topic: Annotated[str, typer.Argument(help="A topic that was deleted and will not be made again.")],
    *,
    gone: Annotated[
        bool, typer.Option("--gone", help="Say so: what it held and nobody read will never be read.")
    ] = False,
) -> None:
    """Give up a topic that is gone for good: the way out where a month waits for records of it that nobody can read.

    What was read from it stays as it is. What is known to be lost is counted as a gap.
    """
    if not gone:
        raise Refused("say --gone: what nobody has read of this topic is given up", exit_code=2)
    _, logs = _logs(session.settings(), topic)
    if logs:
        raise Refused(
            f"{topic} exists; take it out of the inputs if it is not to be read, and delete it first"
        )
    with session.transaction("position retire") as connection:
        for number, topic_id in position_store.partitions_awaited(connection, topic).items():
            position_store.ensure_position(connection, topic, number, 0, topic_id)
        lost = {
            number: position_store.give_up(connection, topic, number)
            for number in position_store.positions_of(connection, topic)
        }
    if not lost:
        raise Refused(f"nothing was ever read of {topic}, and no month waits for it")
    for number, records in lost.items():
        say(f"{topic}[{number}] is given up{_lost(records)}")


def _lost(records: int) -> str:
    return f"; {records} of its records were never read, and are counted as a gap" if records else ""


def _standing(
    topic: str, partition: int, position: Position | None, log: LogRange, topic_id: str | None
) -> Standing:
    trouble = None
    if position is not None and position.next_offset > log.end:
        trouble = "its position lies above the log's end"
    if position is not None and topic_id and position.topic_id not in {None, topic_id}:
        trouble = f"its position is of topic {position.topic_id}, this is topic {topic_id}"
    return Standing(topic, partition, position and position.next_offset, log.start, log.end, trouble)


def _logs(settings: Settings, topic: str) -> tuple[str | None, dict[int, LogRange]]:
    """The topic's id and what each of its partitions holds; none where it does not exist."""
    consumer = Consumer(
        {
            **librdkafka_options(settings.kafka_security),
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "tenant-billing-positions",
        }
    )
    try:
        metadata = consumer.list_topics(topic, timeout=_answer_seconds_max).topics[topic]
        logs = {
            partition: LogRange(
                *consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_answer_seconds_max)
            )
            for partition in (metadata.partitions if metadata.error is None else ())
        }
        if not settings.require_log_append_time:  # the embedded broker tells no ids
            return None, logs
        ids = KafkaTopicIds(settings.kafka_bootstrap_servers, settings.kafka_security).of([topic])
        return ids.get(topic), logs
    except KafkaException as error:
        raise Refused(
            f"Kafka does not answer at {settings.kafka_bootstrap_servers}: {error.args[0].str()}"
        ) from error
    finally:
        consumer.close()

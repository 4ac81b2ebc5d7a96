"""Kafka's topics, as this program needs them: topics create, topics check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer
from confluent_kafka import KafkaException

from pipeline.cli import session
from pipeline.cli.output import AsJson, Refused, show
from pipeline.topics import Topics, TopicsUnavailableError, Verdict, WantedTopic, wanted_topics

Partitions = Annotated[
    list[str] | None,
    typer.Option(metavar="TOPIC=NUMBER", help="Ask for this many partitions; repeat for other topics."),
]
Replication = Annotated[
    int,
    typer.Option(min=1, help="Copies of each record; all but one must be written before it counts as sent."),
]
_replication: Final = 3


def add_to(app: typer.Typer) -> None:
    """Add the commands of this subject."""
    topics = typer.Typer(no_args_is_help=True, help="Kafka's topics: made as they must be, or checked.")
    topics.command("create")(topics_create)
    topics.command("check")(topics_check)
    app.add_typer(topics, name="topics")


def topics_create(
    *, partitions: Partitions = None, replication: Replication = _replication, as_json: AsJson = False
) -> None:
    """Make the topics that are missing; refuses, and makes none, if one that exists is wrong."""
    _judge(Topics.create, partitions, replication, as_json=as_json)


def topics_check(
    *, partitions: Partitions = None, replication: Replication = _replication, as_json: AsJson = False
) -> None:
    """Check every topic, change none; where one is wrong or missing: exit 1, and how to mend it."""
    _judge(Topics.check, partitions, replication, as_json=as_json)


def _judge(
    work: Callable[[Topics, Sequence[WantedTopic]], list[Verdict]],
    partitions: list[str] | None,
    replication: int,
    *,
    as_json: bool,
) -> None:
    settings = session.settings()
    try:
        wanted = wanted_topics(settings, _numbers(partitions or []), replication)
    except ValueError as error:
        raise Refused(str(error), exit_code=2) from error
    try:
        verdicts = work(Topics(settings), wanted)
    except (TopicsUnavailableError, KafkaException) as error:
        raise Refused(str(error)) from error
    rows = [
        {"topic": each.topic, "state": each.state, "partitions": each.partitions, "troubles": each.troubles}
        for each in verdicts
    ]
    show(rows, as_json=as_json, title="topics")
    troubles = [f"{each.topic}: {trouble}" for each in verdicts for trouble in each.troubles]
    if troubles:
        raise Refused("\n".join(troubles))


def _numbers(partitions: list[str]) -> dict[str, int]:
    """Read `TOPIC=NUMBER`."""
    numbers = {}
    for asked in partitions:
        topic, _, number = asked.rpartition("=")
        if not topic or not number.isdecimal() or int(number) < 1:
            raise typer.BadParameter(f"{asked!r} is not TOPIC=NUMBER, such as calls.raw=12")
        numbers[topic] = int(number)
    return numbers

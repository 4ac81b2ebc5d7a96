"""What topics must be like, and what is wrong with those that there are.

A month's cutoff is told by the broker's clock (C1), a close may look back as far as its records' grace, and what a
broker has acknowledged must survive that broker. A topic that breaks one of these loses or moves money silently, so
it is refused before the first record is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType, TopicMetadata

from pipeline.kafka_security import librdkafka_options
from pipeline.settings import Settings

_answer_seconds_max: Final = 20.0
_outage: Final = timedelta(days=4)  # a long weekend in which nobody restarts a worker
_retention: Final = timedelta(days=14)
_forever: Final = -1
_input_partitions: Final = 6
_output_partitions: Final = 3


class TopicsUnavailableError(RuntimeError):
    """Kafka did not answer, or refused; the message says why."""


@dataclass(frozen=True, slots=True)
class WantedTopic:
    """What a topic must be like.

    `partitions`: exactly so many, or any number when None. `replicas`: at least so many. `retention_min`: records are
    kept at least so long; `retention` is what a new topic gets, for ever when None.
    """

    name: str
    log_append_time: bool
    partitions: int | None
    partitions_when_new: int
    replicas: int
    retention_min: timedelta
    retention: timedelta | None

    @property
    def in_sync_min(self) -> int:
        """How many replicas must hold a record before it is acknowledged: all but one, so that one broker may be away."""
        return max(1, self.replicas - 1)


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as it is; `replicas` is the smallest number that one of its partitions has."""

    partitions: int
    replicas: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One topic: `made` just now, `right`, `missing` or `wrong`; each trouble says what is wrong and how to mend it."""

    topic: str
    partitions: int
    troubles: tuple[str, ...] = ()
    made: bool = False

    @property
    def state(self) -> str:
        """In a word."""
        if self.troubles:
            return "wrong" if self.partitions else "missing"
        return "made" if self.made else "right"


def wanted_topics(settings: Settings, partitions: Mapping[str, int], replicas: int) -> list[WantedTopic]:
    """The topics of an installation: its inputs, and what it tells.

    Raises:
        ValueError: partitions are asked for a topic that is none of them.
    """
    inputs = {each.topic for each in settings.inputs}
    names = [*sorted(inputs), settings.statements_topic, settings.periods_topic]
    strangers = sorted(set(partitions) - set(names))
    if strangers:
        raise ValueError(
            f"no topic of this installation: {', '.join(strangers)}; they are {', '.join(names)}"
        )
    retention_min = settings.grace + timedelta(hours=settings.quarantine_wait_hours_max) + _outage
    return [
        WantedTopic(
            name,
            log_append_time=name in inputs and settings.require_log_append_time,
            partitions=partitions.get(name),
            partitions_when_new=partitions.get(
                name, _input_partitions if name in inputs else _output_partitions
            ),
            replicas=replicas,
            retention_min=retention_min,
            retention=max(_retention, retention_min) if name in inputs else None,
        )
        for name in names
    ]


def troubles(wanted: WantedTopic, found: FoundTopic) -> tuple[str, ...]:
    """What is wrong with a topic, each with how to mend it."""
    said = [
        _partitions_trouble(wanted, found),
        _replicas_trouble(wanted, found),
        _in_sync_trouble(wanted, found),
        _timestamps_trouble(wanted, found),
        _retention_trouble(wanted, found),
        _size_trouble(wanted, found),
        _cleanup_trouble(wanted, found),
    ]
    return tuple(trouble for trouble in said if trouble is not None)


class Topics:
    """The cluster's topics, as an administrator sees them."""

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka_bootstrap_servers
        self._admin = AdminClient(
            {
                **librdkafka_options(settings.kafka_security),
                "bootstrap.servers": settings.kafka_bootstrap_servers,
            }
        )

    def check(self, wanted: Sequence[WantedTopic]) -> list[Verdict]:
        """What is wrong with each; nothing is changed.

        Raises:
            TopicsUnavailableError: Kafka does not answer.
        """
        found = self._found([each.name for each in wanted])
        return [_verdict(each, found.get(each.name)) for each in wanted]

    def create(self, wanted: Sequence[WantedTopic]) -> list[Verdict]:
        """Make those that are missing, and only if nothing is wrong with the others.

        Raises:
            TopicsUnavailableError: Kafka does not answer, or refused a topic.
        """
        before = self.check(wanted)
        if any(verdict.state == "wrong" for verdict in before):
            return before
        missing = {verdict.topic for verdict in before if verdict.state == "missing"}
        if missing:
            self._make([each for each in wanted if each.name in missing])
        return [
            Verdict(each.topic, each.partitions, each.troubles, made=each.topic in missing)
            for each in self.check(wanted)
        ]

    def _make(self, wanted: Sequence[WantedTopic]) -> None:
        new = [
            NewTopic(each.name, each.partitions_when_new, each.replicas, config=_settings_of(each))
            for each in wanted
        ]
        answers: dict[str, Future[None]] = self._admin.create_topics(
            new, operation_timeout=_answer_seconds_max
        )
        for topic, answer in answers.items():
            try:
                answer.result(_answer_seconds_max)
            except (KafkaException, TimeoutError) as error:
                if not _exists(error):  # another made it meanwhile: it is checked like any other
                    raise TopicsUnavailableError(f"{topic} could not be made: {_why(error)}") from error

    def _found(self, names: Sequence[str]) -> dict[str, FoundTopic]:
        try:
            known = self._admin.list_topics(timeout=_answer_seconds_max).topics
            there = [name for name in names if name in known and known[name].partitions]
            settings = self._settings(there) if there else {}
        except (KafkaException, TimeoutError) as error:
            raise TopicsUnavailableError(
                f"Kafka does not answer at {self._servers}: {_why(error)}"
            ) from error
        return {name: _found_topic(known[name], settings[name]) for name in there}

    def _settings(self, topics: Sequence[str]) -> dict[str, dict[str, str]]:
        asked = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, topic) for topic in topics],
            request_timeout=_answer_seconds_max,
        )
        return {
            resource.name: {name: entry.value for name, entry in answer.result(_answer_seconds_max).items()}
            for resource, answer in asked.items()
        }


def _found_topic(topic: TopicMetadata, settings: Mapping[str, str]) -> FoundTopic:
    replicas = min(len(partition.replicas) for partition in topic.partitions.values())
    return FoundTopic(len(topic.partitions), replicas, settings)


def _verdict(wanted: WantedTopic, found: FoundTopic | None) -> Verdict:
    if found is None:
        return Verdict(wanted.name, 0, ("it does not exist; `tenant-billing topics create` makes it",))
    return Verdict(wanted.name, found.partitions, troubles(wanted, found))


def _settings_of(wanted: WantedTopic) -> dict[str, str]:
    return {
        "message.timestamp.type": "LogAppendTime" if wanted.log_append_time else "CreateTime",
        "min.insync.replicas": str(wanted.in_sync_min),
        "retention.ms": str(_forever if wanted.retention is None else _milliseconds(wanted.retention)),
        "retention.bytes": str(_forever),
        "cleanup.policy": "delete",
    }


def _partitions_trouble(wanted: WantedTopic, found: FoundTopic) -> str | None:
    if wanted.partitions is None or found.partitions == wanted.partitions:
        return None
    mend = (
        f"kafka-topics --alter --topic {wanted.name} --partitions {wanted.partitions}"
        if found.partitions < wanted.partitions
        else "Kafka never takes partitions away: ask for as many as there are"
    )
    return f"it has {found.partitions} partitions, {wanted.partitions} were asked for; {mend}"


def _replicas_trouble(wanted: WantedTopic, found: FoundTopic) -> str | None:
    if found.replicas >= wanted.replicas:
        return None
    return (
        f"its partitions have {found.replicas} replicas, not {wanted.replicas}: a broker's end is the records' end; "
        "kafka-reassign-partitions adds replicas"
    )


def _in_sync_trouble(wanted: WantedTopic, found: FoundTopic) -> str | None:
    in_sync = int(found.settings["min.insync.replicas"])
    if in_sync < wanted.in_sync_min:
        said = f"min.insync.replicas is {in_sync}: acknowledged records may be lost with a broker"
        return f"{said}; {_alter(wanted, 'min.insync.replicas', wanted.in_sync_min)}"
    if in_sync >= found.replicas > 1:
        said = (
            f"min.insync.replicas is {in_sync} of {found.replicas}: one broker's restart stops the switches"
        )
        return f"{said}; {_alter(wanted, 'min.insync.replicas', found.replicas - 1)}"
    return None


def _timestamps_trouble(wanted: WantedTopic, found: FoundTopic) -> str | None:
    kind = found.settings["message.timestamp.type"]
    if not wanted.log_append_time or kind == "LogAppendTime":
        return None
    said = (
        f"message.timestamp.type is {kind}: a month's cutoff is told by the broker's clock, not by a switch's"
    )
    return f"{said}; {_alter(wanted, 'message.timestamp.type', 'LogAppendTime')}"


def _retention_trouble(wanted: WantedTopic, found: FoundTopic) -> str | None:
    kept, needed = int(found.settings["retention.ms"]), _milliseconds(wanted.retention_min)
    if kept == _forever or kept >= needed:
        return None
    hours = wanted.retention_min / timedelta(hours=1)
    said = f"retention.ms is {kept}: records may be gone before a month that waits for them has closed"
    return f"{said} (at least {hours:g} h); {_alter(wanted, 'retention.ms', needed)}"


def _size_trouble(wanted: WantedTopic, found: FoundTopic) -> str | None:
    if int(found.settings["retention.bytes"]) == _forever:
        return None
    said = f"retention.bytes is {found.settings['retention.bytes']}: a busy day drops records before they are read"
    return f"{said}; {_alter(wanted, 'retention.bytes', _forever)}"


def _cleanup_trouble(wanted: WantedTopic, found: FoundTopic) -> str | None:
    if found.settings["cleanup.policy"] == "delete":
        return None
    said = f"cleanup.policy is {found.settings['cleanup.policy']}: of records with one key all but the last would go"
    return f"{said}; {_alter(wanted, 'cleanup.policy', 'delete')}"


def _alter(wanted: WantedTopic, name: str, value: object) -> str:
    return (
        f"kafka-configs --alter --entity-type topics --entity-name {wanted.name} --add-config {name}={value}"
    )


def _milliseconds(span: timedelta) -> int:
    return math.ceil(span / timedelta(milliseconds=1))


def _exists(error: Exception) -> bool:
    return (
        isinstance(error, KafkaException)
        and isinstance(error.args[0], KafkaError)
        and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    )


def _why(error: Exception) -> str:
    reason: Any = error.args[0] if error.args else None
    return reason.str() if isinstance(reason, KafkaError) else str(error) or "no answer in time"

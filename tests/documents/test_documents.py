"""What other systems' developers read is what the program does: schemas, AsyncAPI, settings, commands, the sample."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # its types are a package of their own
from sqlalchemy import Engine

from deploy.documents import examples
from deploy.documents.pages import pages
from deploy.documents.settings import INPUTS_EXAMPLE, SUBJECTS
from deploy.documents.topic_schemas import TOPICS
from deploy.stack.broker import Broker
from deploy.stack.child import Child
from pipeline.relay import relay_once, relay_producer
from pipeline.settings import InputTopic, Settings
from rollup.announcement import Announcement
from schemas.decoded import Rejected
from schemas.formats.canonical import decode_call, decode_sip
from tests.acceptance.months import close
from tests.conftest import MakeTopics
from tests.world import World, inbound, utc

ROOT = Path(__file__).parents[2]
ASYNCAPI = json.loads((ROOT / "schemas/asyncapi.json").read_text())
CALL, ATTEMPT, _ = examples.calls()
BY_FIELDS, BY_TEXT = examples.sip()
NUMBER = "+12125550101"
LAST = json.loads(examples.statement_announced().headers)["ce_id"]


def validator(topic: str) -> Draft202012Validator:
    schema = json.loads((ROOT / f"schemas/json/{topic}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize(("name", "made"), pages().items(), ids=pages())
def test_a_generated_document_is_what_the_code_says(name: str, made: str) -> None:
    assert (ROOT / name).read_text() == made, f"{name}: run `make documents`"


def test_no_schema_is_left_over() -> None:
    found = {file.stem for file in (ROOT / "schemas/json").iterdir()}
    assert found == {topic.name for topic in TOPICS}


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    assert set(SUBJECTS) <= set(Settings.model_fields)


def test_the_inputs_shown_as_an_example_can_be_set() -> None:
    assert [InputTopic.model_validate(each).topic for each in INPUTS_EXAMPLE] == ["calls.raw", "calls.edge"]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: str(topic.name))
def test_the_examples_are_messages_of_their_topic(topic: Any) -> None:
    for message in topic.examples():
        validator(topic.name).validate(message)


def without(message: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}


CALLS = [
    CALL,
    ATTEMPT,
    CALL | {"field_of_tomorrow": [1]},
    CALL | {"answered_seconds": 180.25},
    CALL | {"source_ip": "2001:db8::7", "x_tenant": None},
    without(CALL, "source_ip"),
    without(CALL, "source_ip", "call_id"),
    CALL | {"source_ip": None, "call_id": None},
    without(CALL, "to_number"),
    without(ATTEMPT, "to_number"),
    ATTEMPT | {"to_number": None},
    without(CALL, "id"),
    without(CALL, "started_at"),
    CALL | {"cost": 0.0255},
    CALL | {"cost": "1e3"},
    CALL | {"answered_seconds": "3 min"},
    CALL | {"billed_seconds": 1.5},
    CALL | {"direction": "sideways"},
    CALL | {"currency": "usd"},
    CALL | {"source_ip": "198.51.100.300"},
    CALL | {"id": ""},
    CALL | {"switch": "x" * 257},
]
SIP = [
    BY_FIELDS,
    BY_TEXT,
    BY_FIELDS | {"headers": {"x-tenant": ["a.example.com"]}},
    BY_FIELDS | {"source_port": 70_000},
    without(BY_FIELDS, "call_id"),
    without(BY_FIELDS, "method"),
    without(BY_TEXT, "raw"),
    without(BY_TEXT, "source_ip"),
]


@pytest.mark.parametrize("message", CALLS)
def test_a_call_record_is_read_if_and_only_if_it_fits_the_schema(message: dict[str, Any]) -> None:
    read = not isinstance(decode_call(json.dumps(message).encode()), Rejected)
    assert validator("calls.raw").is_valid(message) is read


@pytest.mark.parametrize("message", SIP)
def test_a_sip_event_is_read_if_and_only_if_it_fits_the_schema(message: dict[str, Any]) -> None:
    read = not isinstance(decode_sip(json.dumps(message).encode()), Rejected)
    assert validator("sip.raw").is_valid(message) is read


@pytest.fixture
def closed_month(database: Engine, topics: MakeTopics) -> World:
    """A month with a tenant's call and an unassigned one, closed on topics of its own."""
    names = topics(statements=1, periods=1)
    world = World(database, statements_topic=names["statements"], periods_topic=names["periods"])
    account = world.account()
    world.number(NUMBER, account, world.tenant(account, "shop.example.com"))
    world.number("+12125550102", account, None)
    world.run()
    for number in (NUMBER, "+12125550102"):
        world.receive(inbound(number, number, utc("2026-09-10 12:00")), at=utc("2026-09-12 12:00"))
    close(world, "2026-09")
    return world


def told(world: World) -> Iterator[tuple[str, Announcement]]:
    """What the product announces, by the topic's usual name."""
    usual = {
        world.settings.statements_topic: "statements.closed",
        world.settings.periods_topic: "periods.closed",
    }
    for row in world.query("select topic, key, headers, value, made_at from outbox order by id"):
        event = Announcement(row.topic, row.key, json.dumps(row.headers), bytes(row.value), row.made_at)
        yield usual[row.topic], event


def test_what_a_close_announces_fits_its_schemas(closed_month: World) -> None:
    seen = []
    for topic, event in told(closed_month):
        value = json.loads(event.value)
        validator(topic).validate(value)
        message = ASYNCAPI["components"]["messages"][
            "StatementClosed" if "statement" in value else "PeriodClosed"
        ]
        Draft202012Validator(message["headers"]).validate(json.loads(event.headers))
        seen.append((topic, value.get("kind")))
    kinds = {("statements.closed", "tenant"), ("statements.closed", "unassigned"), ("periods.closed", None)}
    assert set(seen) == kinds


@pytest.mark.parametrize("announced", [examples.statement_announced, examples.period_announced])
def test_the_sdk_of_cloudevents_reads_an_event(announced: Any) -> None:
    event = announced()
    headers = {name: value.encode() for name, value in json.loads(event.headers).items()}
    read = from_binary(KafkaMessage(headers, event.key.encode(), event.value), JSONFormat())
    assert (read.get_specversion(), read.get_source()) == ("1.0", "/tenant-billing")
    assert read.get_type().startswith("tenant-billing.")
    assert read.get_time() == event.made_at
    assert read.get_data() == json.loads(event.value)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


def test_asyncapi_leads_from_every_topic_to_its_schema() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    settings = Settings()
    sent = {settings.statements_topic, settings.periods_topic}
    read = {each.topic for each in settings.inputs}
    directions: dict[str, set[str]] = {"send": set(), "receive": set()}
    for operation in ASYNCAPI["operations"].values():
        channel = found(operation["channel"]["$ref"])
        [message] = channel["messages"].values()
        assert found(message["$ref"])["payload"]["$ref"] == f"./json/{channel['address']}.json"
        directions[operation["action"]].add(channel["address"])
    assert directions == {"send": sent, "receive": read}
    assert len(ASYNCAPI["channels"]) == len(sent | read)


def test_every_reference_in_asyncapi_leads_somewhere() -> None:
    for reference in references(ASYNCAPI):
        assert found(reference)


def found(reference: str) -> Any:
    if not reference.startswith("#/"):
        return json.loads((ROOT / "schemas" / reference).read_text())
    value = ASYNCAPI
    for step in reference.removeprefix("#/").split("/"):
        value = value[step]
    return value


def test_the_sample_subscriber_keeps_each_statement_once(
    closed_month: World, kafka: Broker, tmp_path: Path
) -> None:
    producer = relay_producer(kafka.bootstrap_servers)
    relay_once(closed_month.engine, producer)
    with closed_month.engine.begin() as connection:
        connection.exec_driver_sql("update outbox set published_at = null")
    relay_once(closed_month.engine, producer)  # the acknowledgement was lost: all is sent again
    topic, file = closed_month.settings.statements_topic, tmp_path / "seen.db"
    producer.produce(topic, b'{"of": "tomorrow"}', headers={"ce_type": b"of.tomorrow"})
    last = examples.statement_announced()
    producer.produce(topic, last.value, headers=json.loads(last.headers))
    producer.flush(10)
    arguments = [kafka.bootstrap_servers, topic, str(file)]
    with (tmp_path / "log").open("wb") as log:
        child = Child([sys.executable, "-m", "deploy.examples.subscriber", *arguments], stdout=log)
        try:
            wait_for_the_last(file, child)
        finally:
            child.stop(10)
    stored = closed_month.query("select cast(id as text), body from statements")
    sent = [(row.id, bytes(row.body).decode()) for row in stored]
    assert [each for each in kept(file) if each[0] != LAST] == sorted(sent)


def kept(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as seen:
        return seen.execute("select event_id, body from statements order by event_id").fetchall()


def wait_for_the_last(file: Path, child: Child) -> None:
    """One partition: once its last event is kept, all before it have been read."""
    for _ in range(600):
        assert child.running
        if file.exists() and LAST in dict(kept_if_made(file)):
            return
        threading.Event().wait(0.1)
    pytest.fail("the subscriber has not read to the end")


def kept_if_made(file: Path) -> list[tuple[str, str]]:
    try:
        return kept(file)
    except sqlite3.OperationalError:  # it has not made its table yet, or is writing
        return []

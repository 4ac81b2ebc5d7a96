"""Whatever an event holds, it is taken or kept where people see it; none stops those behind it (I0)."""

from __future__ import annotations

from typing import cast

import orjson
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from invoicing.listing_store import list_refused_events
from invoicing.news import DETAIL_CHARACTERS_MAX, RefusedNews, StatementNews, read_news
from pipeline.invoicer import take_event
from tests.invoicing.builders import World, statement, usage
from tests.invoicing.test_process import event

GOOD = event(statement(usage(seconds=60, cost="9")))


class Event:
    """A message as Kafka hands it over."""

    def __init__(self, value: bytes | None, headers: list[tuple[str, bytes]] | None = None) -> None:
        self._value, self._headers = value, headers

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._headers

    def key(self) -> bytes:
        return b"\x00key"

    def topic(self) -> str:
        return "statements.closed"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Event(GOOD, [("ce_type", b"tenant-billing.\x00.v9")]), "unknown_version"),
        (Event(GOOD, [("ce_type", b"\xff\xfe")]), "unknown_version"),
        (Event(orjson.dumps(orjson.loads(GOOD) | {"version": -(2**60)})), "unknown_version"),
        (Event(orjson.dumps(orjson.loads(GOOD) | {"statement_id": "\x00"})), "malformed"),
        (Event(b"\x00"), "malformed"),
        (Event(b""), "malformed"),
        (Event(None), "malformed"),
        (Event(b"[" * 5_000), "malformed"),
        (Event(b'{"version": true}'), "malformed"),
        (Event(b'"text"'), "malformed"),
    ],
    ids=lambda each: each if isinstance(each, str) else str(each.value())[:20],
)
def test_an_event_that_nobody_could_have_sent_is_kept_with_its_reason(
    world: World, told: Event, reason: str
) -> None:
    with world.engine.begin() as connection:
        refused = take_event(connection, cast("Message", told), world.clock())
        [kept] = list_refused_events(connection)
    assert isinstance(refused, RefusedNews)
    assert (kept.reason, kept.kafka_offset) == (reason, 7)


@given(
    st.dictionaries(st.sampled_from(["ce_type", "other"]), st.none() | st.binary()), st.none() | st.binary()
)
def test_any_bytes_are_news_or_a_refusal_that_can_be_stored(
    headers: dict[str, bytes | None], value: bytes | None
) -> None:
    news = read_news(headers, value)
    assert isinstance(news, StatementNews) or (
        "\x00" not in news.detail and len(news.detail) <= DETAIL_CHARACTERS_MAX
    )

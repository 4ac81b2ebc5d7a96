"""Logs are JSON lines that name nobody, also where an error's own text would."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import psycopg2
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from pipeline.logs import configure_logs, masked, told
from pipeline.positions import PositionBeyondLogError

NUMBER, TENANT = "+12125550101", "bigcustomer.mypbx.com"


@pytest.fixture
def _configured() -> Iterator[None]:
    before = logging.getLogger().handlers, logging.getLogger().level
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers, logging.getLogger().level = before


def mask(words: str) -> str:
    return str(masked(None, "", {"words": words})["words"])


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("call to +12125550100 failed", "call to <number> failed"),
        ("12125550100", "<number>"),
        ("(212) 555-0100", "<number>"),
        ("from 198.51.100.7:5060", "from <address>:5060"),
        ("2001:db8::7 and 2001:db8:1::/48", "<address> and <address>/48"),
        ("sip:pat@192.0.2.1", "sip:pat@<address>"),
        ("billing@example.com", "<address>"),
        ("Key sk_live_51abc", "Key <key>"),
        ("postgresql://user:secret@db/billing", "postgresql://user:<password>@db/billing"),
    ],
)
def test_what_looks_like_somebodys_is_taken_out(said: str, logged: str) -> None:
    assert mask(said) == logged


@pytest.mark.parametrize(
    "said",
    [
        "2026-10-31T23:59:58.120Z",
        "2026-12-03 at 12:30:45",
        "calls.raw[3] has been read to offset 12345678, the boundary is 12345999",
        "kafka-1.example.com:9092",
        "127.0.0.1:9092",
        "9934a1ef-08c3-1238-9ba8-022c7a011cae",
    ],
)
def test_what_operators_need_stays(said: str) -> None:
    assert mask(said) == said


@given(
    st.integers(min_value=10**7, max_value=10**15 - 1),
    st.sampled_from(["{}", "to {}.", "<{}>", '"{}"', "({})"]),
)
def test_no_international_number_gets_through_wherever_it_stands(digits: int, around: str) -> None:
    assert str(digits) not in mask(around.format(f"+{digits}"))


@given(st.ip_addresses(), st.sampled_from(["{}", "from {}", "{},", "[{}]", "'{}'"]))
def test_no_address_gets_through_wherever_it_stands(address: object, around: str) -> None:
    if not getattr(address, "is_loopback", False) and not str(address).startswith("127."):
        assert str(address) not in mask(around.format(address))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_a_line_holds_it_stays_json(value: object) -> None:
    json.dumps(masked(None, "", {"value": value}))


def test_an_errors_text_is_logged_only_where_it_cannot_speak_of_a_record(database: Engine) -> None:
    with pytest.raises(DataError) as malformed, database.connect() as connection:
        connection.execute(text(f"select '{TENANT}'::inet"))
    assert told(malformed.value) == "DataError 22P02"
    with pytest.raises(IntegrityError) as twice, database.begin() as connection:
        connection.execute(text("insert into installation (id) values (1)"))
    assert told(twice.value) == "IntegrityError 23505"
    assert told(KeyError(TENANT)) == "builtins.KeyError"
    ours = PositionBeyondLogError("calls.raw[3]: the topic was made anew")
    assert told(ours) == "pipeline.positions.PositionBeyondLogError: calls.raw[3]: the topic was made anew"
    assert "does not exist" in told_of_a_missing_database(database)


def told_of_a_missing_database(database: Engine) -> str:
    try:
        psycopg2.connect(host="127.0.0.1", port=database.url.port, user="postgres", dbname="none_such")
    except psycopg2.OperationalError as error:
        return told(OperationalError("select 1", {}, error))
    raise AssertionError("it was there")


@pytest.mark.usefixtures("_configured")
@pytest.mark.parametrize("library", [True, False])
def test_a_logged_exception_says_where_it_was_and_not_whose_record_it_was(
    capfd: pytest.CaptureFixture[str], *, library: bool
) -> None:
    configure_logs("info")
    try:
        {NUMBER: 7}[TENANT]
    except KeyError:
        if library:
            logging.getLogger("somebodys.library").exception("lost %s", NUMBER)
        else:
            structlog.get_logger().exception("batch_failed", offset=7)
    [line] = capfd.readouterr().err.splitlines()
    event = json.loads(line)
    assert event["error"] == "builtins.KeyError"
    assert event["at"][0].startswith("test_logs.test_a_logged_exception")
    assert event["level"] == "error"
    assert TENANT not in line
    assert NUMBER not in line
    assert event["event"] == ("lost <number>" if library else "batch_failed")

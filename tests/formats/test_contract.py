"""The laws that hold for every format, over its fixtures and over whatever bytes may come instead."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deploy.fuzz.damage import damaged
from deploy.fuzz.laws import broken_law
from pipeline.settings import InputTopic
from rollup.ledger_rows import content_ids
from schemas.decoded import Decoded, Ignored
from schemas.formats import DIALECTS, Dialect
from schemas.records import CallRecord, SipEvent
from tests.formats.folders import FOLDER, every_message, fixtures_of, folder_of, said
from tests.formats.mutations import values_of

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: f"{each.kind}-{each.name}")


def test_every_format_has_a_folder_of_fixtures_and_every_folder_a_format() -> None:
    assert {folder_of(each) for each in DIALECTS} == {each for each in FOLDER.iterdir() if each.is_dir()}


@each_dialect
def test_fixtures_show_what_is_read_and_what_is_refused(dialect: Dialect) -> None:
    fixtures = fixtures_of(dialect)
    kinds = {next(iter(each)) for each in fixtures.expected.values()}
    assert {"calls": "record", "sip": "event"}[dialect.kind] in kinds
    assert "rejected" in kinds
    assert fixtures.resends
    assert set(fixtures.messages) == set(fixtures.expected)


@pytest.mark.parametrize(
    ("dialect", "name"), every_message(), ids=lambda each: each if isinstance(each, str) else each.name
)
def test_a_fixture_comes_to_what_it_says(dialect: Dialect, name: str) -> None:
    fixtures = fixtures_of(dialect)
    actual = said(fixtures.decode(fixtures.messages[name]))
    ((outcome, expected),) = fixtures.expected[name].items()
    assert outcome in actual, actual
    if isinstance(expected, str):
        assert actual[outcome] == expected
    else:
        assert {field: actual[outcome][field] for field in expected} == expected


@each_dialect
def test_a_resend_is_the_same_fact(dialect: Dialect) -> None:
    fixtures = fixtures_of(dialect)
    for names in fixtures.resends:
        first, *others = [fixtures.decode(fixtures.messages[name]) for name in names]
        assert isinstance(first, CallRecord | SipEvent)
        for other in others:
            assert isinstance(other, CallRecord | SipEvent)
            assert _identity(other) == _identity(first)


@each_dialect
@given(shuffle=st.randoms(use_true_random=False), extra=values_of)
@settings(max_examples=25, deadline=None)
def test_order_and_unknown_fields_change_nothing(
    dialect: Dialect, shuffle: random.Random, extra: Any
) -> None:
    fixtures = fixtures_of(dialect)
    for value in fixtures.messages.values():
        try:
            document = json.loads(value)
        except ValueError:
            continue
        fields = [*document.items(), ("no_switch_sends_this", extra)]
        shuffle.shuffle(fields)
        again = json.dumps(dict(fields)).encode()
        assert fixtures.decode(again) == fixtures.decode(json.dumps(document).encode())


@each_dialect
@given(value=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_no_bytes_make_it_raise(dialect: Dialect, value: bytes) -> None:
    _check_laws(dialect, value)


@each_dialect
@pytest.mark.parametrize("opened", [b"[", b'{"a":'])
def test_no_depth_makes_it_raise(dialect: Dialect, opened: bytes) -> None:
    for value in fixtures_of(dialect).messages.values():
        within, after = value.find(b"{") + 1, value.find(b":") + 1
        _check_laws(dialect, value[:after] + opened * 50_000)
        _check_laws(dialect, value[:within] + b'"x":' + opened * 50_000)
        _check_laws(dialect, value[:within] + b'"x":' + b"[" * 50_000 + b"]" * 50_000 + b"," + value[within:])


@each_dialect
@given(choice=st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_no_damaged_message_makes_it_raise(dialect: Dialect, choice: random.Random) -> None:
    messages = list(fixtures_of(dialect).messages.values())
    _check_laws(dialect, damaged(messages, choice))


@each_dialect
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_no_value_of_a_field_makes_it_raise(dialect: Dialect, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(sorted(fixtures_of(dialect).messages.values())))
    try:
        document = json.loads(value)
    except ValueError:
        return
    where = document
    while True:
        name = data.draw(st.sampled_from(sorted(where)))
        if not (isinstance(where[name], dict) and where[name] and data.draw(st.booleans())):
            break
        where = where[name]
    where[name] = data.draw(values_of)
    _check_laws(dialect, json.dumps(document).encode())


@each_dialect
def test_a_tombstone_is_ignored(dialect: Dialect) -> None:
    assert fixtures_of(dialect).decode(None) == Ignored("tombstone")


@each_dialect
def test_an_input_without_what_its_format_needs_is_refused_at_start(dialect: Dialect) -> None:
    given_settings = fixtures_of(dialect).settings.model_dump(mode="json", exclude_defaults=True)
    for needed in dialect.needs:
        left = {name: value for name, value in given_settings.items() if name not in {needed, "on_net"}}
        with pytest.raises(
            ValidationError, match=rf"input some\.topic: format {dialect.name} needs {needed}"
        ):
            InputTopic.model_validate({"topic": "some.topic", "kind": dialect.kind, "format": left})


def _check_laws(dialect: Dialect, value: bytes) -> None:
    assert broken_law(fixtures_of(dialect).decode, value) is None


def _identity(what: Decoded) -> object:
    if isinstance(what, CallRecord):
        return what.switch, what.id, what.started_at, content_ids([what])[0]
    return what

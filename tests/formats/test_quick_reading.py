"""The quick way in which a format reads a usual message says what its own way says.

A blank before the time at which the call began is read by both formats' own ways alone, and means nothing there.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.formats import DIALECTS, Dialect
from schemas.records import CallRecord
from tests.formats.folders import fixtures_of
from tests.formats.mutations import values_of

_START: Final = {
    "freeswitch_event": "variable_start_uepoch",
    "freeswitch_json_cdr": "start_uepoch",
    "kamailio": "start_time",
}
_ODD: Final = st.sampled_from(
    ["null", " ", "1791633600126549", 1791633600126549, 1791633600.5, "inbound", "%3A"]
)
each_dialect = pytest.mark.parametrize(
    "dialect",
    [each for each in DIALECTS if each.kind == "calls" and each.name in _START],
    ids=lambda each: each.name,
)


@each_dialect
def test_a_usual_call_is_a_record_either_way(dialect: Dialect) -> None:
    decode = fixtures_of(dialect).decode
    for value in fixtures_of(dialect).messages.values():
        decoded = decode(value)
        if isinstance(decoded, CallRecord):
            assert decode(_the_long_way(dialect, json.loads(value.decode("utf-8", "replace")))) == decoded


@each_dialect
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_a_message_says_both_ways_read_the_same(dialect: Dialect, data: st.DataObject) -> None:
    decode = fixtures_of(dialect).decode
    value = data.draw(st.sampled_from(sorted(fixtures_of(dialect).messages.values())))
    try:
        document = json.loads(value)
    except ValueError:
        return
    fields = document.get("variables", document)
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)):
        fields[name] = data.draw(_ODD | values_of)
    assert decode(json.dumps(document).encode()) == decode(_the_long_way(dialect, document))


def _the_long_way(dialect: Dialect, document: dict[str, Any]) -> bytes:
    fields = document.get("variables", document)
    start = fields.get(_START[dialect.name])
    if isinstance(start, str) and start.strip() not in {"", "<null>", "(null)"}:
        fields[_START[dialect.name]] = f" {start}"
    return json.dumps(document).encode()


@pytest.mark.parametrize("absent", ["", "<null>"])
def test_a_dialog_without_the_time_of_its_invite_keeps_its_start_as_written(absent: str) -> None:
    dialect = next(each for each in DIALECTS if (each.kind, each.name) == ("calls", "kamailio"))
    document = json.loads(fixtures_of(dialect).messages["answered.json"])
    decoded = fixtures_of(dialect).decode(
        json.dumps({**document, "invite_ts": absent, "start_time": "1791633600.230"}).encode()
    )
    assert isinstance(decoded, CallRecord)
    assert decoded.id == "a84b4c76e66710@192.0.2.10;1791633600.230"

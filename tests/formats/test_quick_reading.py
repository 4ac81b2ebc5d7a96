"""The quick way in which a format reads a usual message says what its own way says.

A blank before a time is read by a format's own way alone, and means nothing there.
"""

from __future__ import annotations

import json
import tracemalloc
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.formats import DIALECTS, Dialect
from schemas.records import CallRecord
from tests.formats.folders import fixtures_of
from tests.formats.mutations import values_of

_TIME: Final = {
    "asterisk_cdr": "answer",
    "freeswitch_event": "variable_start_uepoch",
    "freeswitch_json_cdr": "start_uepoch",
    "kamailio": "start_time",
    "opensips_cdr": "time",
}
_ODD: Final = st.sampled_from(
    [
        *(
            "null",
            " ",
            "(null)",
            " <null>",
            "inbound",
            "%3A",
            "%2B12125550199",
            "+12125550199 ",
            "a%20b",
            "401",
        ),
        *(
            "1791633600126549",
            1791633600126549,
            1791633600.5,
            1791633600,
            "0",
            0,
            "1791633600",
            3032,
            "3032.5",
            "-1",
        ),
        *(
            "2026-10-10T12:00:00Z",
            "2026-10-10T12:00:00.5+0200",
            "2026-10-10T12:00:00",
            "0001-01-01T00:00:00+14:00",
        ),
        *("x" * 1500, "x" * 2500, "loopback/a-b", "Local/a@b", "call_id=%40x&x_tenant=a%26b", "dialog"),
    ]
)
each_dialect = pytest.mark.parametrize(
    "dialect",
    [each for each in DIALECTS if each.kind == "calls" and each.name in _TIME],
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
    fields = _fields(document)
    for name in data.draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)):
        fields[name] = data.draw(_ODD | values_of)
    assert decode(json.dumps(document).encode()) == decode(_the_long_way(dialect, document))


def _the_long_way(dialect: Dialect, document: dict[str, Any]) -> bytes:
    fields = _fields(document)
    time = fields.get(_TIME[dialect.name])
    if time.__class__ in {str, int, float} and str(time).strip() not in {"", "<null>", "(null)"}:
        fields[_TIME[dialect.name]] = f" {time}"
    return json.dumps(document).encode()


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    """Where a message has its fields: FreeSWITCH in variables, OpenSIPS in parameters."""
    inner = document.get("variables", document.get("params", document))
    return inner if isinstance(inner, dict) else document


@pytest.mark.parametrize("absent", ["", "<null>"])
def test_a_dialog_without_the_time_of_its_invite_keeps_its_start_as_written(absent: str) -> None:
    dialect = next(each for each in DIALECTS if (each.kind, each.name) == ("calls", "kamailio"))
    document = json.loads(fixtures_of(dialect).messages["answered.json"])
    decoded = fixtures_of(dialect).decode(
        json.dumps({**document, "invite_ts": absent, "start_time": "1791633600.230"}).encode()
    )
    assert isinstance(decoded, CallRecord)
    assert decoded.id == "a84b4c76e66710@192.0.2.10;1791633600.230"


@pytest.mark.parametrize(
    "field", ["sip_from_user", "sip_h_X-Tenant", "sip_network_ip", "channel_name", "switchname"]
)
def test_long_texts_are_not_remembered(field: str) -> None:
    """Were they, whoever sends long headers would fill the memory of the worker."""
    dialect = next(each for each in DIALECTS if each.name == "freeswitch_json_cdr")
    document = json.loads(fixtures_of(dialect).messages["plain.json"])
    where = document if field == "switchname" else document["variables"]
    decode = fixtures_of(dialect).decode
    tracemalloc.start()
    try:
        for number in range(40):
            where[field] = f"{number}" + "x" * 100_000
            decode(json.dumps(document).encode())
        where = document = {}
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000

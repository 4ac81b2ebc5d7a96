"""Which of Asterisk's rows is the call, and when it was, where one row says less than all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.decoded import Decoded, Ignored, Rejected
from schemas.formats import Format, decoder
from schemas.records import CallRecord
from tests.world import utc

ROW = {
    "src": "+12125550150",
    "dst": "+12125550199",
    "dcontext": "from-customer",
    "channel": "PJSIP/customer-a-00000001",
    "start": "2026-10-10T07:59:57.000-0400",
    "answer": "2026-10-10T08:00:00.000-0400",
    "end": "2026-10-10T08:02:10.000-0400",
    "durationsec": 133,
    "billsec": 130,
    "disposition": "ANSWERED",
    "uniqueid": "1791633597.1",
    "linkedid": "1791633597.1",
    "sequence": 4,
    "userfield": "call_id=ast-1@192.0.2.10&source_ip=192.0.2.10",
    "SystemName": "pbx-01",
}
UNANSWERED = {"disposition": "NO ANSWER", "answer": "", "billsec": 0}


def read(row: dict[str, Any], **settings: Any) -> Decoded:
    given = {"name": "asterisk_cdr", "zone": "America/New_York", "direction": "outbound", **settings}
    return decoder("calls", Format.model_validate(given))(json.dumps(ROW | row).encode())


def record(row: dict[str, Any], **settings: Any) -> CallRecord:
    what = read(row, **settings)
    assert isinstance(what, CallRecord), what
    return what


def test_every_row_is_a_call_of_its_own_channel_where_the_input_says_so() -> None:
    other = record({"uniqueid": "1791633598.7"}, rows="every")
    assert (record({}, rows="every").id, other.id) == ("1791633597.1", "1791633598.7")
    assert read({"uniqueid": "1791633598.7"}) == Ignored("other_channel")


def test_an_unanswered_row_is_an_attempt_where_every_row_is_a_call() -> None:
    attempt = record(UNANSWERED, rows="every")
    assert (attempt.answered_at, attempt.ended_at) == (None, utc("2026-10-10 12:02:10"))
    assert read(UNANSWERED) == Ignored("unanswered_row")


def test_seconds_of_a_row_that_was_not_answered_bill_nothing() -> None:
    row = {"disposition": "NO ANSWER", "billsec": 130}
    assert read(row) == Ignored("unanswered_row")
    assert record(row | {"answer": ""}, rows="every").answered_at is None


def test_every_row_without_a_uniqueid_is_its_calls() -> None:
    assert record({"uniqueid": None}, rows="every").id == "1791633597.1"


@pytest.mark.parametrize("rows", ["answered", "every"])
def test_rows_of_one_channel_have_one_id_whatever_their_sequence(rows: str) -> None:
    assert record({"sequence": 5}, rows=rows).id == record({"sequence": 4}, rows=rows).id


@pytest.mark.parametrize("rows", ["answered", "every"])
def test_a_loop_within_asterisk_is_no_call(rows: str) -> None:
    assert read({"channel": "Local/7@queue-00000001;1"}, rows=rows) == Ignored("local_channel")


@pytest.mark.parametrize("disposition", ["BUSY", "FAILED", "CONGESTION", 4, "1", None])
def test_only_an_answered_row_is_the_call(disposition: object) -> None:
    assert read({"disposition": disposition}) == Ignored("unanswered_row")


@pytest.mark.parametrize("zone", ["in_record", "UTC", "America/New_York", "Asia/Kolkata"])
def test_a_time_with_an_offset_needs_no_zone(zone: str) -> None:
    assert record({}, zone=zone).started_at == utc("2026-10-10 11:59:57")


def test_a_time_without_an_offset_is_refused_where_every_time_should_have_one() -> None:
    refused = read({"start": "2026-10-10T07:59:57"}, zone="in_record")
    assert isinstance(refused, Rejected)
    assert refused.reason == "ambiguous_time"
    assert "no zone is set" in refused.detail


def test_a_local_time_is_one_of_the_inputs_zone() -> None:
    local = {name: ROW[name][:19] for name in ("start", "answer", "end")}  # type: ignore[index]
    assert record(local, zone="Asia/Kolkata").started_at == utc("2026-10-10 02:29:57")


AGAIN = {"start": "2026-11-01T01:30:00", "answer": "2026-11-01T01:30:03", "end": "2026-11-01T01:31:03"}


@pytest.mark.parametrize(
    ("second", "started"),
    [("1793511000", "2026-11-01 05:30"), ("1793514600", "2026-11-01 06:30"), ("1793512800", None)],
)
def test_the_second_in_a_channels_name_tells_which_of_two_hours_it_was(
    second: str, started: str | None
) -> None:
    name = f"{second}.7"
    what = read({**AGAIN, "uniqueid": name, "linkedid": name, "durationsec": 63, "billsec": 60})
    if started is None:
        assert isinstance(what, Rejected)
        assert what.reason == "ambiguous_time"
    else:
        assert isinstance(what, CallRecord)
        assert what.started_at == utc(started)


def test_a_tenant_in_the_user_field_may_hold_what_separates_its_fields() -> None:
    assert record({"userfield": "call_id=a%40b&x_tenant=R%26D%3D1&source_ip=192.0.2.10"}).x_tenant == "R&D=1"

"""Which way a call went, where the record does not say: by a setting per input, never by a guess."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from attribution.attribute import Held
from attribution.direction import direct
from pipeline.settings import InputTopic
from schemas.decoded import Ignored, Rejected, Undirected
from schemas.formats import Format, decoder
from schemas.records import CallRecord
from tests.attribution.worlds import BIG, END_OF_TIME, SMALL, dedicated, directory, number, on

CDR = {
    "call_id": "a84b4c76e66710@192.0.2.10",
    "invite_ts": "1791633597.026549",
    "start_time": "1791633600.234",
    "end_time": "1791633603.266",
    "duration": "3.032",
    "from_user": "+12125550150",
    "to_user": "(212) 555-0199",
    "src_ip": "192.0.2.10",
}


def read(direction: Any, message: dict[str, Any] | None = None, **settings: Any) -> object:
    given = Format.model_validate({"name": "kamailio", "switch": "k", "direction": direction, **settings})
    return decoder("calls", given)(msgspec.json.encode(CDR | (message or {})))


def direction_of(what: object) -> str | None:
    return what.direction if isinstance(what, CallRecord) else None


def undirected(on_net: str | None = None, **message: Any) -> Undirected:
    what = read("directory", message, on_net=on_net)
    assert isinstance(what, Undirected)
    return what


CUSTOMER = dedicated(1, "192.0.2.0/24", BIG)
CALLED = number(1, "+12125550199", SMALL)
CALLING = number(2, "+12125550150", BIG)


def test_the_directory_tells_by_the_source_address() -> None:
    record = direct(undirected(), directory(CUSTOMER), "US")
    assert direction_of(record) == "outbound"


def test_the_directory_tells_by_the_called_number_however_it_is_written() -> None:
    record = direct(undirected(), directory(CALLED), "US")
    assert direction_of(record) == "inbound"


def test_the_calling_number_tells_only_where_there_is_no_source_address() -> None:
    assert direction_of(direct(undirected(src_ip="<null>"), directory(CALLING), "US")) == "outbound"
    spoofed = direct(undirected(src_ip="203.0.113.9"), directory(CALLING, CALLED), "US")
    assert direction_of(spoofed) == "inbound"


def test_a_call_that_nobody_is_known_of_is_quarantined() -> None:
    refused = direct(undirected(), directory(), "US")
    assert isinstance(refused, Rejected)
    assert refused.reason == "undirected"


def test_a_call_between_customers_goes_the_way_that_the_setting_says() -> None:
    both = directory(CUSTOMER, CALLED)
    assert isinstance(direct(undirected(), both, "US"), Rejected)
    assert direction_of(direct(undirected("outbound"), both, "US")) == "outbound"
    assert direction_of(direct(undirected("inbound"), both, "US")) == "inbound"


def test_a_call_that_is_billed_both_ways_is_two_records_of_which_each_goes_its_own() -> None:
    outbound, inbound = undirected("both").both_ways()
    assert inbound.record.id == f"{outbound.record.id}/inbound"
    assert [
        [direction_of(direct(each, known, "US")) for each in (outbound, inbound)]
        for known in (directory(CUSTOMER, CALLED), directory(CUSTOMER), directory(CALLED), directory())
    ] == [["outbound", "inbound"], ["outbound", None], [None, "inbound"], [None, None]]
    assert direct(inbound, directory(CUSTOMER), "US") == Ignored("not_inbound")
    assert direct(outbound, directory(CALLED), "US") == Ignored("not_outbound")


def test_what_was_assigned_after_the_call_tells_nothing() -> None:
    later = directory(number(1, "+12125550199", SMALL, made_at=on(10, 12, 1)))
    assert isinstance(direct(undirected(), later, "US"), Rejected)


def test_a_call_from_beyond_the_snapshot_is_held() -> None:
    early = directory(CUSTOMER, as_of=on(9))
    assert direct(undirected(), early, "US") == Held("clock_ahead")
    assert early.as_of < undirected().started_at < END_OF_TIME


@pytest.mark.parametrize(
    ("source", "direction"),
    [
        ("203.0.113.9", "inbound"),
        ("192.0.2.10", "outbound"),
        ("2001:db8::7", "inbound"),
        ("::ffff:192.0.2.10", "outbound"),
    ],
)
def test_a_trunks_address_tells(source: str, direction: str) -> None:
    rule = {"by": "source", "inbound": ["203.0.113.0/24", "2001:db8::/64"], "outbound": ["192.0.2.0/24"]}
    assert direction_of(read(rule, {"src_ip": source})) == direction


@pytest.mark.parametrize("source", ["198.51.100.1", "192.0.2.10", "<null>"])
def test_a_source_that_fits_no_list_or_both_is_quarantined(source: str) -> None:
    rule = {"by": "source", "inbound": ["203.0.113.0/24", "192.0.2.0/24"], "outbound": ["192.0.2.0/25"]}
    refused = read(rule, {"src_ip": source})
    assert isinstance(refused, Rejected)
    assert refused.reason == "undirected"


@pytest.mark.parametrize(
    ("said", "direction"), [("inbound", "inbound"), ("OUT", "outbound"), ("<null>", None), ("x", None)]
)
def test_a_record_may_say_it_itself(said: str, direction: str | None) -> None:
    assert direction_of(read("record", {"direction": said})) == direction


def test_what_a_direction_needs_is_asked_of_every_dialect() -> None:
    assert isinstance(read("inbound", {"to_user": ""}), Rejected)
    assert direction_of(read("outbound", {"src_ip": "", "to_user": ""})) == "outbound"


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("calls", "kamailio", "format kamailio needs direction and switch"),
        ("calls", {"name": "kamailio", "direction": "inbound"}, "format kamailio needs switch"),
        ("calls", {"name": "asterisk_cdr", "direction": "inbound"}, "format asterisk_cdr needs zone"),
        ("calls", {"name": "asterisk_cdr", "direction": "inbound", "zone": "Mars/Base"}, "no such time zone: 'Mars/Base'"),
        ("calls", "kamalio", "no format 'kamalio' for calls; there are: asterisk_cdr, canonical"),
        ("sip", "asterisk_cdr", "no format 'asterisk_cdr' for sip; there are: canonical, hep"),
        ("calls", {"name": "canonical", "zone": "UTC"}, "format canonical has no use for zone"),
        ("calls", {"name": "kamailio", "switch": "k", "direction": "inbound", "on_net": "inbound"}, "on_net is for direction"),
        ("calls", {"name": "kamailio", "switch": "k", "direction": "inbound", "hops": ["10.0.0.1/8"]}, "host bits"),
        ("calls", {"name": "kamailio", "switch": "k", "direction": "sideways"}, "direction"),
        (
            "calls",
            {"name": "kamailio", "switch": "k", "direction": {"by": "context", "inbound": ["a"]}},
            "format kamailio cannot tell the direction by context; it knows: record, source",
        ),
        ("calls", {"name": "kamailio", "switch": "k", "direction": {"by": "source"}}, "direction needs patterns"),
        ("calls", {"name": "kamailio", "switch": "k", "direction": {"by": "source", "inbound": ["pstn"]}}, "does not appear"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_refused_at_start_with_what_is_wrong(kind: str, given: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        InputTopic.model_validate({"topic": "t", "kind": kind, "format": given})


def test_a_bare_name_is_a_format_without_settings() -> None:
    assert InputTopic(topic="sip.raw", kind="sip", format=Format(name="hep")) == InputTopic.model_validate(
        {"topic": "sip.raw", "kind": "sip", "format": "hep"}
    )

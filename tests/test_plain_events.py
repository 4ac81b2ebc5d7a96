"""The quick way to read a SIP event says what the schema says, or nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.plain_events import PlainEnvelope, read_event_plainly
from schemas.records import SipEnvelope

PLAIN: dict[str, Any] = {
    "switch": "sbc-nyc-1",
    "observed_at": "2026-10-31T23:59:58.120Z",
    "source_ip": "192.0.2.7",
    "source_port": 5060,
    "call_id": "9934a1ef@example.com",
    "method": "INVITE",
    "cseq": "102 INVITE",
    "from_tag": "abc",
    "to_tag": None,
    "headers": {"X-Tenant": "bigcustomer.mypbx.com", "Max-Forwards": ["70", "69"]},
    "user_agent": "Example PBX",
}
TEXTS = st.sampled_from(
    [
        *(
            "",
            " ",
            "x" * 64,
            "x" * 65,
            "x" * 256,
            "x" * 257,
            "x" * 512,
            "x" * 513,
            "tab\there",
            "del\x7f",
            "\u00fc",
        ),
        *(
            "192.0.2.300",
            "::ffff:192.0.2.7",
            "fe80::1%eth0",
            "2026-10-31T23:59:58+02:00",
            "2026-10-31",
            "102",
        ),
    ]
)
VALUES = st.one_of(
    TEXTS,
    st.sampled_from([0, -1, 65_535, 65_536, 2**32 - 1, 2**32, 102.0, 1.5, True, None]),
    st.sampled_from([[], {}, {"X-Tenant": None}, {"X-Tenant": ["a", 1]}, {"x-tenant ": "a"}]),
)
FIELDS = st.sampled_from([*PLAIN, "raw", "unknown"])


def by_the_schema(value: bytes) -> PlainEnvelope | None:
    try:
        read = SipEnvelope.model_validate_json(value)
    except ValidationError:
        return None
    return PlainEnvelope(*[getattr(read, name) for name in PlainEnvelope.__struct_fields__])


def test_an_event_as_probes_write_it_is_read_plainly() -> None:
    value = json.dumps(PLAIN).encode()

    assert read_event_plainly(value) == by_the_schema(value) is not None


@given(changes=st.dictionaries(FIELDS, VALUES, max_size=3), ascii_only=st.booleans())
def test_what_is_read_plainly_is_what_the_schema_reads(changes: dict[str, Any], *, ascii_only: bool) -> None:
    value = json.dumps({**PLAIN, **changes}, ensure_ascii=ascii_only).encode()

    assert read_event_plainly(value) in (None, by_the_schema(value))


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 4), st.binary(max_size=3)), min_size=1, max_size=3
    )
)
def test_whatever_the_bytes_the_quick_way_never_says_more_than_the_schema(
    cuts: list[tuple[int, int, bytes]],
) -> None:
    value = json.dumps(PLAIN).encode()
    for at, length, instead in cuts:
        value = value[:at] + instead + value[at + length :]

    assert read_event_plainly(value) in (None, by_the_schema(value))

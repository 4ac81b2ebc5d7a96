"""Which SIP events count for a call record."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.context import ReceivedEvent, context_age_max, counting_events, events_in_time
from schemas import network
from schemas.records import SipEvent
from tests.attribution.worlds import invite, on, outbound

MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(seconds=60)


def counts(observed_at: datetime, ended_at: datetime | None) -> bool:
    record = outbound("192.0.2.1", ended_at=ended_at)
    return bool(counting_events(record, [invite("192.0.2.1", observed_at=observed_at)], frozenset()))


@pytest.mark.parametrize("ended_at", [on(15, 0, 5), None])
def test_an_event_counts_from_a_minute_before_the_start(ended_at: datetime | None) -> None:
    assert counts(on(15) - MINUTE, ended_at)
    assert not counts(on(15) - MINUTE - MICROSECOND, ended_at)


def test_an_event_counts_until_the_call_ended() -> None:
    assert counts(on(15, 0, 5), on(15, 0, 5))
    assert not counts(on(15, 0, 5) + MICROSECOND, on(15, 0, 5))


def test_without_an_end_an_event_counts_until_a_minute_after_the_start() -> None:
    assert counts(on(15) + MINUTE, None)
    assert not counts(on(15) + MINUTE + MICROSECOND, None)


def test_a_call_id_used_again_a_day_later_is_another_call() -> None:
    assert not counts(on(16), on(15, 0, 5))


def test_an_event_of_another_call_does_not_count() -> None:
    assert not counting_events(outbound(None), [invite("192.0.2.1", call_id="call-2")], frozenset())


def test_our_own_copy_alone_cannot_say_who_the_customer_is() -> None:
    edge = frozenset({network.address("203.0.113.1")})
    assert not counting_events(outbound(None), [invite("203.0.113.1", "bigcustomer.mypbx.com")], edge)
    assert counting_events(outbound("203.0.113.1"), [invite("203.0.113.1", "bigcustomer.mypbx.com")], edge)


def test_of_copies_seen_at_one_instant_the_one_that_names_a_tenant_speaks() -> None:
    copies = [
        invite("192.0.2.1", ""),
        invite("192.0.2.1", None),
        invite("192.0.2.1", "b"),
        invite("192.0.2.1", "a"),
    ]
    assert counting_events(outbound("192.0.2.1"), copies, frozenset())[0].x_tenant == "a"


EVENTS = st.builds(
    invite,
    source_ip=st.sampled_from(["192.0.2.1", "192.0.2.2", "203.0.113.1"]),
    x_tenant=st.sampled_from([None, "", "a", "b"]),
    cseq=st.integers(1, 3),
    observed_at=st.sampled_from([on(14), on(15), on(15, 0, 0, 1), on(16)]),
)


@given(st.lists(EVENTS, max_size=8), st.sampled_from([None, "192.0.2.1"]), st.randoms())
def test_the_order_in_which_events_come_changes_nothing(
    events: list[SipEvent], source: str | None, random: Random
) -> None:
    record = outbound(source, ended_at=on(15, 1))
    edge = frozenset({network.address("203.0.113.1")})
    shuffled = random.sample(events, len(events))
    assert counting_events(record, events, edge) == counting_events(record, shuffled, edge)


RECEIVED = on(15, 1)
WAIT = timedelta(minutes=5)


def in_time(after: timedelta, read_through: timedelta, source: str = "192.0.2.1") -> int | None:
    """How many events a record is decided from, of one that was received so long after it; None: it waits."""
    events = [ReceivedEvent(RECEIVED + after, invite(source, "big"))]
    found = events_in_time(
        outbound("192.0.2.1"), RECEIVED, WAIT, RECEIVED + read_through, events, frozenset()
    )
    return None if found is None else len(found)


def test_an_event_received_with_the_record_or_before_decides_at_once() -> None:
    assert in_time(timedelta(0), MICROSECOND) == 1
    assert in_time(-MINUTE, MICROSECOND) == 1
    assert in_time(MICROSECOND, MINUTE) is None


def test_a_later_event_decides_only_once_the_whole_wait_has_been_read_past() -> None:
    assert in_time(WAIT, WAIT) is None
    assert in_time(WAIT, WAIT + MICROSECOND) == 1
    assert in_time(WAIT + MICROSECOND, WAIT + MINUTE) == 0


def test_an_event_of_someone_elses_does_not_end_the_wait() -> None:
    assert in_time(-MINUTE, MICROSECOND, source="203.0.113.9") is None


def test_an_event_speaks_for_records_received_up_to_35_days_after_it() -> None:
    assert in_time(-context_age_max, WAIT + MINUTE) == 1
    assert in_time(-context_age_max - MICROSECOND, WAIT + MINUTE) == 0

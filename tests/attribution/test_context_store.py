"""SIP events come back by call, up to an instant of Kafka's clock."""

from __future__ import annotations

from sqlalchemy import Engine, text

from attribution.context_store import sip_events_for
from schemas import network
from tests.attribution.worlds import on


def test_the_events_of_a_call_come_back_as_they_were_up_to_an_instant(database: Engine) -> None:
    insert = text("""
        insert into sip_contexts (received_at, call_id, observed_at, source_ip, x_tenant, cseq, switch, position_id,
                                  kafka_offset)
        values (:received, :call, :observed, cast(:source as inet), :tenant, :cseq, 'sbc-1', 1, :offset)""")
    facts = {"observed": on(15), "source": "2001:db8::1", "tenant": "big", "cseq": 4_000_000_000}
    rows = [
        facts | {"received": on(15, 2), "call": "a", "offset": 2},
        facts | {"received": on(15, 1), "call": "a", "offset": 1, "source": "192.0.2.1", "tenant": None},
        facts | {"received": on(15, 3), "call": "a", "offset": 3},
        facts | {"received": on(14, 23), "call": "a", "offset": 0},
        facts | {"received": on(15, 1), "call": "b", "offset": 4},
    ]
    with database.begin() as connection:
        connection.execute(insert, rows)
        found = sip_events_for(connection, ["a", "a", "missing"], on(15, 1), on(15, 2))
    assert list(found) == ["a"]
    assert [each.received_at for each in found["a"]] == [on(15, 1), on(15, 2)]
    assert [(each.position_id, each.offset) for each in found["a"]] == [(1, 1), (1, 2)]
    first, second = (each.event for each in found["a"])
    assert (first.source_ip, first.x_tenant) == (network.address("192.0.2.1"), None)
    assert (second.source_ip, second.x_tenant, second.cseq) == (
        network.address("2001:db8::1"),
        "big",
        4_000_000_000,
    )
    assert (second.observed_at, second.switch, second.call_id) == (on(15), "sbc-1", "a")

"""The SIP events that were kept, by call (A10). They are written by the pipeline, in the batch's own transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from attribution.context import ReceivedEvent
from schemas.network import address
from schemas.records import SipEvent


def sip_events_for(
    connection: Connection, call_ids: Collection[str], received_from: datetime, received_through: datetime
) -> dict[str, Sequence[ReceivedEvent]]:
    """The SIP events of some calls that Kafka received between two instants, both included, in that order.

    Returns:
        Events by Call-ID; a call of which nothing was captured is absent.
    """
    found = connection.execute(
        text("""
            select received_at, call_id, observed_at, host(source_ip), x_tenant, cseq, switch, position_id,
                   kafka_offset
            from sip_contexts
            where call_id = any(:call_ids) and received_at between :received_from and :received_through
            order by received_at, position_id, kafka_offset"""),
        {
            "call_ids": sorted(set(call_ids)),
            "received_from": received_from,
            "received_through": received_through,
        },
    )
    events: dict[str, list[ReceivedEvent]] = defaultdict(list)
    for received_at, call_id, observed_at, source_ip, x_tenant, cseq, switch, *place in found:
        event = SipEvent(
            switch=switch,
            observed_at=observed_at,
            source_ip=address(source_ip),
            call_id=call_id,
            cseq=cseq,
            x_tenant=x_tenant,
        )
        events[call_id].append(ReceivedEvent(received_at, event, *place))
    return dict(events)

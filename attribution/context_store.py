"""The SIP events that were kept, by call (A10). They are written by the pipeline, in the batch's own transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from schemas.network import address
from schemas.records import SipEvent


class ReceivedEvent(NamedTuple):
    """A SIP event and when Kafka received it, which alone decides whether it came in time."""

    received_at: datetime
    event: SipEvent


def sip_events_for(
    connection: Connection, call_ids: Collection[str], received_through: datetime
) -> dict[str, Sequence[ReceivedEvent]]:
    """The SIP events of some calls that Kafka received up to an instant, in the order they were received.

    Returns:
        Events by Call-ID; a call of which nothing was captured is absent.
    """
    found = connection.execute(
        text("""
            select received_at, call_id, observed_at, host(source_ip), x_tenant, cseq, switch from sip_contexts
            where call_id = any(:call_ids) and received_at <= :received_through
            order by received_at, position_id, kafka_offset"""),
        {"call_ids": sorted(set(call_ids)), "received_through": received_through},
    )
    events: dict[str, list[ReceivedEvent]] = defaultdict(list)
    for received_at, call_id, observed_at, source_ip, x_tenant, cseq, switch in found:
        event = SipEvent.model_construct(  # it was checked when it was read from Kafka
            switch=switch,
            observed_at=observed_at,
            source_ip=address(source_ip),
            call_id=call_id,
            cseq=cseq,
            x_tenant=x_tenant,
        )
        events[call_id].append(ReceivedEvent(received_at, event))
    return dict(events)

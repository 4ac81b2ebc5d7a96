"""What a message turned out to be, before anyone asks whose it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import msgspec

from schemas.records import CallRecord, SipEvent

Direction = Literal["inbound", "outbound"]
OnNet = Literal["inbound", "outbound", "both"]
"""Which way a call between two customers is billed; both ways, it is two records."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes that could not be read: goes to quarantine as `reason`, with `detail` for a person."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that is well formed and not billable: a B leg, a REGISTER, a tombstone. Counted by `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Undirected:
    """A call whose direction only the directory can tell (attribution/direction.py).

    `record` is complete but for its direction, which says `outbound` and means nothing yet. `on_net`: which way a call
    between two customers is billed, None where nobody said. `way`: of the two records that a call is which may be billed
    both ways, the one that this is.
    """

    record: CallRecord
    on_net: OnNet | None
    way: Direction | None = None

    @property
    def started_at(self) -> datetime:
        """When the call started, which decides who had its numbers and addresses (A1)."""
        return self.record.started_at

    def both_ways(self) -> tuple[Undirected, Undirected]:
        """The two records that the call is: the outbound one under the switch's id, the inbound one under an id beside it."""
        inbound = msgspec.structs.replace(self.record, id=f"{self.record.id}/inbound")
        return replace(self, way="outbound"), replace(self, record=inbound, way="inbound")


Decoded = CallRecord | SipEvent | Undirected | Rejected | Ignored

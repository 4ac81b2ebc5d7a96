"""What a message turned out to be, before anyone asks whose it is."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import CallRecord, SipEvent


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes that could not be read: goes to quarantine as `reason`, with `detail` for a person."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that is well formed and not billable: a B leg, a REGISTER, a tombstone. Counted by `reason`."""

    reason: str


Decoded = CallRecord | SipEvent | Rejected | Ignored

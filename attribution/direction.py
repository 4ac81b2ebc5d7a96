"""Which way did it go, where the switch does not say.

A call from an address that somebody has is that customer's outbound call; a call to a number that somebody has is that
customer's inbound call. The directory answers for the instant the call started (A1), so the answer never changes.
A call between two customers is both; the input's `on_net` says which way it is billed, or that it is both ways, as two
records, and without it nobody guesses.
"""

from __future__ import annotations

from typing import Final

from attribution.attribute import Held
from attribution.directory import Directory
from schemas.decoded import Ignored, Rejected, Undirected
from schemas.formats.building import UNDIRECTED, directed
from schemas.numbers import dialled
from schemas.records import CallRecord

_NEITHER: Final = (
    "nobody had the source address, the calling number or the called number when the call started"
)
_BOTH: Final = (
    "both ends had an owner when the call started; the input's on_net says which way to bill such calls"
)


def direct(
    undirected: Undirected, directory: Directory, home_country: str
) -> CallRecord | Rejected | Ignored | Held:
    """The record with its direction, or why it has none.

    Args:
        undirected: a call whose direction the directory tells.
        directory: a snapshot; where it does not reach the instant, the record is held as `clock_ahead` (A7).
        home_country: dialling rules for numbers without `+` (A11).
    """
    record = undirected.record
    if record.started_at > directory.as_of:
        return Held("clock_ahead")
    outbound = _by_customer(record, directory, home_country)
    inbound = _owned(record.to_number, record, directory, home_country)
    if not outbound and not inbound:
        return Rejected(UNDIRECTED, _NEITHER)
    if undirected.way is not None:
        billed = outbound if undirected.way == "outbound" else inbound
        return directed(record, undirected.way) if billed else Ignored(f"not_{undirected.way}")
    if outbound != inbound:
        return directed(record, "outbound" if outbound else "inbound")
    if undirected.on_net is None or undirected.on_net == "both":
        return Rejected(UNDIRECTED, _BOTH)
    return directed(record, undirected.on_net)


def _by_customer(record: CallRecord, directory: Directory, home_country: str) -> bool:
    """Whether a customer made the call: by the source address; by the calling number only where there is none."""
    if record.source_ip is not None:
        return directory.ip_in_force(record.source_ip, record.started_at) is not None
    return _owned(record.from_number, record, directory, home_country)


def _owned(number: str | None, record: CallRecord, directory: Directory, home_country: str) -> bool:
    if number is None:
        return False
    return directory.number_in_force(dialled(number, home_country), record.started_at) is not None

"""From what a dialect read to a call record, with the direction that the input's rule tells.

A dialect hands over texts and instants; here they are checked once. Where only the directory can tell the direction
the record is `Undirected`, and attribution asks it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any

from schemas import network
from schemas.decoded import Decoded, Direction, Ignored, Rejected, Undirected
from schemas.formats.building import (
    UNDIRECTED,
    UnreadableError,
    called_number,
    calling_number,
    directed,
    kept,
    source_address,
    switch_name,
    tenant_header,
)
from schemas.formats.dialect import Dialect, DirectionPatterns, Format
from schemas.records import CallRecord, call_id_length_max, id_length_max

Told = Callable[[Any, network.Address | None], Direction | Rejected | None]


class Reporter:
    """Makes records of one input's calls: its settings, ready to be applied to each."""

    __slots__ = ("_fallback_switch", "_hops", "_on_net", "_told")

    def __init__(self, dialect: Dialect, settings: Format) -> None:
        self._fallback_switch = settings.switch
        self._hops = settings.hops
        self._on_net = settings.on_net
        self._told = _direction_rule(dialect, settings)

    def decoded(
        self,
        message: object,
        record_id: str,
        call_id: str | None,
        switch: str | None,
        from_number: str | None,
        to_number: str | None,
        source_ip: str | None,
        x_tenant: str | None,
        started_at: datetime,
        answered_at: datetime | None,
        ended_at: datetime | None,
        answered_seconds: Decimal | None = None,
    ) -> Decoded:
        """The record of a call, directed by the input's rule.

        Args:
            message: where that rule looks.
            record_id: what is the same for every resend, and for no other call of the switch.
            call_id: the SIP Call-ID.
            switch: as the record names it, blank or null where it does not; else the input's. So may be the next four.
            from_number: may be a URI, as may `to_number`.
            to_number: the number called.
            source_ip: where the call's packets came from.
            x_tenant: the tenant header's value.
            started_at: when the call began.
            answered_at: None where it never was.
            ended_at: None where that is not known.
            answered_seconds: answer to end, where the switch says it more exactly than by its times.

        Raises:
            UnreadableError: a field that decides is missing or cannot be kept.
        """
        source = source_address(source_ip)
        if self._hops and source is not None and _within(source, self._hops):
            return Ignored("inner_hop")
        named = switch_name(switch) or self._fallback_switch
        if named is None:
            raise UnreadableError("the record names no switch, and none is set for this input")
        if not (0 < len(record_id) <= id_length_max and record_id.isprintable()):
            kept("id", record_id, id_length_max)
        if call_id is not None and not (0 < len(call_id) <= call_id_length_max and call_id.isprintable()):
            kept("call_id", call_id, call_id_length_max)
        direction = self._told(message, source)
        called = called_number(to_number)
        record = CallRecord(
            record_id,
            named,
            "call",
            "inbound" if direction == "inbound" else "outbound",
            started_at,
            call_id,
            calling_number(from_number),
            called,
            source,
            tenant_header(x_tenant),
            answered_at,
            ended_at,
            answered_seconds,
        )
        if direction is None:
            return Undirected(record, self._on_net)
        if direction.__class__ is Rejected:
            return direction
        return record if called and source else directed(record, record.direction)


def _direction_rule(dialect: Dialect, settings: Format) -> Told:
    """How an input tells the direction, from the parsed message and the source; None where the directory tells it."""
    rule = settings.direction
    if isinstance(rule, DirectionPatterns):
        if rule.by == "source":
            by_source = lru_cache(maxsize=16_384)(partial(_by_source, rule))
            return lambda _message, source: by_source(source)
        by_text, tell = lru_cache(maxsize=16_384)(partial(_by_text, rule)), dialect.tells[rule.by]
        assert tell is not None
        return lambda message, _source: by_text(tell(message))
    if rule == "record":
        say = dialect.tells["record"]
        assert say is not None
        return lambda message, _source: _as_said(say(message))
    fixed: Direction | None = None if rule == "directory" else rule
    return lambda _message, _source: fixed


@lru_cache(maxsize=64)
def _as_said(told: str | None) -> Direction | Rejected:
    said = (told or "").lower()
    if said in {"inbound", "in"}:
        return "inbound"
    if said in {"outbound", "out"}:
        return "outbound"
    return Rejected(UNDIRECTED, "the record's own direction is missing, or neither inbound nor outbound")


def _by_text(rule: DirectionPatterns, told: str | None) -> Direction | Rejected:
    if told is None:
        return Rejected(UNDIRECTED, f"the record has no {rule.by}, by which its direction is told")
    fits: list[Direction] = []
    if any(fnmatchcase(told, pattern) for pattern in rule.inbound):
        fits.append("inbound")
    if any(fnmatchcase(told, pattern) for pattern in rule.outbound):
        fits.append("outbound")
    if len(fits) == 1:
        return fits[0]
    return Rejected(
        UNDIRECTED, f"{rule.by} {told[:64]!r} fits {'both directions' if fits else 'no direction'}'s patterns"
    )


def _by_source(rule: DirectionPatterns, source: network.Address | None) -> Direction | Rejected:
    if source is None:
        return Rejected(UNDIRECTED, "the record has no source address, by which its direction is told")
    fits: list[Direction] = []
    if _within(source, rule.inbound):
        fits.append("inbound")
    if _within(source, rule.outbound):
        fits.append("outbound")
    if len(fits) == 1:
        return fits[0]
    return Rejected(
        UNDIRECTED, f"source {source} is in {'both directions' if fits else 'no direction'}'s networks"
    )


@lru_cache(maxsize=16_384)
def _within(source: network.Address, networks: tuple[str, ...]) -> bool:
    address = network.parsed(source)
    return any(address in network.network(each) for each in networks)

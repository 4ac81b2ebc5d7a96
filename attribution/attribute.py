"""Whose call is it.

Inbound usage follows the called number; outbound usage follows the source IP, and on a shared IP the `X-Tenant`
header. The instant is `started_at`, and nothing else: the answer depends on the record, the history of the directory
and the SIP events, never on when it is asked (A1-A7, A10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple, TypeVar, cast

import msgspec
import numpy as np

from attribution.assets import to_instant, to_microseconds
from attribution.context import counting_events, sources
from attribution.directory import Directory, IpAssignment, NumberOwners
from schemas.binary import NEVER, Integers, number_of, numbers
from schemas.columns import CallColumns
from schemas.memo import Memo
from schemas.network import Address
from schemas.numbers import dialled_each
from schemas.records import CallRecord, SipEvent
from schemas.standings import Grounds, Standings

Rule = Literal["A2", "A3", "A4", "A5", "A6"]
Reason = Literal[
    "number_not_assigned",  # nobody owned the called number
    "number_without_tenant",  # the account had given the called number to no tenant
    "ip_not_assigned",  # nobody owned the source IP
    "no_source_ip",  # neither the record nor a SIP event names the source
    "ambiguous_context",  # the SIP events name several sources, the record none
    "no_tenant_header",  # shared IP, no header, no default tenant
    "unknown_tenant",  # shared IP, and the header names no tenant that the account had
]
_NO_SOURCE: Final = "no_source_ip"
Source = IpAssignment | Literal["no_source_ip"] | None
"""Whose the source address is: an assignment, nobody's (None), or unknown, where no address is known."""

header_shown_length_max: Final = 128


@dataclass(frozen=True, slots=True)
class InputRules:
    """How records of one input are read.

    `sip_context`: its outbound records may lack what their SIP events carry (A10). `home_country`: dialling rules for
    a called number without `+` (A11). `edge_addresses`: what our own network sends from (attribution/context.py).
    """

    sip_context: bool
    home_country: str
    edge_addresses: frozenset[Address]


class Attributed(msgspec.Struct, frozen=True, gc=False):
    """A tenant's usage. `header_ignored`: the other name that a dedicated IP's header gave (A4), made printable."""

    account_id: int
    tenant_id: int
    rule: Rule
    assignment_id: int
    header_ignored: str | None = None

    @property
    def reason(self) -> None:
        """Why no tenant: there is one."""


class Unattributed(msgspec.Struct, frozen=True, gc=False):
    """No tenant's usage: the account's own where `account_id` is known, else the unowned bucket's (A6).

    `near_match`: the Account ID that an unknown header probably meant.
    """

    reason: Reason
    account_id: int | None
    rule: Rule
    assignment_id: int | None = None
    near_match: str | None = None

    @property
    def tenant_id(self) -> None:
        """No tenant's."""

    @property
    def header_ignored(self) -> None:
        """No header was ignored: one that named nobody decided."""


@dataclass(frozen=True, slots=True)
class Held:
    """Not told yet: SIP events may still come (A10), or the directory is not known up to the instant (A7)."""

    reason: Literal["sip_context", "clock_ahead"]

    @property
    def account_id(self) -> None:
        """Whose it is will be known later."""


Attribution = Attributed | Unattributed | Held
_Told = TypeVar("_Told")
_BY_NUMBER: Final = Grounds("A2")
_WITHOUT_TENANT: Final = Grounds("A6", "number_without_tenant")
_NOT_ASSIGNED: Final = Grounds("A6", "number_not_assigned")
_NOBODYS: Final = Unattributed("ip_not_assigned", None, "A6")
_CLOCK_AHEAD: Final = Held("clock_ahead")
_IN_CONTEXT: Final = Held("sip_context")


class Attributions(NamedTuple):
    """What was decided of each record of a batch.

    `standings`: whose they are. By their place: `held`, what waits; `near_matches`, the Account ID that an unknown header
    probably meant.
    """

    standings: Standings
    held: Mapping[int, Held]
    near_matches: Mapping[int, str]

    def each(self) -> list[Attribution]:
        """What was decided of each record, one by one."""
        decided: list[Attribution] = list(map(_decision, *[each.tolist() for each in self.standings]))
        for place, near in self.near_matches.items():
            decided[place] = msgspec.structs.replace(cast("Unattributed", decided[place]), near_match=near)
        for place, held in self.held.items():
            decided[place] = held
        return decided


def _decision(account_id: int, tenant_id: int, assignment_id: int, grounds: Grounds) -> Attribution:
    """What stands in columns, `NEVER` for none."""
    if tenant_id != NEVER:
        return Attributed(
            account_id, tenant_id, cast("Rule", grounds.rule), assignment_id, grounds.header_ignored
        )
    return Unattributed(
        cast("Reason", grounds.reason),
        number_of(account_id),
        cast("Rule", grounds.rule),
        number_of(assignment_id),
    )


def attribute(record: CallRecord, directory: Directory, rules: InputRules) -> Attribution:
    """Decide the tenant of a record from the record alone, or hold it for its SIP events or its instant."""
    return attribute_each(CallColumns.of((record,)), directory, rules).each()[0]


def attribute_each(calls: CallColumns, directory: Directory, rules: InputRules) -> Attributions:
    """`attribute` for each record of a batch; the directory is asked about all of them at once."""
    inbound = np.array([each == "inbound" for each in calls.directions], dtype=np.bool_)
    called, sent = np.flatnonzero(inbound), np.flatnonzero(~inbound)
    standings = Standings.nobodys(calls.records)
    _by_called_number(standings, called, _called_owners(calls, called, directory, rules))
    decided, which = _by_sources(calls, sent.tolist(), directory, rules)
    _take(standings, sent, decided, which)
    held = _by_place(sent, which, [each if isinstance(each, Held) else None for each in decided])
    nears = [each.near_match if isinstance(each, Unattributed) else None for each in decided]
    near = _by_place(sent, which, nears)
    for place in np.flatnonzero(calls.started > to_microseconds(directory.as_of)).tolist():
        held[place] = _CLOCK_AHEAD
    return Attributions(standings, held, near)


def attribute_in_context(
    record: CallRecord, directory: Directory, rules: InputRules, events: Sequence[SipEvent]
) -> Attribution:
    """Decide for good the tenant of a record that was held, from the SIP events that were received in time.

    Args:
        record: what was held.
        directory: a snapshot; held again as `clock_ahead` where it does not reach the instant.
        rules: those of the record's input.
        events: received up to the record, or up to the end of the wait (A10); none, or of other calls, is fine.
    """
    if record.direction == "inbound":
        return attribute(record, directory, rules)
    if record.started_at > directory.as_of:
        return _CLOCK_AHEAD
    counting = counting_events(record, events, rules.edge_addresses)
    if len(sources(counting)) > 1:
        return Unattributed("ambiguous_context", None, "A3")
    address, name = record.source_ip, _name(record.x_tenant)
    if counting:
        address, name = address or counting[0].source_ip, name or _name(counting[0].x_tenant)
    source: Source = _NO_SOURCE if address is None else directory.ip_in_force(address, record.started_at)
    return _by_source(directory, source, name, to_microseconds(record.started_at))


def _called_owners(
    calls: CallColumns, places: Integers, directory: Directory, rules: InputRules
) -> NumberOwners:
    """Whose the called numbers of some calls are."""
    called = [calls.to_numbers[place] for place in places.tolist()]
    dialled = dialled_each(called, [rules.home_country] * len(called))
    return directory.numbers_in_force([each or "" for each in dialled], calls.started[places])


def _by_called_number(standings: Standings, places: Integers, owners: NumberOwners) -> None:
    """Inbound: the tenant of the called number, wherever the call was routed (A2)."""
    standings.account_ids[places] = owners.account_ids
    standings.tenant_ids[places] = owners.tenant_ids
    standings.assignment_ids[places] = owners.ids
    standings.grounds[places] = _BY_NUMBER
    standings.grounds[places[owners.tenant_ids == NEVER]] = _WITHOUT_TENANT
    standings.grounds[places[owners.ids == NEVER]] = _NOT_ASSIGNED


def _by_sources(
    calls: CallColumns, places: Sequence[int], directory: Directory, rules: InputRules
) -> tuple[list[Attribution], Integers]:
    """Outbound: by the source, and by the name in the header. What was decided, and for each call which of that."""
    decided: list[Attribution] = []
    which: list[int] = []
    unnamed: dict[tuple[int, bool], int] = {}  # without a header, the source decides at any instant
    instants = calls.started[places].tolist()
    for place, source, at in zip(places, _sources(calls, places, directory), instants, strict=True):
        header, call_id = calls.names[place], calls.call_ids[place]
        asked = id(source), call_id is None
        known = unnamed.get(asked) if header is None else None
        if known is None:
            known = len(decided)
            name = _name(header)
            if _needs_context(rules, call_id, source, name):
                decided.append(_IN_CONTEXT)
            else:
                decided.append(_by_source(directory, source, name, at))
            if header is None:
                unnamed[asked] = known
        which.append(known)
    return decided, numbers(which)


def _by_place(places: Integers, which: Integers, told: Sequence[_Told | None]) -> dict[int, _Told]:
    """What is told of calls, by their places; `which` says for each call what of `told` is its own, None being nothing."""
    something = np.array([each is not None for each in told], dtype=np.bool_)[which]
    chosen = zip(places[something].tolist(), which[something].tolist(), strict=True)
    return {place: cast("_Told", told[each]) for place, each in chosen}


def _take(standings: Standings, places: Integers, decided: Sequence[Attribution], which: Integers) -> None:
    """Lay what was decided of calls at some places into columns; what is held is nobody's there."""
    told = [_NOBODYS if isinstance(each, Held) else each for each in decided]
    grounds = _GROUNDS.each((each.rule, each.reason, each.header_ignored) for each in told)
    standings.account_ids[places] = numbers([each.account_id for each in told])[which]
    standings.tenant_ids[places] = numbers([each.tenant_id for each in told])[which]
    standings.assignment_ids[places] = numbers([each.assignment_id for each in told])[which]
    standings.grounds[places] = np.array(grounds, dtype=np.object_)[which]


def _sources(calls: CallColumns, places: Sequence[int], directory: Directory) -> Sequence[Source]:
    """Whose the addresses are that some calls name."""
    addresses, instants = [calls.sources[place] for place in places], calls.started[places]
    if None not in addresses:
        return directory.ips_in_force(cast("Sequence[Address]", addresses), instants)
    named = [each is not None for each in addresses]
    found = iter(directory.ips_in_force([each for each in addresses if each is not None], instants[named]))
    return [next(found) if each else _NO_SOURCE for each in named]


def _by_source(directory: Directory, source: Source, name: str | None, at: int) -> Attribution:
    """Outbound: the tenant of the source IP, or on a shared IP the one that the header names (A3)."""
    if source is None:
        return Unattributed("ip_not_assigned", None, "A6")
    if isinstance(source, str):
        return Unattributed(source, None, "A6")
    if source.tenant_id is not None:
        return _by_dedicated_ip(source, source.tenant_id, directory, name)
    if name is None:
        return _by_default_tenant(source)
    return _by_name(source, directory, name, to_instant(at))


def _by_dedicated_ip(
    assignment: IpAssignment, tenant_id: int, directory: Directory, name: str | None
) -> Attribution:
    """A dedicated IP is its tenant's; a header that names someone else moves nothing, and is shown (A4)."""
    agrees = name is None or name == directory.tenant(tenant_id).code
    return Attributed(
        assignment.account_id, tenant_id, "A4", assignment.id, None if agrees else _shown(name or "")
    )


def _by_name(assignment: IpAssignment, directory: Directory, name: str, at: datetime) -> Attribution:
    """On a shared IP the header decides, exactly, among the tenants of the IP's own account (A5)."""
    tenant = directory.tenant_named(assignment.account_id, name, at)
    if tenant is not None:
        return Attributed(assignment.account_id, tenant.id, "A5", assignment.id)
    near = directory.near_match(assignment.account_id, name, at)
    return Unattributed(
        "unknown_tenant", assignment.account_id, "A5", assignment.id, near_match=near.code if near else None
    )


def _by_default_tenant(assignment: IpAssignment) -> Attribution:
    """On a shared IP, without a header: the default tenant, where the IP has one (A5, A6)."""
    if assignment.default_tenant_id is None:
        return Unattributed("no_tenant_header", assignment.account_id, "A5", assignment.id)
    return Attributed(assignment.account_id, assignment.default_tenant_id, "A5", assignment.id)


def _needs_context(rules: InputRules, call_id: str | None, source: Source, name: str | None) -> bool:
    """Whether SIP events could tell what the record does not: its source, or the name on a shared IP (A10)."""
    if not rules.sip_context or call_id is None:
        return False
    if source is None:
        return False
    return isinstance(source, str) or (name is None and source.shared)


def _name(header: str | None) -> str | None:
    """What a header says once trimmed; an empty one says nothing (A5)."""
    return (header or "").strip() or None


def _shown(name: str) -> str:
    """A header's value as it may be shown to a person: of limited length, no control characters."""
    return "".join([each if each.isprintable() else "\ufffd" for each in name[:header_shown_length_max]])


def _ground(told: tuple[Rule, Reason | None, str | None]) -> Grounds:
    return Grounds(*told)


_GROUNDS: Final = Memo(_ground, 4096)

"""Whose call is it.

Inbound usage follows the called number; outbound usage follows the source IP, and on a shared IP the `X-Tenant`
header. The instant is `started_at`, and nothing else: the answer depends on the record, the history of the directory
and the SIP events, never on when it is asked (A1-A7, A10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from attribution.context import counting_events, sources
from attribution.directory import Directory, IpAssignment, NumberOwner
from schemas.network import Address
from schemas.numbers import dialled
from schemas.records import CallRecord, SipEvent

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


Attribution = Attributed | Unattributed | Held


def attribute(record: CallRecord, directory: Directory, rules: InputRules) -> Attribution:
    """Decide the tenant of a record from the record alone, or hold it for its SIP events or its instant."""
    return attribute_each((record,), directory, rules)[0]


def attribute_each(
    records: Sequence[CallRecord], directory: Directory, rules: InputRules
) -> list[Attribution]:
    """`attribute` for each record of a batch; the directory is asked about all of them at once."""
    called = iter(_called_owners([each for each in records if each.direction == "inbound"], directory, rules))
    sources = iter(_sources([each for each in records if each.direction == "outbound"], directory))
    return [
        _by_called_number(each, next(called), directory)
        if each.direction == "inbound"
        else _by_record_alone(each, next(sources), directory, rules)
        for each in records
    ]


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
        return Held("clock_ahead")
    counting = counting_events(record, events, rules.edge_addresses)
    if len(sources(counting)) > 1:
        return Unattributed("ambiguous_context", None, "A3")
    address, name = record.source_ip, _name(record.x_tenant)
    if counting:
        address, name = address or counting[0].source_ip, name or _name(counting[0].x_tenant)
    source: Source = _NO_SOURCE if address is None else directory.ip_in_force(address, record.started_at)
    return _by_source(record, directory, source, name)


def _called_owners(
    records: Sequence[CallRecord], directory: Directory, rules: InputRules
) -> list[NumberOwner | None]:
    """Whose the called numbers are."""
    numbers = [dialled(each.to_number or "", rules.home_country) for each in records]
    return directory.numbers_in_force(numbers, [each.started_at for each in records])


def _by_called_number(record: CallRecord, owner: NumberOwner | None, directory: Directory) -> Attribution:
    """Inbound: the tenant of the called number, wherever the call was routed (A2)."""
    if record.started_at > directory.as_of:
        return Held("clock_ahead")
    if owner is None:
        return Unattributed("number_not_assigned", None, "A6")
    if owner.tenant_id is None:
        return Unattributed("number_without_tenant", owner.account_id, "A6", owner.id)
    return Attributed(owner.account_id, owner.tenant_id, "A2", owner.id)


def _sources(records: Sequence[CallRecord], directory: Directory) -> list[Source]:
    """Whose the addresses are that the records name."""
    named = [each for each in records if each.source_ip is not None]
    found = iter(
        directory.ips_in_force([each.source_ip or "" for each in named], [each.started_at for each in named])
    )
    return [_NO_SOURCE if each.source_ip is None else next(found) for each in records]


def _by_record_alone(
    record: CallRecord, source: Source, directory: Directory, rules: InputRules
) -> Attribution:
    """Outbound: by what the record itself says, unless SIP events could say more (A3, A10)."""
    if record.started_at > directory.as_of:
        return Held("clock_ahead")
    name = _name(record.x_tenant)
    if _needs_context(record, rules, source, name):
        return Held("sip_context")
    return _by_source(record, directory, source, name)


def _by_source(record: CallRecord, directory: Directory, source: Source, name: str | None) -> Attribution:
    """Outbound: the tenant of the source IP, or on a shared IP the one that the header names (A3)."""
    if source is None:
        return Unattributed("ip_not_assigned", None, "A6")
    if isinstance(source, str):
        return Unattributed(source, None, "A6")
    if source.tenant_id is not None:
        return _by_dedicated_ip(source, source.tenant_id, directory, name)
    if name is None:
        return _by_default_tenant(source)
    return _by_name(record, source, directory, name)


def _by_dedicated_ip(
    assignment: IpAssignment, tenant_id: int, directory: Directory, name: str | None
) -> Attribution:
    """A dedicated IP is its tenant's; a header that names someone else moves nothing, and is shown (A4)."""
    agrees = name is None or name == directory.tenant(tenant_id).code
    return Attributed(
        assignment.account_id, tenant_id, "A4", assignment.id, None if agrees else _shown(name or "")
    )


def _by_name(record: CallRecord, assignment: IpAssignment, directory: Directory, name: str) -> Attribution:
    """On a shared IP the header decides, exactly, among the tenants of the IP's own account (A5)."""
    tenant = directory.tenant_named(assignment.account_id, name, record.started_at)
    if tenant is not None:
        return Attributed(assignment.account_id, tenant.id, "A5", assignment.id)
    near = directory.near_match(assignment.account_id, name, record.started_at)
    return Unattributed(
        "unknown_tenant", assignment.account_id, "A5", assignment.id, near_match=near.code if near else None
    )


def _by_default_tenant(assignment: IpAssignment) -> Attribution:
    """On a shared IP, without a header: the default tenant, where the IP has one (A5, A6)."""
    if assignment.default_tenant_id is None:
        return Unattributed("no_tenant_header", assignment.account_id, "A5", assignment.id)
    return Attributed(assignment.account_id, assignment.default_tenant_id, "A5", assignment.id)


def _needs_context(record: CallRecord, rules: InputRules, source: Source, name: str | None) -> bool:
    """Whether SIP events could tell what the record does not: its source, or the name on a shared IP (A10)."""
    if not rules.sip_context or record.call_id is None:
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

"""Whose it is (A1-A11): every list is scanned from end to end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

import phonenumbers

from tests.auditor.reading import read_address
from tests.auditor.words import Address, Carrier, Input, Invite, Ip, Owner, Verdict, in_force


def owner_of(
    carrier: Carrier,
    source: Input,
    record: dict[str, Any],
    received_at: datetime,
    invites: Sequence[Invite],
    as_of: datetime,
) -> Owner | Verdict:
    at = record["started_at"]
    if record["direction"] == "inbound":
        return _owner_of_number(carrier, dialled(record["to_number"], source.home_country), at)
    packet_source = record.get("source_ip")
    name = (record.get("x_tenant") or "").strip() or None
    if not waits_for_sip(carrier, source, record):
        return _owner_of_source(carrier, packet_source, name, at)
    counting = _counting(source, record, invites, received_at, received_at)
    if not counting:
        if as_of <= received_at + carrier.sip_wait:
            return Verdict("held", "sip_context")
        counting = _counting(source, record, invites, received_at, received_at + carrier.sip_wait)
    if packet_source is None and len({invite.source_ip for invite in counting}) > 1:
        return Owner(None, None, "ambiguous_context")
    if counting:
        packet_source = packet_source or counting[0].source_ip
        name = name or counting[0].x_tenant
    return _owner_of_source(carrier, packet_source, name, at)


def _owner_of_number(carrier: Carrier, number: str, at: datetime) -> Owner:
    for each in carrier.numbers:
        if each.number == number and in_force(each, at):
            return Owner(each.account, each.tenant, "" if each.tenant else "number_without_tenant")
    return Owner(None, None, "number_not_assigned")


def _owner_of_source(carrier: Carrier, source: Address | None, name: str | None, at: datetime) -> Owner:
    if source is None:
        return Owner(None, None, "no_source_ip")
    ip = _ip_of(carrier, source, at)
    if ip is None:
        return Owner(None, None, "ip_not_assigned")
    if ip.tenant is not None:
        return Owner(ip.account, ip.tenant, "", name if name not in {None, ip.tenant} else None)
    if name is None:
        return Owner(ip.account, ip.default_tenant, "" if ip.default_tenant else "no_tenant_header")
    for each in carrier.tenants:
        if (each.account, each.code) == (ip.account, name) and in_force(each, at):
            return Owner(ip.account, name)
    return Owner(ip.account, None, "unknown_tenant")


def _ip_of(carrier: Carrier, source: Address, at: datetime) -> Ip | None:
    """The longest prefix in force (A3)."""
    holding = [each for each in carrier.ips if source in ip_network(each.network) and in_force(each, at)]
    return max(holding, key=lambda each: ip_network(each.network).prefixlen, default=None)


def waits_for_sip(carrier: Carrier, source: Input, record: dict[str, Any]) -> bool:
    """Whether SIP events have a say (A10): no source IP, or a shared one without a header."""
    if record["direction"] == "inbound" or not source.sip_context or "call_id" not in record:
        return False
    if record.get("source_ip") is None:
        return True
    ip = _ip_of(carrier, record["source_ip"], record["started_at"])
    return not (record.get("x_tenant") or "").strip() and ip is not None and ip.tenant is None


def _counting(
    source: Input,
    record: dict[str, Any],
    invites: Sequence[Invite],
    received_at: datetime,
    received_by: datetime,
) -> list[Invite]:
    """The INVITEs that count, the deciding one first (A10); one from more than 35 days before the record does not."""
    edges = {read_address(each) for each in source.edge_addresses}
    at = record["started_at"]
    last = record.get("ended_at") or at + timedelta(seconds=60)
    counting = [
        invite
        for invite in invites
        if invite.call_id == record["call_id"]
        and received_at - timedelta(days=35) <= invite.received_at <= received_by
        and at - timedelta(seconds=60) <= invite.observed_at <= last
        and (
            invite.source_ip not in edges
            if record.get("source_ip") is None
            else invite.source_ip == record["source_ip"]
        )
    ]
    return sorted(counting, key=lambda invite: (-invite.cseq, invite.observed_at))


def dialled(text: str, home: str) -> str:
    compact = re.sub(r"[\s().\-/]", "", text)
    if re.fullmatch(r"\+[1-9]\d{6,14}|[\d*#]{1,6}", compact):
        return compact
    try:
        parsed = phonenumbers.parse(compact, home)
    except phonenumbers.NumberParseException:
        return text.strip()
    if not phonenumbers.is_possible_number(parsed):
        return text.strip()
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))

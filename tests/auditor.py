"""What must become of every message: the rules A1-A11 and L1-L9 told a second time, slowly and obviously.

Nothing here is shared with the product. Histories are plain lists that are scanned from end to end, so that a
mistake in an index, a cache, a batch or a transaction shows as a difference. Tests give the same carrier and the
same happenings to the product and to `audit`, and compare outcomes and totals.

How to use it:
    carrier = Carrier(accounts=[...], tenants=[...], numbers=[...], ips=[...], tariffs=[...])
    report = audit(carrier, [Received("calls.raw", at, {...}), Sealed("2026-10"), Received(...)])
    report.outcomes()   # {("posted", ""): 17, ("quarantined", "unrated"): 1, ...}
    report.totals()     # sums by period, month of usage, account, tenant and class
    report.verdicts     # one per Received, in the order given

Happenings are in the order in which the product commits them: each partition's messages in their own order, and
records of one identity in one partition, as switches key them. `Sealed` stands where a month's seal fell.
A record that must not be posted is quarantined for that, whatever else stands under its identity. One that waits for
SIP events stands from its arrival, even if it ends in quarantine: its resends are taken for duplicates, as they are if
they come while it waits.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import phonenumbers

US_REGIONS: Final = frozenset({"US", "PR", "VI", "GU", "AS", "MP"})  # L9
FOR_GOOD: Final = datetime(9999, 1, 1, tzinfo=UTC)
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Account:
    code: str
    currency: str = "USD"
    home_country: str = "US"
    domestic_regions: frozenset[str] = US_REGIONS


@dataclass(frozen=True)
class Tenant:
    account: str
    code: str
    made_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Number:
    """A number (E.164) is an account's in [made_at, ended_at), and a tenant's unless `tenant` is None."""

    number: str
    account: str
    tenant: str | None
    made_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Ip:
    """A network (CIDR) is dedicated to `tenant`, or shared with an optional `default_tenant`."""

    network: str
    account: str
    tenant: str | None
    default_tenant: str | None
    made_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True)
class Tariff:
    account: str
    usage_class: str
    cost: Decimal
    unit: str = "minute"
    prefix: str = ""
    effective_at: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    first_seconds: int = 1
    next_seconds: int = 1


@dataclass(frozen=True)
class Input:
    topic: str
    kind: str  # "calls" or "sip"
    sip_context: bool = True
    edge_addresses: frozenset[str] = frozenset()
    home_country: str = "US"


@dataclass(frozen=True)
class Carrier:
    """All that was true, with its history. `oldest_month` is the ledger's first (`2026-09`)."""

    accounts: Sequence[Account] = ()
    tenants: Sequence[Tenant] = ()
    numbers: Sequence[Number] = ()
    ips: Sequence[Ip] = ()
    tariffs: Sequence[Tariff] = ()
    inputs: Sequence[Input] = (Input("calls.raw", "calls"), Input("sip.raw", "sip"))
    oldest_month: str = "2026-01"
    sip_wait: timedelta = timedelta(minutes=5)


@dataclass(frozen=True)
class Received:
    """One Kafka record; `value` is the message as bytes, or what its JSON says; None is a tombstone."""

    topic: str
    received_at: datetime
    value: bytes | Mapping[str, Any] | None


@dataclass(frozen=True)
class Sealed:
    """From here on the month (`2026-10`) takes no rows."""

    month: str


@dataclass(frozen=True)
class Verdict:
    """What one message became; the fields after `reason` are set where it was posted.

    `attribution` says why a posted record has no tenant, or is empty.
    """

    outcome: str
    reason: str = ""
    period: str = ""
    usage_month: str = ""
    account: str | None = None
    tenant: str | None = None
    attribution: str = ""
    header_ignored: str | None = None
    usage_class: str = ""
    answered: bool = False
    answered_seconds: Decimal = Decimal(0)
    billed_seconds: int = 0
    cost: Decimal = Decimal(0)
    currency: str = ""


@dataclass(frozen=True)
class Group:
    period: str
    usage_month: str
    account: str | None
    tenant: str | None
    usage_class: str
    currency: str


@dataclass(frozen=True)
class Sums:
    attempts: int
    calls: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


@dataclass
class Report:
    verdicts: list[Verdict] = field(default_factory=list)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """How many messages came to each outcome and reason (DESIGN 8)."""
        return dict(Counter((each.outcome, each.reason) for each in self.verdicts))

    def totals(self) -> dict[Group, Sums]:
        """Sums of what was posted, by group."""
        groups: dict[Group, list[Verdict]] = defaultdict(list)
        for each in self.verdicts:
            if each.outcome == "posted":
                owner = (each.account, each.tenant, each.usage_class, each.currency)
                groups[Group(each.period, each.usage_month, *owner)].append(each)
        return {group: _sums(members) for group, members in groups.items()}


class _UnreadableError(Exception):
    pass


@dataclass(frozen=True)
class _Invite:
    received_at: datetime
    observed_at: datetime
    source_ip: Address
    call_id: str
    cseq: int
    x_tenant: str | None


@dataclass(frozen=True)
class _Owner:
    account: str | None
    tenant: str | None
    attribution: str = ""
    header_ignored: str | None = None


def audit(carrier: Carrier, happenings: Iterable[Received | Sealed], as_of: datetime = FOR_GOOD) -> Report:
    """Judge every message.

    Args:
        carrier: whose, since when, for how much.
        happenings: messages in the order they are committed, and seals of months.
        as_of: how far the directory and every SIP partition have been read; what cannot be decided by then is held.
    """
    happenings = list(happenings)
    invites = [
        invite for each in happenings if isinstance(each, Received) for invite in _invites(carrier, each)
    ]
    report = Report()
    sealed: set[str] = set()
    standing: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for each in happenings:
        if isinstance(each, Sealed):
            sealed.add(each.month)
        else:
            report.verdicts.append(_verdict(carrier, each, invites, standing, sealed, as_of))
    return report


def peak_channels(intervals: Iterable[tuple[datetime, datetime]], month: str) -> int:
    """The most calls at one instant of a month (C3), from the (answered_at, ended_at) of one owner's calls."""
    begins, ends = _month_edges(month)
    clipped = [(max(a, begins), min(e, ends)) for a, e in intervals if a < e and a < ends and e > begins]
    return max((sum(1 for a, e in clipped if a <= start < e) for start, _ in clipped), default=0)


def numbers_held(carrier: Carrier, month: str, account: str, tenant: str | None) -> Counter[str]:
    """How many numbers an owner held at a month's last instant, by class (C3)."""
    last = _month_edges(month)[1] - timedelta(microseconds=1)
    held = (each for each in carrier.numbers if _in_force(each, last))
    return Counter(
        "number_toll_free" if _is_toll_free(each.number) else "number_local"
        for each in held
        if (each.account, each.tenant) == (account, tenant)
    )


# --- one message ---------------------------------------------------------------------------------------------------


def _verdict(
    carrier: Carrier,
    message: Received,
    invites: Sequence[_Invite],
    standing: dict[tuple[str, str], list[dict[str, Any]]],
    sealed: set[str],
    as_of: datetime,
) -> Verdict:
    source = next(each for each in carrier.inputs if each.topic == message.topic)
    if message.value is None:
        return Verdict("ignored", "tombstone")
    try:
        if source.kind == "sip":
            return _sip_verdict(message)
        record = _call(message.value)
    except _UnreadableError:
        return Verdict("quarantined", "unreadable")
    waits = _waits_for_sip(carrier, source, record) and record["started_at"] <= as_of
    verdict = _alone(carrier, source, record, message, invites, sealed, as_of)
    if verdict.outcome in {"posted", "held"} or waits:
        first = _standing(record, standing, waiting_only=waits and verdict.outcome == "quarantined")
        if first is not None:
            same = _content(first) == _content(record)
            return Verdict("duplicate") if same else Verdict("quarantined", "conflicting_duplicate")
        standing[record["switch"], record["id"]].append({**record, "waited": waits})
    return verdict


def _alone(
    carrier: Carrier,
    source: Input,
    record: dict[str, Any],
    message: Received,
    invites: Sequence[_Invite],
    sealed: set[str],
    as_of: datetime,
) -> Verdict:
    """What a record becomes if no other stands under its identity."""
    if record["started_at"] > as_of:
        return Verdict("held", "clock_ahead")
    owner = _owner(carrier, source, record, message.received_at, invites, as_of)
    if isinstance(owner, Verdict):
        return owner
    return _posted(carrier, source, record, message, owner, sealed)


def _standing(
    record: dict[str, Any], standing: dict[tuple[str, str], list[dict[str, Any]]], *, waiting_only: bool
) -> dict[str, Any] | None:
    """The record that stands under the same identity: same UTC date, or both near the midnight between (L1)."""
    at = record["started_at"]
    for other in standing[record["switch"], record["id"]]:
        if waiting_only and not (other["waited"] and other["started_at"].date() == at.date()):
            continue
        if other["started_at"].date() == at.date() or _near_one_midnight(other["started_at"], at):
            return other
    return None


def _near_one_midnight(one: datetime, other: datetime) -> bool:
    margin = timedelta(minutes=5)

    def midnights(at: datetime) -> set[date]:
        days = {at.date(), at.date() + timedelta(days=1)}
        return {day for day in days if abs(datetime(day.year, day.month, day.day, tzinfo=UTC) - at) <= margin}

    return bool(midnights(one) & midnights(other))


def _content(record: dict[str, Any]) -> tuple[Any, ...]:
    """The fields that affect attribution, class, quantity or cost (L2)."""
    names = (
        "service",
        "direction",
        "call_id",
        "to_number",
        "source_ip",
        "x_tenant",
        "started_at",
        "answered_at",
    )
    return tuple(
        record.get(name)
        for name in (*names, "ended_at", "answered_seconds", "billed_seconds", "cost", "currency")
    )


# --- reading (DESIGN 5) --------------------------------------------------------------------------------------------


def _json(value: bytes | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    try:
        read = json.loads(value)
    except (ValueError, UnicodeDecodeError):
        raise _UnreadableError from None
    if not isinstance(read, dict):
        raise _UnreadableError
    return read


def _call(value: bytes | Mapping[str, Any]) -> dict[str, Any]:
    """A call record with its texts turned into what they mean."""
    said = {name: each for name, each in _json(value).items() if each is not None}
    for name in ("id", "switch", "service", "direction", "started_at"):
        if not isinstance(said.get(name), str) or not said[name]:
            raise _UnreadableError
    if said["direction"] not in {"inbound", "outbound"}:
        raise _UnreadableError
    needs = ("to_number",) if said["direction"] == "inbound" else ("source_ip", "call_id")
    if not any(name in said for name in needs):
        raise _UnreadableError
    record = dict(said)
    for name in {"started_at", "answered_at", "ended_at"} & said.keys():
        record[name] = _instant(said[name])
    if "source_ip" in said:
        record["source_ip"] = _address(said["source_ip"])
    if "answered_seconds" in said:
        record["answered_seconds"] = Decimal(str(said["answered_seconds"]))
    if "cost" in said:
        record["cost"] = _money(said["cost"])
    if not isinstance(said.get("billed_seconds", 0), int):
        raise _UnreadableError
    return record


def _money(said: object) -> Decimal:
    """Money is a string of plain digits; a JSON number is refused."""
    if not isinstance(said, str) or not re.fullmatch(r"-?\d+(\.\d+)?", said):
        raise _UnreadableError
    return Decimal(said)


def _sip_verdict(message: Received) -> Verdict:
    assert message.value is not None
    said = _sip(message.value)
    if said["method"] is None:
        return Verdict("ignored", "sip_response")
    if said["method"].upper() != "INVITE":
        return Verdict("ignored", "sip_not_invite")
    return Verdict("ignored", "sip_not_initial") if said["to_tag"] else Verdict("context")


def _invites(carrier: Carrier, message: Received) -> list[_Invite]:
    """The initial INVITE that a message is, as a list of one; empty for anything else."""
    source = next(each for each in carrier.inputs if each.topic == message.topic)
    if source.kind != "sip" or message.value is None:
        return []
    try:
        if _sip_verdict(message).outcome != "context":
            return []
        said = _sip(message.value)
    except _UnreadableError:
        return []
    parts = (said["observed_at"], said["source_ip"], said["call_id"], said["cseq"], said["x_tenant"])
    return [_Invite(message.received_at, *parts)]


def _sip(value: bytes | Mapping[str, Any]) -> dict[str, Any]:
    said = _json(value)
    if not all(isinstance(said.get(name), str) for name in ("switch", "observed_at", "source_ip")):
        raise _UnreadableError
    seen = {"observed_at": _instant(said["observed_at"]), "source_ip": _address(said["source_ip"])}
    if said.get("raw") is not None:
        return seen | _sip_text(said["raw"])
    if not said.get("call_id") or not said.get("method"):
        raise _UnreadableError
    number = re.match(r"\s*(\d+)", str(said.get("cseq", 0)))
    if number is None:
        raise _UnreadableError
    names = [
        one
        for name, given in (said.get("headers") or {}).items()
        if name.strip().lower() == "x-tenant"
        for one in ([given] if isinstance(given, str) else given)
    ]
    return seen | {
        "method": said["method"].strip(),
        "call_id": said["call_id"],
        "cseq": int(number[1]),
        "to_tag": said.get("to_tag"),
        "x_tenant": _one_name(names),
    }


def _sip_text(raw: str) -> dict[str, Any]:
    head = re.split(r"\r?\n\r?\n", raw.lstrip("\r\n"))[0]
    start, *lines = re.sub(r"\r?\n[ \t]+", " ", head).splitlines()
    headers: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        name, colon, given = line.partition(":")
        if colon:
            short = {"i": "call-id", "t": "to", "f": "from"}
            headers[short.get(name.strip().lower(), name.strip().lower())].append(given.strip())
    request = re.fullmatch(r"(\S+) \S+ SIP/2\.0\s*", start)
    number = re.match(r"(\d+)\s", (headers["cseq"] or [""])[0])
    if (request is None and not start.startswith("SIP/2.0 ")) or number is None or not headers["call-id"]:
        raise _UnreadableError
    tag = re.search(r";\s*tag\s*=\s*([^\s;]+)", (headers["to"] or [""])[0].rpartition(">")[2])
    return {
        "method": request[1] if request else None,
        "call_id": headers["call-id"][0],
        "cseq": int(number[1]),
        "to_tag": tag[1] if tag else None,
        "x_tenant": _one_name(headers["x-tenant"]),
    }


def _one_name(values: Iterable[str]) -> str | None:
    names = [value.strip() for value in values if value.strip()]
    return ", ".join(dict.fromkeys(names)) or None


def _instant(text: object) -> datetime:
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        raise _UnreadableError from None
    if instant.tzinfo is None:
        raise _UnreadableError
    return instant.astimezone(UTC)


def _address(text: object) -> Address:
    try:
        address = ip_address(str(text).strip("[] "))
    except ValueError:
        raise _UnreadableError from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


# --- whose (A1-A11) ------------------------------------------------------------------------------------------------


def _owner(
    carrier: Carrier,
    source: Input,
    record: dict[str, Any],
    received_at: datetime,
    invites: Sequence[_Invite],
    as_of: datetime,
) -> _Owner | Verdict:
    at = record["started_at"]
    if record["direction"] == "inbound":
        return _owner_of_number(carrier, _dialled(record["to_number"], source.home_country), at)
    packet_source = record.get("source_ip")
    name = (record.get("x_tenant") or "").strip() or None
    if not _waits_for_sip(carrier, source, record):
        return _owner_of_source(carrier, packet_source, name, at)
    counting = _counting(source, record, invites, received_at)
    if not counting:
        if as_of <= received_at + carrier.sip_wait:
            return Verdict("held", "sip_context")
        counting = _counting(source, record, invites, received_at + carrier.sip_wait)
    if packet_source is None and len({invite.source_ip for invite in counting}) > 1:
        return _Owner(None, None, "ambiguous_context")
    if counting:
        packet_source = packet_source or counting[0].source_ip
        name = name or counting[0].x_tenant
    return _owner_of_source(carrier, packet_source, name, at)


def _owner_of_number(carrier: Carrier, number: str, at: datetime) -> _Owner:
    for each in carrier.numbers:
        if each.number == number and _in_force(each, at):
            return _Owner(each.account, each.tenant, "" if each.tenant else "number_without_tenant")
    return _Owner(None, None, "number_not_assigned")


def _owner_of_source(carrier: Carrier, source: Address | None, name: str | None, at: datetime) -> _Owner:
    if source is None:
        return _Owner(None, None, "no_source_ip")
    ip = _ip_of(carrier, source, at)
    if ip is None:
        return _Owner(None, None, "ip_not_assigned")
    if ip.tenant is not None:
        return _Owner(ip.account, ip.tenant, "", name if name not in {None, ip.tenant} else None)
    if name is None:
        return _Owner(ip.account, ip.default_tenant, "" if ip.default_tenant else "no_tenant_header")
    for each in carrier.tenants:
        if (each.account, each.code) == (ip.account, name) and _in_force(each, at):
            return _Owner(ip.account, name)
    return _Owner(ip.account, None, "unknown_tenant")


def _ip_of(carrier: Carrier, source: Address, at: datetime) -> Ip | None:
    """The longest prefix in force (A3)."""
    holding = [each for each in carrier.ips if source in ip_network(each.network) and _in_force(each, at)]
    return max(holding, key=lambda each: ip_network(each.network).prefixlen, default=None)


def _waits_for_sip(carrier: Carrier, source: Input, record: dict[str, Any]) -> bool:
    """Whether SIP events have a say (A10): no source IP, or a shared one without a header."""
    if record["direction"] == "inbound" or not source.sip_context or "call_id" not in record:
        return False
    if record.get("source_ip") is None:
        return True
    ip = _ip_of(carrier, record["source_ip"], record["started_at"])
    return not (record.get("x_tenant") or "").strip() and ip is not None and ip.tenant is None


def _counting(
    source: Input, record: dict[str, Any], invites: Sequence[_Invite], received_by: datetime
) -> list[_Invite]:
    """The INVITEs that count, the deciding one first (A10)."""
    edges = {_address(each) for each in source.edge_addresses}
    at = record["started_at"]
    last = record.get("ended_at") or at + timedelta(seconds=60)
    counting = [
        invite
        for invite in invites
        if invite.call_id == record["call_id"]
        and invite.received_at <= received_by
        and at - timedelta(seconds=60) <= invite.observed_at <= last
        and (
            invite.source_ip not in edges
            if record.get("source_ip") is None
            else invite.source_ip == record["source_ip"]
        )
    ]
    return sorted(counting, key=lambda invite: (-invite.cseq, invite.observed_at))


def _in_force(each: Tenant | Number | Ip, at: datetime) -> bool:
    return each.made_at <= at and (each.ended_at is None or at < each.ended_at)


def _dialled(text: str, home: str) -> str:
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


# --- how much (L5-L9) ----------------------------------------------------------------------------------------------


def _posted(
    carrier: Carrier,
    source: Input,
    record: dict[str, Any],
    message: Received,
    owner: _Owner,
    sealed: set[str],
) -> Verdict:
    unowned = Account(
        "",
        "",
        source.home_country,
        US_REGIONS if source.home_country == "US" else frozenset({source.home_country}),
    )
    account = next((each for each in carrier.accounts if each.code == owner.account), unowned)
    at = record["started_at"]
    if _implausible(record, account):
        return Verdict("quarantined", "implausible")
    if message.received_at - at > timedelta(days=400) or _month(at) < carrier.oldest_month:
        return Verdict("quarantined", "too_old")
    seconds = _answered_seconds(record)
    usage_class = _usage_class(record, seconds, account)
    tariff = _tariff(carrier, owner.account, usage_class, record, account)
    billed = _billed_seconds(record, seconds, tariff)
    cost = _cost(record, usage_class, billed, owner, tariff)
    if cost is None:
        return Verdict("quarantined", "unrated")
    return Verdict(
        "posted",
        period=_posting_month(at, sealed),
        usage_month=_month(at),
        account=owner.account,
        tenant=owner.tenant,
        attribution=owner.attribution,
        header_ignored=owner.header_ignored,
        usage_class=usage_class,
        answered="answered_at" in record or seconds > 0,
        answered_seconds=seconds,
        billed_seconds=billed,
        cost=cost,
        currency=account.currency or record.get("currency") or "XXX",
    )


def _implausible(record: dict[str, Any], account: Account) -> bool:
    started, answered, ended = record["started_at"], record.get("answered_at"), record.get("ended_at")
    day = timedelta(hours=24)
    amounts = [record.get(name, 0) for name in ("answered_seconds", "billed_seconds", "cost")]
    return (
        (ended is not None and answered is not None and ended < answered)
        or (ended is not None and ended < started)
        or any(amount < 0 for amount in amounts)
        or (ended is not None and ended - min(started, answered or started) > day)
        or max(amounts[:2]) > day.total_seconds()
        or bool(account.currency and record.get("currency") not in {None, account.currency})
    )


def _answered_seconds(record: dict[str, Any]) -> Decimal:
    if "answered_seconds" in record:
        return Decimal(record["answered_seconds"])
    if "answered_at" not in record or "ended_at" not in record:
        return Decimal(0)
    return Decimal((record["ended_at"] - record["answered_at"]) // timedelta(microseconds=1)) / 1_000_000


def _usage_class(record: dict[str, Any], seconds: Decimal, account: Account) -> str:
    service = re.sub(r"[^a-z0-9]+", "_", record["service"].lower()).strip("_")
    if service != "call":
        return service
    called = _dialled(record.get("to_number") or "", account.home_country)
    if record["direction"] == "inbound":
        return "inbound_toll_free" if _is_toll_free(called) else "inbound_conversational"
    if _is_emergency(called, account.home_country):
        return "outbound_emergency"
    if _is_toll_free(called):
        return "outbound_toll_free"
    if not _is_domestic(called, account):
        return "outbound_international"
    return "outbound_short_duration" if 0 < seconds < 6 else "outbound_conversational"


def _is_emergency(called: str, home: str) -> bool:
    code = str(phonenumbers.country_code_for_region(home))
    spelt = {called} if not called.startswith("+") else {called[1:], called[1:].removeprefix(code)}
    return any(phonenumbers.is_emergency_number(each, home) for each in spelt) or (
        code == "1" and "933" in spelt
    )


def _is_toll_free(called: str) -> bool:
    if not called.startswith("+"):
        return False
    kind = phonenumbers.number_type(phonenumbers.parse(called))
    return bool(kind == phonenumbers.PhoneNumberType.TOLL_FREE)


def _is_domestic(called: str, account: Account) -> bool:
    if not called.startswith("+"):
        return True
    parsed = phonenumbers.parse(called)
    region = phonenumbers.region_code_for_number(parsed)
    if region is None:
        return bool(parsed.country_code == phonenumbers.country_code_for_region(account.home_country))
    return region in account.domestic_regions


def _tariff(
    carrier: Carrier, owner: str | None, usage_class: str, record: dict[str, Any], account: Account
) -> Tariff | None:
    """The longest prefix in force, and of one prefix the latest (L8)."""
    called = _dialled(record.get("to_number") or "", account.home_country).removeprefix("+")
    fitting = [
        each
        for each in carrier.tariffs
        if each.account == owner
        and each.usage_class == usage_class
        and called.startswith(each.prefix)
        and each.effective_at <= record["started_at"]
    ]
    return max(fitting, key=lambda each: (len(each.prefix), each.effective_at), default=None)


def _billed_seconds(record: dict[str, Any], seconds: Decimal, tariff: Tariff | None) -> int:
    if "billed_seconds" in record:
        return int(record["billed_seconds"])
    whole = int(seconds.to_integral_value(ROUND_CEILING))
    if tariff is None or whole == 0:
        return whole
    billed = tariff.first_seconds
    while billed < whole:
        billed += tariff.next_seconds
    return billed


def _cost(
    record: dict[str, Any], usage_class: str, billed: int, owner: _Owner, tariff: Tariff | None
) -> Decimal | None:
    if "cost" in record:
        return _six_decimals(record["cost"])
    is_free = usage_class == "outbound_emergency" or (billed == 0 and record["service"].lower() == "call")
    if is_free or owner.account is None:
        return Decimal(0)
    if tariff is None or tariff.unit == "month":
        return None
    return _six_decimals(tariff.cost if tariff.unit == "event" else billed * tariff.cost / 60)


def _posting_month(at: datetime, sealed: set[str]) -> str:
    month = _month(at)
    if month not in sealed:
        return month
    year, number = map(int, max(sealed).split("-"))  # months seal in order: the oldest open one comes next
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def _six_decimals(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP)


def _month(at: datetime) -> str:
    return at.strftime("%Y-%m")


def _month_edges(month: str) -> tuple[datetime, datetime]:
    begins = datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
    return begins, (begins + timedelta(days=32)).replace(day=1)


def _sums(members: Sequence[Verdict]) -> Sums:
    return Sums(
        len(members),
        sum(each.answered for each in members),
        sum((each.answered_seconds for each in members), Decimal(0)),
        sum(each.billed_seconds for each in members),
        sum((each.cost for each in members), Decimal(0)),
    )

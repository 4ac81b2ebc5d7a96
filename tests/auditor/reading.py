"""What a message says (DESIGN 5): JSON, call records, SIP messages. Nothing is shared with the product's decoders."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import IPv6Address, ip_address
from typing import Any

from tests.auditor.words import Address, Carrier, Invite, Received, Verdict


class UnreadableError(Exception):
    pass


def _json(value: bytes | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    try:
        read = json.loads(value)
    except (ValueError, UnicodeDecodeError):
        raise UnreadableError from None
    if not isinstance(read, dict):
        raise UnreadableError
    return read


def read_call(value: bytes | Mapping[str, Any]) -> dict[str, Any]:
    """A call record with its texts turned into what they mean."""
    said = {name: each for name, each in _json(value).items() if each is not None}
    for name in ("id", "switch", "service", "direction", "started_at"):
        if not isinstance(said.get(name), str) or not said[name]:
            raise UnreadableError
    if said["direction"] not in {"inbound", "outbound"}:
        raise UnreadableError
    needs = ("to_number",) if said["direction"] == "inbound" else ("source_ip", "call_id")
    if not any(name in said for name in needs):
        raise UnreadableError
    record = dict(said)
    for name in {"started_at", "answered_at", "ended_at"} & said.keys():
        record[name] = _instant(said[name])
    if "source_ip" in said:
        record["source_ip"] = read_address(said["source_ip"])
    if "answered_seconds" in said:
        record["answered_seconds"] = Decimal(str(said["answered_seconds"]))
    if "cost" in said:
        record["cost"] = _money(said["cost"])
    if not isinstance(said.get("billed_seconds", 0), int):
        raise UnreadableError
    return record


def _money(said: object) -> Decimal:
    """Money is a string of plain digits; a JSON number is refused."""
    if not isinstance(said, str) or not re.fullmatch(r"-?\d+(\.\d+)?", said):
        raise UnreadableError
    return Decimal(said)


def sip_verdict(message: Received) -> Verdict:
    assert message.value is not None
    said = _sip(message.value)
    if said["method"] is None:
        return Verdict("ignored", "sip_response")
    if said["method"].upper() != "INVITE":
        return Verdict("ignored", "sip_not_invite")
    return Verdict("ignored", "sip_not_initial") if said["to_tag"] else Verdict("context")


def invites_in(carrier: Carrier, message: Received) -> list[Invite]:
    """The initial INVITE that a message is, as a list of one; empty for anything else."""
    source = next(each for each in carrier.inputs if each.topic == message.topic)
    if source.kind != "sip" or message.value is None:
        return []
    try:
        if sip_verdict(message).outcome != "context":
            return []
        said = _sip(message.value)
    except UnreadableError:
        return []
    parts = (said["observed_at"], said["source_ip"], said["call_id"], said["cseq"], said["x_tenant"])
    return [Invite(message.received_at, *parts)]


def _sip(value: bytes | Mapping[str, Any]) -> dict[str, Any]:
    said = _json(value)
    if not all(isinstance(said.get(name), str) for name in ("switch", "observed_at", "source_ip")):
        raise UnreadableError
    seen = {"observed_at": _instant(said["observed_at"]), "source_ip": read_address(said["source_ip"])}
    if said.get("raw") is not None:
        return seen | _sip_text(said["raw"])
    if not said.get("call_id") or not said.get("method"):
        raise UnreadableError
    number = re.match(r"\s*(\d+)", str(said.get("cseq", 0)))
    if number is None:
        raise UnreadableError
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
        raise UnreadableError
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
        raise UnreadableError from None
    if instant.tzinfo is None:
        raise UnreadableError
    return instant.astimezone(UTC)


def read_address(text: object) -> Address:
    try:
        address = ip_address(str(text).strip("[] "))
    except ValueError:
        raise UnreadableError from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

"""The canonical form of `calls.raw` and `sip.raw` (DESIGN section 5).

JSON objects whose fields are those of `CallRecord` and `SipEnvelope`. Nothing raises: bytes that cannot be read
come back as `Rejected` with a reason and a detail that a person understands.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec
from pydantic import ValidationError

from schemas.decoded import Decoded, Ignored, Rejected
from schemas.plain import read_plainly
from schemas.plain_events import PlainEnvelope, read_event_plainly
from schemas.records import (
    CallRecord,
    CallRecordOnWire,
    SipEnvelope,
    SipEvent,
    as_call_record,
    call_id_length_max,
)
from schemas.sip_message import TENANT_HEADER, MalformedSipError, SipMessage, read_sip_message, tenant_named

UNREADABLE: Final = "unreadable"
_detail_length_max: Final = 500
_CALL_ID: Final = re.compile(rf"[^\x00-\x1f\x7f]{{1,{call_id_length_max}}}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CSEQ_TEXT: Final = re.compile(r"\s*(\d{1,10})(?:\s+\S+)?\s*")


def decode_call(value: bytes | None) -> Decoded:
    """Read one message of `calls.raw`."""
    if value is None:
        return Ignored("tombstone")
    try:
        record = read_plainly(value)
    except RecursionError:  # nested too deeply, which the schema says without raising
        record = None
    if record is None:
        try:
            record = _keepable(as_call_record(CallRecordOnWire.model_validate_json(value)))
        except ValidationError as error:
            return Rejected(UNREADABLE, _explained(error))
    if record.direction == "inbound" and record.to_number is None:
        return Rejected(UNREADABLE, "to_number: an inbound record needs the called number")
    if record.direction == "outbound" and record.source_ip is None and record.call_id is None:
        return Rejected(UNREADABLE, "source_ip: an outbound record needs source_ip or call_id")
    return record


def _keepable(record: CallRecord) -> CallRecord:
    """A record whose tenant header can be kept: one with control characters within names nobody, and still is there."""
    if record.x_tenant is None or _CONTROL.search(record.x_tenant) is None:
        return record
    return msgspec.structs.replace(record, x_tenant=_CONTROL.sub("\ufffd", record.x_tenant.strip()))


def decode_sip(value: bytes | None) -> Decoded:
    """Read one message of `sip.raw`; only an initial INVITE (no To tag) is an event that counts (A10)."""
    if value is None:
        return Ignored("tombstone")
    envelope: SipEnvelope | PlainEnvelope | None = read_event_plainly(value)
    if envelope is None:
        try:
            envelope = SipEnvelope.model_validate_json(value)
        except ValidationError as error:
            return Rejected(UNREADABLE, _explained(error))
    try:
        message = _message(envelope) if envelope.raw is None else read_sip_message(envelope.raw)
    except MalformedSipError as error:
        return Rejected(UNREADABLE, f"raw: {error}" if envelope.raw is not None else str(error))
    return _event(envelope, message)


def _event(envelope: SipEnvelope | PlainEnvelope, message: SipMessage) -> Decoded:
    if message.method is None:
        return Ignored("sip_response")
    if message.method.upper() != "INVITE":
        return Ignored("sip_not_invite")
    if message.to_tag:
        return Ignored("sip_not_initial")
    if not _CALL_ID.fullmatch(message.call_id):
        return Rejected(
            UNREADABLE, f"call_id: 1 to {call_id_length_max} characters, none of them a control character"
        )
    return SipEvent(
        envelope.switch,
        envelope.observed_at,
        envelope.source_ip,
        message.call_id,
        message.cseq,
        message.x_tenant,
    )


def _message(envelope: SipEnvelope | PlainEnvelope) -> SipMessage:
    if envelope.call_id is None or envelope.method is None:
        raise MalformedSipError("call_id and method are required where there is no raw message")
    values: list[str] = []
    for name, value in envelope.headers.items():
        if _is_tenant_header(name):
            values += [value] if isinstance(value, str) else value
    return SipMessage(
        method=envelope.method.strip(),
        call_id=envelope.call_id,
        cseq=_cseq(envelope.cseq),
        to_tag=envelope.to_tag,
        x_tenant=tenant_named(values),
    )


@lru_cache(maxsize=4096)
def _is_tenant_header(name: str) -> bool:
    return name.strip().lower() == TENANT_HEADER


@lru_cache(maxsize=4096)
def _cseq(value: int | str | None) -> int:
    if isinstance(value, int):
        return value
    match = _CSEQ_TEXT.fullmatch(value or "0")
    if match is None:
        raise MalformedSipError(f"cseq: {value!r} is no sequence number")
    return int(match[1])


def _explained(error: ValidationError) -> str:
    """The first things wrong, field by field, without the values (they may name people)."""
    parts = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
        field = ".".join(str(step) for step in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{field}: {message}" if field else message)
    return "; ".join(parts)[:_detail_length_max]

"""The laws of every decoder: total, deterministic, aware of time, and nothing that cannot be stored."""

from __future__ import annotations

from datetime import UTC

from pydantic import ValidationError

from schemas.decoded import Decoded, Ignored, Rejected, Undirected
from schemas.formats import Decoder
from schemas.identity import record_digest
from schemas.records import CallRecord, SipEvent, call_record


def broken_law(decode: Decoder, value: bytes) -> str | None:
    """Which law a decoder breaks on a message, for a person; None where it keeps them."""
    try:
        decoded = decode(value)
        again = decode(value)
    except Exception as error:  # noqa: BLE001 (this is what is looked for)
        return f"raised {type(error).__name__}: {error}"
    if again != decoded:
        return "read twice, it said two things"
    return _unkept(decoded)


def _unkept(decoded: Decoded) -> str | None:
    match decoded:
        case CallRecord():
            return _unkept_call(decoded)
        case Undirected(record):
            return _unkept_call(record)
        case SipEvent():
            return _untimely(decoded) or _unstorable(decoded.switch, decoded.call_id, decoded.x_tenant)
        case Rejected(reason, detail):
            return _unstorable(reason, detail) if detail else "rejected without a detail"
        case Ignored(reason):
            return None if reason else "ignored without a reason"


def _unkept_call(record: CallRecord) -> str | None:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    if fields["cost"] is not None:
        fields["cost"] = str(fields["cost"])
    try:
        if call_record(fields) != record:
            return "the schema reads another record"
    except ValidationError as error:
        return f"the schema refuses it: {error}"
    record_digest(record.switch, record.id)
    return _untimely(record) or _unstorable(*[each for each in fields.values() if isinstance(each, str)])


def _untimely(what: CallRecord | SipEvent) -> str | None:
    times = [getattr(what, name) for name in what.__struct_fields__ if name.endswith("_at")]
    return None if all(each is None or each.tzinfo is UTC for each in times) else "a time that is not UTC"


def _unstorable(*texts: str | None) -> str | None:
    for each in texts:
        if each is not None and ("\x00" in each or not _is_unicode(each)):
            return "a text that no database keeps"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

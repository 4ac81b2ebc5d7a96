"""From a captured SIP message to the event that attribution asks for (A10), whatever captured it."""

from __future__ import annotations

from datetime import datetime

from schemas.decoded import Decoded, Ignored
from schemas.formats.building import UnreadableError, kept, source_address
from schemas.records import SipEvent, call_id_length_max, id_length_max
from schemas.sip_message import MalformedSipError, SipMessage, read_sip_message


def sip_event(
    message_text: str, switch: str | None, observed_at: datetime | None, source_ip: str | None
) -> Decoded:
    """The event that a captured SIP message is, if it is an initial INVITE (A10).

    Raises:
        UnreadableError: the message, its time or its source cannot be read.
    """
    try:
        message = read_sip_message(message_text)
    except MalformedSipError as error:
        raise UnreadableError(f"SIP: {error}") from None
    return initial_invite(message, switch, observed_at, source_ip)


def initial_invite(
    message: SipMessage, switch: str | None, observed_at: datetime | None, source_ip: str | None
) -> Decoded:
    """A SIP message as an event, or why it is none."""
    if message.method is None:
        return Ignored("sip_response")
    if message.method.upper() != "INVITE":
        return Ignored("sip_not_invite")
    if message.to_tag:
        return Ignored("sip_not_initial")
    source = source_address(source_ip)
    if source is None or observed_at is None or switch is None:
        missing = "source" if source is None else "time" if observed_at is None else "switch"
        raise UnreadableError(f"the capture does not say its {missing}")
    return SipEvent(
        kept("switch", switch, id_length_max),
        observed_at,
        source,
        kept("call_id", message.call_id, call_id_length_max),
        message.cseq,
        message.x_tenant,
    )

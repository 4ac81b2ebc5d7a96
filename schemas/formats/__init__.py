"""From a message's bytes to call records and SIP events: one file per format, pure functions, and this registry.

A new format is one file with its mapping table and its `Dialect`, one line in `DIALECTS`, and one folder of fixtures
(tests/formats/fixtures), over which the contract test runs the same laws as over all others.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from schemas.formats import (
    asterisk_cdr,
    canonical,
    freeswitch_event,
    freeswitch_json_cdr,
    hep,
    kamailio,
    opensips_cdr,
    sip_text,
)
from schemas.formats.dialect import Decoder, Dialect, Format, Kind

__all__ = ["DIALECTS", "Decoder", "Dialect", "Format", "Kind", "decoder", "refusal"]

DIALECTS: Final = (
    Dialect("calls", "canonical", lambda _: canonical.decode_call, {}),
    Dialect("sip", "canonical", lambda _: canonical.decode_sip, {}),
    asterisk_cdr.DIALECT,
    freeswitch_event.DIALECT,
    freeswitch_json_cdr.DIALECT,
    kamailio.CALLS,
    kamailio.SIP,
    opensips_cdr.DIALECT,
    hep.DIALECT,
    sip_text.DIALECT,
)
_BY_NAME: Final = {(each.kind, each.name): each for each in DIALECTS}


def refusal(kind: Kind, settings: Format) -> str | None:
    """Why an input of this kind cannot be read with these settings, for a person; None where it can."""
    dialect = _BY_NAME.get((kind, settings.name))
    if dialect is None:
        known = ", ".join(sorted(name for known, name in _BY_NAME if known == kind))
        return f"no format {settings.name!r} for {kind}; there are: {known}"
    return dialect.refusal(settings)


@lru_cache(maxsize=256)
def decoder(kind: Kind, settings: Format) -> Decoder:
    """What reads an input's messages: bytes to what they say; it never raises, whatever the bytes.

    Raises:
        ValueError: these settings cannot be read with (`refusal` says why).
    """
    reason = refusal(kind, settings)
    if reason is not None:
        raise ValueError(reason)
    return _BY_NAME[kind, settings.name].make(settings)

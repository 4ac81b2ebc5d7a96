"""Which phone number is it (A11).

A number is kept as E.164 with its plus sign (`+12125550100`). What is dialled without one is read with a home
country. Short codes (911, 933) stay as dialled: they have no E.164 form and must never be given one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import phonenumbers

_E164: Final = re.compile(r"\+[1-9]\d{6,14}")
_SHORT_CODE: Final = re.compile(r"[\d*#]{1,6}")
_SEPARATORS: Final = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]")


@lru_cache(maxsize=262_144)
def dialled(text: str, home_country: str) -> str:
    """A dialled number in the one form everything compares: E.164 where it has one, else as dialled.

    Args:
        text: as the switch sent it; visual separators are dropped.
        home_country: ISO 3166 region whose dialling rules apply to a number without `+`.

    Returns:
        `+442071838750`, a short code such as `911`, or the trimmed text itself (a SIP user such as `alice`).
    """
    if _E164.fullmatch(text):
        return text
    compact = _SEPARATORS.sub("", text)
    if _E164.fullmatch(compact) or _SHORT_CODE.fullmatch(compact):
        return compact
    return _parsed(compact, home_country) or text.strip()


def e164(text: str, home_country: str) -> str:
    """An asset's number in E.164.

    Raises:
        ValueError: the text cannot be a phone number of any country.
    """
    number = dialled(text, home_country)
    if not _E164.fullmatch(number) or _parsed(number, home_country) is None:
        raise ValueError(f"{text!r} is not a possible phone number")
    return number


def _parsed(compact: str, home_country: str) -> str | None:
    """E.164 by the numbering plan, where the plan says the length is possible; `911` as +1911 is not (FACTS)."""
    try:
        parsed = phonenumbers.parse(compact, home_country)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed) or parsed.extension:
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))

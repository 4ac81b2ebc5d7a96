"""Which phone number is it (A11).

A number is kept as E.164 with its plus sign (`+12125550100`). What is dialled without one is read with a home
country. Short codes (911, 933) stay as dialled: they have no E.164 form and must never be given one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, cast
from urllib.parse import unquote

import phonenumbers

_E164: Final = re.compile(r"\+[1-9]\d{6,14}")
_ALL_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}(?: \+[1-9][0-9]{6,14})*")
_SHORT_CODE: Final = re.compile(r"[\d*#]{1,6}")
_SEPARATORS: Final = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]")


def dialled(text: str, home_country: str) -> str:
    """A dialled number in the one form everything compares: E.164 where it has one, else as dialled.

    Args:
        text: as the switch sent it; visual separators are dropped.
        home_country: ISO 3166 region whose dialling rules apply to a number without `+`.

    Returns:
        `+442071838750`, a short code such as `911`, or the trimmed text itself (a SIP user such as `alice`).
    """
    return text if _E164.fullmatch(text) else _as_e164(text, home_country)


@lru_cache(maxsize=65_536)
def _as_e164(text: str, home_country: str) -> str:
    compact = _SEPARATORS.sub("", text)
    if _E164.fullmatch(compact) or _SHORT_CODE.fullmatch(compact):
        return compact
    return _parsed(compact, home_country) or _parsed_abroad(compact, home_country) or text.strip()


def dialled_each(texts: Sequence[str | None], home_countries: Sequence[str]) -> Sequence[str | None]:
    """`dialled` of each number; None where there is none. Where all are E.164 already, as most are, they are looked at together."""
    if None not in texts:
        together = " ".join(cast("Sequence[str]", texts))
        if _ALL_E164.fullmatch(together) is not None and together.count(" ") == len(texts) - 1:
            return texts
    return [dialled(text, home) if text else None for text, home in zip(texts, home_countries, strict=True)]


def e164(text: str, home_country: str) -> str:
    """An asset's number in E.164.

    Raises:
        ValueError: the text cannot be a phone number of any country.
    """
    number = dialled(text, home_country)
    if not _E164.fullmatch(number) or _parsed(number, home_country) is None:
        raise ValueError(f"{text!r} is not a possible phone number")
    return number


def _parsed_abroad(compact: str, home_country: str) -> str | None:
    """E.164 of `00` and a number, as it is dialled from most countries, where at home it means nothing else (`011`)."""
    if not compact.startswith("00") or _international_prefix(home_country).startswith("00"):
        return None
    return _parsed("+" + compact[2:], home_country)


@lru_cache(maxsize=512)
def _international_prefix(country: str) -> str:
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(country)
    return (metadata and metadata.international_prefix) or "00"


def _parsed(compact: str, home_country: str) -> str | None:
    """E.164 by the numbering plan, where the plan says the length is possible; `911` as +1911 is not."""
    try:
        parsed = phonenumbers.parse(compact, home_country)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed) or parsed.extension:
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


_NOTHING: Final = frozenset({"", "<null>", "(null)", "null", "none"})
_URI: Final = re.compile(r"(sips?|tel):", re.IGNORECASE)


@lru_cache(maxsize=65_536)
def number_in(text: str) -> str | None:
    """The number or user in what a switch wrote for one; None where it wrote that there is none.

    `tel:+1-212-555-0100`, `<sip:+12125550100@example.com;user=phone>`, `+12125550100;npdi;rn=+12125550199` all are
    `+12125550100` or spelt so: the number that was called or calls, never where it was routed (RFC 3966, RFC 4694).
    Other separators stay: `dialled` drops them with the home country at hand.
    """
    text = text.strip()
    if text.lower() in _NOTHING:
        return None
    closed = text.rfind(">")
    opened = text.rfind("<", 0, closed + 1)
    if 0 <= opened < closed:
        text = text[opened + 1 : closed].strip()
    scheme = _URI.match(text)
    if scheme is not None:
        text = text[scheme.end() :]
        if scheme[1].lower() != "tel":
            user, at, _ = text.rpartition("@")
            if not at:
                return None  # a host alone
            text = user.partition(":")[0]
    text = text.partition(";")[0]
    if "%" in text:
        text = unquote(text)
    text = text.strip()
    return None if text.lower() in _NOTHING else text

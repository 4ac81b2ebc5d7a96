"""What kind of usage is it (L7, L9).

A call's class is the first that fits: emergency, toll-free, international, short duration, conversational. Every
other service is its own class, under its own name: an unknown one is never lost.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

import phonenumbers

from rollup.numbering import KINDS, NumberKind, is_toll_free
from rollup.terms import AccountTerms
from schemas import numbers
from schemas.memo import Memo

OUTBOUND_EMERGENCY: Final = "outbound_emergency"
CALL_CLASSES: Final = frozenset(
    {
        "inbound_conversational",
        "inbound_toll_free",
        "outbound_conversational",
        "outbound_toll_free",
        "outbound_international",
        "outbound_short_duration",
        OUTBOUND_EMERGENCY,
    }
)
NUMBER_LOCAL: Final = "number_local"
NUMBER_TOLL_FREE: Final = "number_toll_free"
_RESERVED: Final = CALL_CLASSES | {NUMBER_LOCAL, NUMBER_TOLL_FREE}

short_duration_seconds_limit: Final = 6  # exclusive
_EMERGENCY_TEST_CODE: Final = "933"  # reads an emergency location back; North American numbering plan
_NORTH_AMERICA: Final = 1
_FOREIGN_TO_SLUGS: Final = re.compile(r"[^a-z0-9]+")


class UsageClass(NamedTuple):
    """A usage class by its slug. `region_unknown`: taken for domestic though no region is known; counted (L9)."""

    slug: str
    region_unknown: bool = False


ClassFacts = tuple[str, str, NumberKind, bool, str, frozenset[str]]
"""What decides a class: service, direction, the kind of the called number, whether it lasted but less than
`short_duration_seconds_limit`, home country and domestic regions."""


def usage_class(
    service: str,
    direction: str,
    to_number: str | None,
    from_number: str | None,  # noqa: ARG001 (no class depends on it today; callers need not change when one does)
    answered_seconds: Decimal,
    terms: AccountTerms,
) -> UsageClass:
    """The usage class of a record: the first of L7 that fits.

    Args:
        service: as the switch named it; `call` is a call, all else is a class of its own.
        direction: `inbound` or `outbound`.
        to_number: the called number as sent or already in E.164.
        from_number: the calling number.
        answered_seconds: answer to end, before any rounding.
        terms: whose home country and domestic regions apply.
    """
    short = 0 < answered_seconds < short_duration_seconds_limit
    called = numbers.dialled(to_number, terms.home_country) if to_number else None
    return CLASSES[service, direction, KINDS[called], short, terms.home_country, terms.domestic_regions]


def _class_of(facts: ClassFacts) -> UsageClass:
    service, direction, called, short, home_country, domestic_regions = facts
    name = service_slug(service)
    if name != "call":
        return UsageClass(f"service_{name}" if name in _RESERVED else name)
    if direction == "inbound":
        return UsageClass("inbound_toll_free" if called.toll_free else "inbound_conversational")
    return _outbound(called, short, home_country, domestic_regions)


CLASSES: Final = Memo(_class_of, 4096)
"""The class by the facts that decide it, of which there are few."""


def is_call(service: str) -> bool:
    """Whether a service is a call, however it is spelt."""
    return service_slug(service) == "call"


@lru_cache(maxsize=4096)
def service_slug(service: str) -> str:
    """A service's name as a slug of a-z, 0-9 and _; letters outside ASCII are kept by their code point."""
    text = unicodedata.normalize("NFKD", service.casefold())
    spelt = "".join(
        char if char.isascii() else f"u{ord(char):x}" for char in text if not unicodedata.combining(char)
    )
    return _FOREIGN_TO_SLUGS.sub("_", spelt).strip("_") or "unnamed"


def number_class(number: str) -> str:
    """The class under which holding a number (E.164) is counted: `number_local` or `number_toll_free` (C3)."""
    return NUMBER_TOLL_FREE if is_toll_free(number) else NUMBER_LOCAL


@lru_cache(maxsize=65_536)
def is_emergency(called: str, home_country: str) -> bool:
    """Whether a called number, as dialled, is an emergency short code of the home country or its test code.

    A plus sign or the calling code in front (`+911`, `+1911`), as some gateways send it, changes nothing.
    """
    home_code = phonenumbers.country_code_for_region(home_country)
    codes = {called}
    if called.startswith("+"):
        codes = {called[1:], called[1:].removeprefix(str(home_code))}
    if home_code == _NORTH_AMERICA and _EMERGENCY_TEST_CODE in codes:
        return True
    return any(phonenumbers.is_emergency_number(code, home_country) for code in codes)


def _outbound(
    called: NumberKind,
    short: bool,  # noqa: FBT001 (one of the facts)
    home_country: str,
    domestic_regions: frozenset[str],
) -> UsageClass:
    if called.short_code and is_emergency(called.short_code, home_country):
        return UsageClass(OUTBOUND_EMERGENCY)
    if called.toll_free:
        return UsageClass("outbound_toll_free")
    home_code = phonenumbers.country_code_for_region(home_country)
    unknown_at_home = called.region is None and called.calling_code == home_code
    # What has no E.164 form (a short code, a SIP user) can only be reached at home.
    domestic = not called.international or unknown_at_home or called.region in domestic_regions
    if not domestic:
        return UsageClass("outbound_international")
    return UsageClass("outbound_short_duration" if short else "outbound_conversational", unknown_at_home)

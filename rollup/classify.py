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

from rollup.numbering import is_toll_free, place_of
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
_short_code_length_max: Final = 8  # with a calling code in front
_FOREIGN_TO_SLUGS: Final = re.compile(r"[^a-z0-9]+")


class UsageClass(NamedTuple):
    """A usage class by its slug. `region_unknown`: taken for domestic though no region is known; counted (L9)."""

    slug: str
    region_unknown: bool = False


_class: Final = lru_cache(maxsize=4096)(UsageClass)  # one object for all records of a class

ClassFacts = tuple[str, str, str | None, bool, str, frozenset[str]]
"""What decides a class: service, direction, called number, whether it lasted but less than `short_duration_seconds_limit`,
home country and domestic regions."""


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
    return CLASSES[service, direction, to_number, short, terms.home_country, terms.domestic_regions]


def _class_of(asked: ClassFacts) -> UsageClass:
    service, direction, to_number, short, home_country, domestic_regions = asked
    name = service_slug(service)
    if name != "call":
        return _class(f"service_{name}" if name in _RESERVED else name)
    called = numbers.dialled(to_number, home_country) if to_number else ""
    if direction == "inbound":
        return _class("inbound_toll_free" if is_toll_free(called) else "inbound_conversational")
    return _outbound(called, short, home_country, domestic_regions)


CLASSES: Final = Memo(_class_of)
"""The class by the facts that decide it: most were asked before."""


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


def _outbound(called: str, short: bool, home_country: str, domestic_regions: frozenset[str]) -> UsageClass:  # noqa: FBT001 (same)
    if len(called) <= _short_code_length_max and is_emergency(called, home_country):
        return _class(OUTBOUND_EMERGENCY)
    if is_toll_free(called):
        return _class("outbound_toll_free")
    calling_code, region = place_of(called)
    unknown_at_home = region is None and calling_code == phonenumbers.country_code_for_region(home_country)
    # What has no E.164 form (a short code, a SIP user) can only be reached at home.
    domestic = not called.startswith("+") or unknown_at_home or region in domestic_regions
    if not domestic:
        return _class("outbound_international")
    return _class("outbound_short_duration" if short else "outbound_conversational", unknown_at_home)

"""Of which kind is a called number: its calling code, its region, and whether it is toll-free, by its numbering plan.

The answers are those of phonenumbers' own parsing, which takes 15 microseconds for a number that it has not seen, three times
what all else about a record costs: real traffic calls ever-new numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
import phonenumbers

from schemas.memo import Memo

_E164_DIGITS: Final = (7, 15)
_short_code_length_max: Final = 8  # with a calling code in front
_TOLL_FREE, _ALONE, _NOWHERE = "toll_free", "alone", "nowhere"
_calling_code_beginnings_max: Final = 2048  # of four characters; a plus sign and three digits make a thousand


class NumberKind(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What of a called number decides a class; one object for all numbers of a kind.

    `short_code`: the number itself where it is short enough to be one, else empty. `international`: whether it begins with
    a plus sign. Calling code and region: of one that is not toll-free; None where no plan knows them.
    """

    short_code: str
    international: bool
    toll_free: bool
    calling_code: int | None = None
    region: str | None = None


_kind: Final = lru_cache(maxsize=4096)(NumberKind)


def is_toll_free(number: str) -> bool:
    """Whether a number in E.164 is toll-free by its country's numbering plan."""
    plan = _plan_of(number[:4])
    if plan is None or plan.toll_free is None:
        return False
    return plan.toll_free.fullmatch(number, plan.national_at) is not None


def _kind_of(called: str | None) -> NumberKind:
    """The kind of a called number: as the library's parsing tells it, at a tenth of its price where it is E.164.

    Whatever is E.164 can be parsed: four national digits are enough, and no prefix is taken off that leaves too few. A
    region that has a calling code alone then has all its numbers; where several share one, `_region_patterns` tell.
    """
    number = called or ""
    short_code = number if len(number) <= _short_code_length_max else ""
    plan = _plan_of(number[:4])
    found = None if plan is None else plan.national.match(number, plan.national_at)
    if plan is None or found is None or found.lastgroup is None:  # no E.164, or a national prefix
        toll_free = is_toll_free(number)
        place = (None, None) if toll_free else _place_by_library(number)
        return _kind(short_code, number.startswith("+"), toll_free, *place)
    if found.lastgroup == _TOLL_FREE:
        return _kind(short_code, True, True)  # noqa: FBT003 (fields of a struct)
    region = None if found.lastgroup == _NOWHERE else plan.alone or found.lastgroup
    return _kind(short_code, True, False, plan.calling_code, region)  # noqa: FBT003


KINDS: Final = Memo(_kind_of, 8192)
"""The kind of a called number, given as `schemas.numbers.dialled` writes it; None and empty: there is none."""


@lru_cache(maxsize=65_536)
def _place_by_library(called: str) -> tuple[int | None, str | None]:
    try:
        parsed = phonenumbers.parse(called)
    except phonenumbers.NumberParseException:
        return None, None
    return parsed.country_code, phonenumbers.region_code_for_number(parsed)


class _Plan(NamedTuple):
    """The numbers of a calling code: patterns of national ones, which begin at `national_at` in E.164."""

    calling_code: int
    national_at: int
    toll_free: re.Pattern[str] | None
    national: re.Pattern[str]
    alone: str | None  # the region that has all its numbers


@lru_cache(maxsize=_calling_code_beginnings_max)
def _plan_of(beginning: str) -> _Plan | None:
    """The plan of a number in E.164, by its first four characters; None for anything else. No code begins another."""
    if not beginning.startswith("+") or beginning.startswith("+0"):
        return None
    for length in (1, 2, 3):
        digits = beginning[1 : 1 + length]
        if digits.isdecimal() and int(digits) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            return _plan(int(digits))
    return None


@lru_cache(maxsize=512)
def _plan(calling_code: int) -> _Plan:
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[calling_code]
    metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(calling_code, regions[0])
    toll_free = metadata and metadata.toll_free and metadata.toll_free.national_number_pattern
    kinds = [f"(?P<{_TOLL_FREE}>(?:{toll_free})\\Z)"] if toll_free else []
    kinds += [f"(?P<{_ALONE}>)"] if len(regions) == 1 else _region_patterns(regions)
    digits = len(str(calling_code))
    is_e164 = f"(?=[0-9]{{{_E164_DIGITS[0] - digits},{_E164_DIGITS[1] - digits}}}\\Z)"
    return _Plan(
        calling_code,
        national_at=1 + digits,
        toll_free=re.compile(toll_free) if toll_free else None,
        national=re.compile(f"{is_e164}(?:{'|'.join(kinds)})"),
        alone=regions[0] if len(regions) == 1 else None,
    )


def _region_patterns(regions: Sequence[str]) -> list[str]:
    """National numbers of regions that share a calling code, each a group of its name: the first that fits has it.

    Their order and rules are those of `region_code_for_number`: leading digits where a region has them, else a number
    of any kind. In front stands, without a name, the national prefix, which parsing may take off; at the end whatever else.
    """
    found = map(phonenumbers.PhoneMetadata.metadata_for_region, regions)
    plans = [plan for plan in found if plan is not None]
    prefix = plans[0].national_prefix_for_parsing
    fitting = [f"(?P<{plan.id}>{plan.leading_digits or _of_any_kind(plan)})" for plan in plans]
    return [*([prefix] if prefix else []), *fitting, f"(?P<{_NOWHERE}>)"]


def _of_any_kind(plan: phonenumbers.PhoneMetadata) -> str:
    """To the library a number has a kind if it fits the plan's general description and that of the kind."""
    lines = (plan.fixed_line, None if plan.same_mobile_and_fixed_line_pattern else plan.mobile, plan.voip)
    charges = (plan.toll_free, plan.premium_rate, plan.shared_cost)
    others = (plan.personal_number, plan.pager, plan.uan, plan.voicemail)
    any_kind = "|".join(map(_described, (*lines, *charges, *others)))
    return f"(?={_described(plan.general_desc)})(?:{any_kind})"


def _described(description: phonenumbers.PhoneNumberDesc | None) -> str:
    if description is None or not description.national_number_pattern:
        return "(?!)"  # no number
    lengths = "|".join(f".{{{length}}}" for length in description.possible_length) or ".*"
    return rf"(?=(?:{description.national_number_pattern})\Z)(?:{lengths})\Z"

"""Region and class of a number are those of the library's own parsing, whatever its calling code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneMetadata, PhoneNumberDesc, PhoneNumberType
from phonenumbers.phonenumberutil import _number_type_helper

from rollup.classify import UsageClass, usage_class
from rollup.numbering import KINDS, NumberKind, _of_any_kind, is_toll_free
from rollup.terms import AccountTerms, domestic_by_default

Place = tuple[int | None, str | None]

CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
SHARED = {
    code: regions for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items() if len(regions) > 1
}
HOMES = ["US", "CA", "PR", "GB", "JE", "DE", "RU", "KZ", "AU", "IT"]
LINES = [
    "general_desc",
    "fixed_line",
    "mobile",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "voip",
    "personal_number",
    "pager",
    "uan",
    "voicemail",
]

FULL_WIDTH = {ord(digit): 0xFF10 + int(digit) for digit in "0123456789"}

digits = st.text("0123456789", min_size=4, max_size=14)
any_e164 = st.builds("+{}{}".format, st.sampled_from(CODES), digits)


def place_in_the_library(called: str) -> Place:
    try:
        parsed = phonenumbers.parse(called)
    except phonenumbers.NumberParseException:
        return None, None
    return parsed.country_code, phonenumbers.region_code_for_number(parsed)


def toll_free_in_the_library(called: str) -> bool:
    for code in CODES:
        if called.startswith(f"+{code}"):
            region = phonenumbers.region_code_for_country_code(code)
            plan = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
            assert plan is not None
            pattern = plan.toll_free and plan.toll_free.national_number_pattern
            return bool(pattern and re.fullmatch(pattern, called.removeprefix(f"+{code}")))
    return False


def kind_as_in_the_library(called: str) -> NumberKind:
    """The kind of a number, once it is found to be what the library says."""
    kind = KINDS[called]
    if toll_free_in_the_library(called):
        assert (kind.toll_free, kind.calling_code, kind.region) == (True, None, None), called
    else:
        assert (kind.toll_free, kind.calling_code, kind.region) == (False, *place_in_the_library(called)), (
            called
        )
    assert kind.international == called.startswith("+")
    assert kind.short_code == (called if len(called) <= 8 else "")
    return kind


def class_in_the_library(called: str, terms: AccountTerms) -> UsageClass:
    if toll_free_in_the_library(called):
        return UsageClass("outbound_toll_free")
    code, region = place_in_the_library(called)
    if region in terms.domestic_regions:
        return UsageClass("outbound_conversational")
    if region is None and code == phonenumbers.country_code_for_region(terms.home_country):
        return UsageClass("outbound_conversational", region_unknown=True)
    return UsageClass("outbound_international")


def shared_patterns() -> Iterator[tuple[int, str]]:
    """Calling code and pattern of every kind of number, of all regions that share their code with another."""
    for code, regions in SHARED.items():
        for region in regions:
            for kind in LINES:
                description = getattr(PhoneMetadata.metadata_for_region(region), kind)
                if description is not None and description.national_number_pattern:
                    yield code, description.national_number_pattern


SHARED_PATTERNS = list(shared_patterns())


@st.composite
def near_a_shared_plan(draw: st.DrawFn) -> str:
    """A number that a shared plan describes, or nearly: a prefix before it, a digit too many or too few."""
    code, pattern = draw(st.sampled_from(SHARED_PATTERNS))
    national = draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    prefix = draw(st.sampled_from(["", "", "", "0", "1", "8", "1831", "180020"]))
    ending = draw(st.sampled_from([national, national, national[:-1], national + "0", national + "22"]))
    return f"+{code}{prefix}{ending}"


@pytest.mark.parametrize(
    ("called", "region"),
    [
        ("+12125550100", "US"),
        ("+14165550100", "CA"),
        ("+18765550100", "JM"),
        ("+442071838750", "GB"),
        ("+441481256789", "GG"),
        ("+74951234567", "RU"),
        ("+77172123456", "KZ"),
        ("+390669812345", "VA"),
        ("+4930123456", "DE"),
        ("+87812345678", "001"),
    ],
)
def test_countries_that_share_a_calling_code_are_told_apart(called: str, region: str) -> None:
    assert kind_as_in_the_library(called).region == region


def test_all_numbers_of_a_kind_are_one_object() -> None:
    assert KINDS["+12125550100"] is KINDS["+13055550123"]
    assert KINDS["+12125550100"] is not KINDS["+14165550100"]
    assert KINDS["911"] is not KINDS["933"]
    assert KINDS[None] is KINDS[""]


def test_no_calling_code_begins_with_a_zero() -> None:
    assert is_toll_free("+588001234567")
    assert not is_toll_free("+058001234567")


@pytest.mark.parametrize("line", ["2000000", "5550123", "9999999", "1234567", "0000000", "5550", "55501234"])
def test_a_north_american_number_is_where_its_area_code_says(line: str) -> None:
    for area in range(1000):
        called = f"+1{area:03}{line}"
        kind_as_in_the_library(called)


@pytest.mark.parametrize("kind", PhoneNumberType.values())
def test_an_example_of_every_kind_is_in_its_region(kind: int) -> None:
    for region in phonenumbers.SUPPORTED_REGIONS:
        example = phonenumbers.example_number_for_type(region, kind)
        if example is not None:
            called = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
            for near in (called, called[:-1], called + "0", called + "00"):
                kind_as_in_the_library(near)


@pytest.mark.parametrize("code", phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS)
def test_an_example_of_no_country_is_nowhere(code: int) -> None:
    example = phonenumbers.example_number_for_non_geo_entity(code)
    assert example is not None
    called = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
    assert place_in_the_library(called) == (code, "001")
    assert kind_as_in_the_library(called).region == (None if toll_free_in_the_library(called) else "001")


@pytest.mark.parametrize("mobile", ["8[0-8]+", "9[0-4]+"])
def test_a_number_has_a_kind_by_its_length_too_and_within_the_general_description(mobile: str) -> None:
    kinds: dict[str, Any] = {
        kind: PhoneNumberDesc(f"{place}[0-8]+", possible_length=(2, 4)) for place, kind in enumerate(LINES)
    }
    kinds["general_desc"] = PhoneNumberDesc("[0-9]+[0-7]", possible_length=(2, 3, 4))
    kinds["uan"] = PhoneNumberDesc("0[0-8]+")  # of any length
    kinds["fixed_line"] = PhoneNumberDesc("8[0-8]+", possible_length=(2,))
    kinds["mobile"] = PhoneNumberDesc(mobile, possible_length=(3,))
    plan = PhoneMetadata("ZZ", register=False, **kinds)
    numbers = [f"{number:0{length}}" for length in range(2, 6) for number in range(10**length)]
    found = {number for number in numbers if re.fullmatch(_of_any_kind(plan), number)}
    assert found == {
        number for number in numbers if _number_type_helper(number, plan) != PhoneNumberType.UNKNOWN
    }


@settings(max_examples=500)
@given(any_e164)
def test_any_number_is_where_the_library_finds_it(called: str) -> None:
    kind_as_in_the_library(called)


@settings(max_examples=1000)  # there are some 350 patterns
@given(near_a_shared_plan())
def test_a_number_near_a_shared_plan_is_where_the_library_finds_it(called: str) -> None:
    kind_as_in_the_library(called)


@given(near_a_shared_plan(), st.integers(2, 12))
def test_a_digit_of_another_script_is_that_digit(called: str, begin: int) -> None:
    written = called[:begin] + called[begin:].translate(FULL_WIDTH)
    kind_as_in_the_library(written)
    assert place_in_the_library(written) == place_in_the_library(called)


@given(st.text("+0123456789\u0663\uff14 -x#;", max_size=18).map("+".__add__) | st.text(max_size=18))
def test_what_is_no_e164_is_where_the_library_finds_it(called: str) -> None:
    kind_as_in_the_library(called)


@given(any_e164 | near_a_shared_plan(), st.sampled_from(HOMES))
def test_a_class_is_what_the_library_makes_of_the_number(called: str, home: str) -> None:
    terms = AccountTerms(1, "USD", home, domestic_by_default(home))
    if re.fullmatch(r"\+[0-9]{8,15}", called):  # a shorter one may be an emergency, a longer one no number
        assert usage_class("call", "outbound", called, None, Decimal(60), terms) == class_in_the_library(
            called, terms
        )

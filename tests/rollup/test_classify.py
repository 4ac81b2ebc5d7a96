"""What kind of usage a record is (L7, L9)."""

from __future__ import annotations

from decimal import Decimal

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberType

from rollup.classify import UsageClass, number_class, service_slug, usage_class
from rollup.numbering import is_toll_free
from rollup.terms import AccountTerms
from tests.rollup.builders import US


def outbound(to_number: str | None, seconds: str = "60", terms: AccountTerms = US) -> str:
    return usage_class("call", "outbound", to_number, None, Decimal(seconds), terms).slug


def inbound(to_number: str, seconds: str = "60") -> str:
    return usage_class("call", "inbound", to_number, None, Decimal(seconds), US).slug


@pytest.mark.parametrize("dialled", ["911", "933", "+911", "+1911", "112"])
def test_an_emergency_call_is_one_however_short(dialled: str) -> None:
    assert outbound(dialled, "2") == "outbound_emergency"


def test_the_home_country_decides_what_an_emergency_is() -> None:
    british = AccountTerms(2, "GBP", "GB", frozenset({"GB"}))
    assert outbound("999", terms=british) == "outbound_emergency"
    assert outbound("933", terms=british) == "outbound_conversational"
    assert outbound("999") == "outbound_conversational"


def test_toll_free_counts_both_ways() -> None:
    assert outbound("+18005550199") == "outbound_toll_free"
    assert outbound("18885550199") == "outbound_toll_free"
    assert inbound("+18335550199") == "inbound_toll_free"


def test_puerto_rico_is_domestic_and_jamaica_and_canada_are_not() -> None:
    assert outbound("+17875550100") == "outbound_conversational"
    assert outbound("+18765550100") == "outbound_international"
    assert outbound("+14165550100") == "outbound_international"
    assert outbound("011442071838750") == "outbound_international"


def test_an_account_may_say_that_canada_is_domestic() -> None:
    terms = AccountTerms(1, "USD", "US", US.domestic_regions | {"CA"})
    assert outbound("+14165550100", terms=terms) == "outbound_conversational"


def test_an_unknown_region_under_the_home_calling_code_is_domestic_and_flagged() -> None:
    found = usage_class("call", "outbound", "+19995550100", None, Decimal(60), US)
    assert found == UsageClass("outbound_conversational", region_unknown=True)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ("0", "outbound_conversational"),
        ("0.001", "outbound_short_duration"),
        ("5.999", "outbound_short_duration"),
        ("6", "outbound_conversational"),
    ],
)
def test_a_short_call_is_answered_and_under_six_seconds_before_rounding(seconds: str, expected: str) -> None:
    assert outbound("+12125550100", seconds) == expected


def test_neither_an_international_nor_an_inbound_call_is_of_short_duration() -> None:
    assert outbound("+442071838750", "3") == "outbound_international"
    assert inbound("+12125550100", "3") == "inbound_conversational"


def test_an_inbound_call_is_never_international() -> None:
    assert inbound("+442071838750") == "inbound_conversational"


@pytest.mark.parametrize("called", ["alice", "411", "*97", None])
def test_what_is_no_phone_number_can_only_be_reached_at_home(called: str | None) -> None:
    assert outbound(called) == "outbound_conversational"


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("caller_id_lookup", "caller_id_lookup"),
        ("Spam Prevention", "spam_prevention"),
        ("call_recording", "call_recording"),
        ("Fax-2-Mail", "fax_2_mail"),
        ("наше", "u43du430u448u435"),
        ("outbound_emergency", "service_outbound_emergency"),
    ],
)
def test_another_service_keeps_its_own_name(service: str, expected: str) -> None:
    assert usage_class(service, "outbound", "911", None, Decimal(3), US).slug == expected


@given(st.text(min_size=1, max_size=64))
def test_no_service_is_ever_lost(service: str) -> None:
    slug = service_slug(service)
    assert slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert service_slug(slug) == slug


@given(st.text(min_size=1, max_size=64), st.sampled_from(["inbound", "outbound"]))
def test_whatever_was_dialled_has_a_class(to_number: str, direction: str) -> None:
    slug = usage_class("call", direction, to_number, None, Decimal(60), US).slug
    assert slug.startswith(direction)


@pytest.mark.parametrize("kind", range(11))
def test_toll_free_is_what_the_numbering_plans_say(kind: int) -> None:
    for region in phonenumbers.SUPPORTED_REGIONS:
        example = phonenumbers.example_number_for_type(region, kind)
        if example is not None:
            number = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
            expected = phonenumbers.number_type(example) == PhoneNumberType.TOLL_FREE
            assert is_toll_free(number) == expected, number


def test_a_number_is_held_as_local_or_toll_free() -> None:
    assert number_class("+12125550100") == "number_local"
    assert number_class("+18445550100") == "number_toll_free"
    assert number_class("+80012345678") == "number_toll_free"

"""Which number a switch meant, whatever it wrapped around it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.numbers import dialled, number_in


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+12125550100", "+12125550100"),
        ("tel:+1-212-555-0100", "+12125550100"),
        ("TEL:+1(212)555-0100;ext=7", "+12125550100"),
        ("sip:+12125550100@example.com;user=phone", "+12125550100"),
        ("<sip:+12125550100@[2001:db8::1]:5060;user=phone>;tag=1", "+12125550100"),
        ('"Pat <Example>" <sips:+12125550100:secret@example.com>', "+12125550100"),
        ("sip:+12125550100;npdi;rn=+12125550199@example.com", "+12125550100"),
        ("+12125550100;npdi;rn=+12125550199", "+12125550100"),
        ("sip:%2B12125550100@example.com", "+12125550100"),
        ("00442079460123", "+442079460123"),
        ("011442079460123", "+442079460123"),
        ("011 44 (20) 7946-0123", "+442079460123"),
        ("(212) 555-0100", "+12125550100"),
        ("1.212.555.0100", "+12125550100"),
        ("911", "911"),
        ("sip:911@example.com", "911"),
        ("alice", "alice"),
    ],
)
def test_a_number_is_read_out_of_what_it_is_written_in(written: str, number: str) -> None:
    inner = number_in(written)
    assert inner is not None
    assert dialled(inner, "US") == number


@pytest.mark.parametrize("written", ["", "<null>", " <NULL> ", "(null)", "sip:example.com", "tel:", "<>"])
def test_nothing_is_nothing(written: str) -> None:
    assert number_in(written) is None


@pytest.mark.parametrize(
    ("written", "country", "number"),
    [
        ("00442079460123", "GB", "+442079460123"),
        ("00442079460123", "DE", "+442079460123"),
        ("0011442079460123", "AU", "+442079460123"),
        ("00", "US", "00"),
        ("000", "AU", "000"),
        ("0012", "US", "0012"),
    ],
)
def test_two_zeros_mean_abroad_where_they_can_mean_nothing_else(
    written: str, country: str, number: str
) -> None:
    assert dialled(written, country) == number


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_has_a_number_or_none_and_settles(written: str) -> None:
    once = number_in(written)
    assert once is None or once == once.strip() != ""

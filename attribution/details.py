"""What an account and a tenant must say of themselves before they exist; anything less is refused with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final, TypeVar

import phonenumbers

from schemas.network import Network, network
from schemas.numbers import e164

_CODE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_OPTIONAL: Final = frozenset({"address_line2"})
_US_DOMESTIC: Final = ("US", "PR", "VI", "GU", "AS", "MP")
field_length_max: Final = 500


class RefusedChangeError(Exception):
    """A change to the directory that must not be made; the message tells a person why. Nothing was written."""


class UnknownNameError(RefusedChangeError):
    """No account or tenant has that name; the message names a near match where there is one."""


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """An account as it is made; all fields required.

    `code`: its handle, written like an Account ID. `currency`: ISO 4217. `home_country` and `domestic_regions`: ISO
    3166 regions, for dialling (A11) and for what is domestic (L9); without regions, the home country's usual ones.
    """

    code: str
    name: str
    currency: str
    home_country: str
    domestic_regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TenantDetails:
    """What is known of a tenant; all fields required but `address_line2`. `country`: ISO 3166, two letters."""

    name: str
    contact_name: str
    billing_email: str
    phone: str
    address_line1: str
    city: str
    region: str
    postal_code: str
    country: str
    address_line2: str = ""


def checked_account(details: AccountDetails) -> AccountDetails:
    """The account's details, trimmed, with its regions filled in.

    Raises:
        RefusedChangeError: a field is missing or impossible.
    """
    trimmed = _trimmed(details)
    home = trimmed.home_country.upper()
    regions = tuple(dict.fromkeys(region.strip().upper() for region in details.domestic_regions))
    checked = AccountDetails(
        code=checked_code(trimmed.code, "account code"),
        name=trimmed.name,
        currency=trimmed.currency.upper(),
        home_country=home,
        domestic_regions=regions or (_US_DOMESTIC if home == "US" else (home,)),
    )
    if _CURRENCY.fullmatch(checked.currency) is None:
        raise RefusedChangeError(f"currency {details.currency!r} is not a three-letter ISO 4217 code")
    for region in (home, *checked.domestic_regions):
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise RefusedChangeError(f"{region!r} is not a two-letter ISO 3166 region with phone numbers")
    return checked


def checked_details(details: TenantDetails) -> TenantDetails:
    """The tenant's details, trimmed.

    Raises:
        RefusedChangeError: a field is missing or impossible.
    """
    trimmed = _trimmed(details)
    if _EMAIL.fullmatch(trimmed.billing_email) is None:
        raise RefusedChangeError(f"billing_email {trimmed.billing_email!r} is not an e-mail address")
    if _COUNTRY.fullmatch(trimmed.country) is None:
        raise RefusedChangeError(f"country {trimmed.country!r} is not a two-letter ISO 3166 code in capitals")
    return trimmed


def checked_code(code: str, what: str = "Account ID") -> str:
    """An Account ID, which must come without blanks around it: it is matched exactly (A5).

    Raises:
        RefusedChangeError: it is empty, too long, or has a character that no header should have to carry.
    """
    if not code:
        raise RefusedChangeError(f"{what} is missing")
    if _CODE.fullmatch(code) is None:
        raise RefusedChangeError(
            f"{what} {code!r} may hold only letters, digits, '.', '-' and '_', and at most 128 of them"
        )
    return code


def checked_number(text: str, home_country: str) -> str:
    """A number in E.164, read with the account's home country (A11).

    Raises:
        RefusedChangeError: it is no possible phone number; short codes are nobody's asset.
    """
    try:
        return e164(text, home_country)
    except ValueError as error:
        raise RefusedChangeError(str(error)) from None


def checked_network(text: str) -> Network:
    """A network in CIDR form, or one address.

    Raises:
        RefusedChangeError: it is neither, or has bits set to the right of its prefix.
    """
    try:
        return network(text)
    except ValueError as error:
        raise RefusedChangeError(str(error)) from None


_Details = TypeVar("_Details", AccountDetails, TenantDetails)


def _trimmed(details: _Details) -> _Details:
    """The details with blanks around each text removed; refused where a required one is empty."""
    values: dict[str, object] = {}
    for field in fields(details):
        value = getattr(details, field.name)
        values[field.name] = _text(field.name, value) if isinstance(value, str) else value
    return type(details)(**values)  # type: ignore[arg-type] # the same fields, each of its own type


def _text(name: str, value: str) -> str:
    # an Account ID is never repaired: who wrote a blank into it would look for it with one
    text = value if name == "code" else value.strip()
    if not text and name not in _OPTIONAL:
        raise RefusedChangeError(f"{name} is missing")
    if len(text) > field_length_max:
        raise RefusedChangeError(f"{name} is longer than {field_length_max} characters")
    if not text.isprintable():
        raise RefusedChangeError(f"{name} holds a control character")
    return text

"""Who the demo's carrier serves: two accounts, their tenants, assets with history, tariffs and billing profiles.

Numbers are from ranges that are never given to anyone, addresses from those for documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

from invoicing.profile import BillingProfile
from schemas.periods import Period

RESELLER: Final = "northstar"
ABROAD: Final = "rheinfunk"


@dataclass(frozen=True, slots=True)
class SampleAccount:
    """An account; `stripe_account` is None where it sends no invoices (phantom fees have no price in its currency)."""

    code: str
    name: str
    currency: str
    home_country: str
    stripe_account: str | None


@dataclass(frozen=True, slots=True)
class SampleTenant:
    """A tenant, how much of its account's traffic is its (`share`), its numbers and its own addresses.

    `profile` is None where it is not billed.
    """

    account: str
    code: str
    name: str
    share: int
    made_at: datetime
    local: tuple[str, ...] = ()
    toll_free: tuple[str, ...] = ()
    dedicated: tuple[str, ...] = ()
    profile: BillingProfile | None = None


@dataclass(frozen=True, slots=True)
class SampleNumber:
    """A number's assignment in [`made_at`, `ended_at`)."""

    number: str
    account: str
    tenant: str | None
    made_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SampleNetwork:
    """A network: dedicated to `tenant`, else shared, with an optional default."""

    network: str
    account: str
    tenant: str | None = None
    default_tenant: str | None = None


@dataclass(frozen=True, slots=True)
class SampleTariff:
    """What the carrier charges the account for a class."""

    account: str
    usage_class: str
    unit: Literal["minute", "event", "month"]
    cost: Decimal
    prefix: str = ""
    first_seconds: int = 1
    next_seconds: int = 1


@dataclass(frozen=True, slots=True)
class SampleCarrier:
    """Everything that is set up before the first call; `since` is when most of it was."""

    period: Period
    since: datetime
    accounts: tuple[SampleAccount, ...]
    tenants: tuple[SampleTenant, ...]
    numbers: tuple[SampleNumber, ...]
    networks: tuple[SampleNetwork, ...]
    tariffs: tuple[SampleTariff, ...]
    moved_number: str
    moved_at: datetime
    spare_number: str  # an account's, given to no tenant
    newcomer: str  # a tenant that was made in mid-month
    newcomer_at: datetime
    newcomer_number: str  # the account's before, the newcomer's since

    def tenant(self, code: str) -> SampleTenant:
        """The tenant with this Account ID."""
        return next(tenant for tenant in self.tenants if tenant.code == code)


def sample_carrier(period: Period) -> SampleCarrier:
    """The carrier as it stood in a month."""
    since = period.plus(-1).starts_at
    newcomer_at = period.starts_at + timedelta(days=11, hours=9)
    moved_at = period.starts_at + timedelta(days=19)
    tenants = tuple(_tenants(since, newcomer_at))
    moved, spare, newcomers = "+12125550190", "+12125550191", "+12125550192"
    return SampleCarrier(
        period=period,
        since=since,
        accounts=(
            SampleAccount(RESELLER, "Northstar Voice", "USD", "US", "acct_northstar"),
            SampleAccount(ABROAD, "Rheinfunk", "EUR", "DE", None),
        ),
        tenants=tenants,
        numbers=(
            *_own_numbers(tenants),
            SampleNumber(moved, RESELLER, "acme.example.com", since, moved_at),
            SampleNumber(moved, RESELLER, "blue-harbor", moved_at),
            SampleNumber(spare, RESELLER, None, since),
            SampleNumber(newcomers, RESELLER, None, since, newcomer_at),
            SampleNumber(newcomers, RESELLER, "newcomer.example.com", newcomer_at),
        ),
        networks=(
            *(SampleNetwork(ip, each.account, each.code) for each in tenants for ip in each.dedicated),
            *_SHARED,
        ),
        tariffs=tuple(_tariffs()),
        moved_number=moved,
        moved_at=moved_at,
        spare_number=spare,
        newcomer="newcomer.example.com",
        newcomer_at=newcomer_at,
        newcomer_number=newcomers,
    )


SHARED_WITHOUT_DEFAULT: Final = {RESELLER: "198.51.100.{}", ABROAD: "203.0.113.{}"}
SHARED_IPV6: Final = "2001:db8:1::{:x}"
SHARED_WITH_DEFAULT: Final = "198.51.100.{}"  # its upper half, from 128 on
DEFAULT_TENANT: Final = "acme.example.com"
_SHARED: Final = (
    SampleNetwork("198.51.100.0/24", RESELLER),
    SampleNetwork("198.51.100.128/25", RESELLER, default_tenant=DEFAULT_TENANT),
    SampleNetwork("2001:db8:1::/48", RESELLER),
    SampleNetwork("203.0.113.0/26", ABROAD),
)


def _tenants(since: datetime, newcomer_at: datetime) -> Iterator[SampleTenant]:
    def us(code: str, name: str, share: int, serial: int, **more: object) -> SampleTenant:
        local = (f"+1212555{100 + 2 * serial:04d}", f"+1212555{101 + 2 * serial:04d}")
        facts: dict[str, object] = {"made_at": since, "local": local, "profile": _billed(serial), **more}
        return SampleTenant(RESELLER, code, name, share, **facts)  # type: ignore[arg-type]

    # 198.51.100.7 lies inside a shared network, 2001:db8:1:7::/64 too: the longest prefix decides
    yield us("bigcustomer.mypbx.com", "Big Customer", 30, 0, toll_free=("+18005550100",))
    yield us("acme.example.com", "Acme", 16, 1, toll_free=("+18885550101",), dedicated=("192.0.2.10/32",))
    yield us("blue-harbor", "Blue Harbor", 12, 2, dedicated=("198.51.100.7/32", "2001:db8:1:7::/64"))
    yield us("cedar.example.net", "Cedar Clinic", 9, 3, dedicated=("192.0.2.16/28",))
    yield us("delta_logistics", "Delta Logistics", 8, 4, dedicated=("192.0.2.40/32",))
    yield us("elm-street.example.org", "Elm Street School", 7, 5, dedicated=("192.0.2.50/31",))
    yield us("foxglove", "Foxglove Florists", 6, 6)
    yield us("granite.example.com", "Granite Works", 5, 7, toll_free=("+18445550107",))
    yield us("newcomer.example.com", "Newcomer", 4, 8, made_at=newcomer_at, local=())
    yield us("unbilled.example.com", "Unbilled", 3, 9, profile=None)
    yield us("tiny.example.com", "Tiny", 0, 10)
    yield us("silent.example.com", "Silent", 0, 11, profile=_billed_by_events_only())
    yield SampleTenant(
        *(ABROAD, "hafen.example.de", "Hafenkontor", 6, since),
        local=("+493023125001", "+493023125002"),
        dedicated=("203.0.113.9/32",),
    )
    yield SampleTenant(ABROAD, "ufer.example.de", "Uferhaus", 3, since, local=("+493023125003",))


def _own_numbers(tenants: tuple[SampleTenant, ...]) -> Iterator[SampleNumber]:
    for tenant in tenants:
        for number in (*tenant.local, *tenant.toll_free):
            yield SampleNumber(number, tenant.account, tenant.code, tenant.made_at)


def _billed(serial: int) -> BillingProfile:
    """A reseller's price list; each tenant has another billing day."""
    calls = ["inbound_conversational", "outbound_conversational", "outbound_short_duration"]
    return BillingProfile.model_validate(
        {
            "billing_day": 20 + serial,
            "terms_days": 14,
            "currency": "USD",
            "products": [
                {"kind": "flat", "description": "Cloud PBX", "price": "10.00"},
                {
                    "kind": "minutes",
                    "description": "Local calls",
                    "usage_classes": calls,
                    "price": "0.019",
                    "included_minutes": "100",
                },
                {
                    "kind": "minutes",
                    "description": "Toll-free calls",
                    "usage_classes": ["inbound_toll_free"],
                    "price": "0.045",
                },
                {
                    "kind": "cost_plus",
                    "description": "International calls",
                    "usage_classes": ["outbound_international"],
                    "markup_percent": "30",
                },
                {
                    "kind": "service_events",
                    "description": "Caller ID look-ups",
                    "usage_class": "caller_id_lookup",
                    "price": "0.01",
                },
                {
                    "kind": "numbers",
                    "description": "Local numbers",
                    "usage_class": "number_local",
                    "price": "2.00",
                },
                {
                    "kind": "numbers",
                    "description": "Toll-free numbers",
                    "usage_class": "number_toll_free",
                    "price": "4.00",
                },
                {"kind": "peak_channels", "description": "Channels", "price": "5.00"},
            ],
        }
    )


def _billed_by_events_only() -> BillingProfile:
    product = {
        "kind": "service_events",
        "description": "Caller ID look-ups",
        "usage_class": "caller_id_lookup",
        "price": "0.01",
    }
    return BillingProfile.model_validate({"billing_day": 25, "currency": "USD", "products": [product]})


def _tariffs() -> Iterator[SampleTariff]:
    """The same price list for both accounts, each in its currency; no country but two has an international price."""
    abroad = {RESELLER: ("44", "1876"), ABROAD: ("44", "1212")}
    for account in (RESELLER, ABROAD):
        for usage_class, cost in (
            ("inbound_conversational", "0.0060"),
            ("inbound_toll_free", "0.0210"),
            ("outbound_conversational", "0.0095"),
            ("outbound_toll_free", "0.0010"),
            ("outbound_short_duration", "0.0300"),
            ("call_recording", "0.0020"),
        ):
            yield SampleTariff(
                account, usage_class, "minute", Decimal(cost), first_seconds=60, next_seconds=6
            )
        for prefix, cost in zip(abroad[account], ("0.0290", "0.1850"), strict=True):
            yield SampleTariff(account, "outbound_international", "minute", Decimal(cost), prefix, 30, 6)
        yield SampleTariff(account, "caller_id_lookup", "event", Decimal("0.0040"))
        yield SampleTariff(account, "spam_prevention", "event", Decimal("0.0010"))
        yield SampleTariff(account, "number_local", "month", Decimal("0.50"))
        yield SampleTariff(account, "number_toll_free", "month", Decimal("1.25"))

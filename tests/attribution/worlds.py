"""Short ways to say who owns what and what was called, so that a test shows only what matters."""

from __future__ import annotations

from datetime import UTC, datetime

from attribution.attribute import InputRules
from attribution.details import AccountDetails, TenantDetails
from attribution.directory import Account, Changes, Directory, IpAssignment, NumberAssignment, Tenant
from attribution.number_columns import NumberOwners
from schemas import network
from schemas.binary import number_of
from schemas.network import address
from schemas.records import CallRecord, SipEvent, call_record

Owner = tuple[int | None, int | None, int | None]

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
RESELLER, RIVAL = 1, 2
BIG, SMALL, RIVALS_BIG = 11, 12, 21

RULES = InputRules(sip_context=False, home_country="US", edge_addresses=frozenset())
CONTEXT_RULES = InputRules(sip_context=True, home_country="US", edge_addresses=frozenset())


def on(day: int, hour: int = 0, minute: int = 0, second: int = 0, microsecond: int = 0) -> datetime:
    """An instant in October 2026, UTC."""
    return datetime(2026, 10, day, hour, minute, second, microsecond, tzinfo=UTC)


MID_MONTH = on(15)
END_OF_TIME = datetime(2027, 1, 1, tzinfo=UTC)

ACCOUNTS = (
    Account(RESELLER, "reseller", "USD", "US", frozenset({"US"})),
    Account(RIVAL, "rival", "USD", "US", frozenset({"US"})),
)
TENANTS = (
    Tenant(BIG, RESELLER, "bigcustomer.mypbx.com", BEGINNING, None),
    Tenant(SMALL, RESELLER, "small.mypbx.com", BEGINNING, None),
    Tenant(RIVALS_BIG, RIVAL, "rivals.example.com", BEGINNING, None),
)


def number(
    id_: int,
    number_: str,
    tenant_id: int | None,
    made_at: datetime = BEGINNING,
    ended_at: datetime | None = None,
    account_id: int = RESELLER,
) -> NumberAssignment:
    return NumberAssignment(id_, number_, account_id, tenant_id, made_at, ended_at)


def dedicated(id_: int, prefix: str, tenant_id: int, account_id: int = RESELLER) -> IpAssignment:
    return IpAssignment(id_, network.network(prefix), account_id, tenant_id, None, BEGINNING, None)


def shared(id_: int, prefix: str, default: int | None = None, account_id: int = RESELLER) -> IpAssignment:
    return IpAssignment(id_, network.network(prefix), account_id, None, default, BEGINNING, None)


def whose(assignment: NumberAssignment | None) -> Owner:
    """What `each_of` says of a number that an assignment gives away."""
    if assignment is None:
        return None, None, None
    return assignment.id, assignment.account_id, assignment.tenant_id


def each_of(owners: NumberOwners) -> list[Owner]:
    """The assignment, account and tenant of each number."""
    return [
        (number_of(owner), number_of(account), number_of(tenant))
        for owner, account, tenant in zip(*owners, strict=True)
    ]


def directory(
    *assets: NumberAssignment | IpAssignment,
    tenants: tuple[Tenant, ...] = TENANTS,
    as_of: datetime = END_OF_TIME,
) -> Directory:
    rows = Changes(
        accounts=ACCOUNTS,
        tenants=tenants,
        numbers=[asset for asset in assets if isinstance(asset, NumberAssignment)],
        ips=[asset for asset in assets if isinstance(asset, IpAssignment)],
    )
    return Directory.of(as_of, rows)


def inbound(to_number: str, at: datetime = MID_MONTH, **more: object) -> CallRecord:
    return _record(direction="inbound", to_number=to_number, started_at=at, **more)


def outbound(source_ip: str | None, x_tenant: str | None = None, **more: object) -> CallRecord:
    facts = {"to_number": "+442071838750", "started_at": on(15), "call_id": "call-1", **more}
    return _record(direction="outbound", source_ip=source_ip, x_tenant=x_tenant, **facts)


def invite(
    source_ip: str,
    x_tenant: str | None = None,
    cseq: int = 1,
    observed_at: datetime = MID_MONTH,
    call_id: str = "call-1",
) -> SipEvent:
    return SipEvent(
        switch="sbc-1",
        observed_at=observed_at,
        source_ip=address(source_ip),
        call_id=call_id,
        cseq=cseq,
        x_tenant=x_tenant,
    )


def tenant_details(name: str = "Big Customer", city: str = "New York") -> TenantDetails:
    return TenantDetails(
        name=name,
        contact_name="Ada Example",
        billing_email="billing@example.com",
        phone="+12125550100",
        address_line1="1 Example Street",
        city=city,
        region="NY",
        postal_code="10001",
        country="US",
    )


def account_details(code: str = "reseller") -> AccountDetails:
    return AccountDetails(code=code, name=f"{code} Inc.", currency="USD", home_country="US")


def _record(**facts: object) -> CallRecord:
    return call_record({"id": "1", "switch": "sbc-1", "service": "call", **facts})

"""The product and the auditor, told the same story, come to the same end: whatever arrives, in whatever order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests import auditor
from tests.world import World

SINCE = datetime(2026, 9, 1, tzinfo=UTC)
CHANGE = datetime(2026, 10, 12, 9, 30, tzinfo=UTC)
MONTH_END = datetime(2026, 11, 1, tzinfo=UTC)
RECEIVED = datetime(2026, 11, 2, 12, tzinfo=UTC)
WAIT = timedelta(seconds=3)
_examples = count(1)

CARRIER = auditor.Carrier(
    accounts=[auditor.Account("reseller"), auditor.Account("berlin", "EUR", "DE", frozenset({"DE"}))],
    tenants=[
        auditor.Tenant("reseller", "big", SINCE),
        auditor.Tenant("reseller", "small", CHANGE),
        auditor.Tenant("berlin", "eins", SINCE),
    ],
    numbers=[
        auditor.Number("+12125550100", "reseller", "big", SINCE, CHANGE),
        auditor.Number("+12125550100", "reseller", "small", CHANGE),
        auditor.Number("+12125550101", "reseller", None, SINCE, CHANGE),
        auditor.Number("+18005550100", "reseller", "big", SINCE),
        auditor.Number("+493023125001", "berlin", "eins", SINCE),
    ],
    ips=[
        auditor.Ip("192.0.2.0/24", "reseller", None, None, SINCE),
        auditor.Ip("192.0.2.7/32", "reseller", "big", None, SINCE, CHANGE),
        auditor.Ip("198.51.100.0/24", "reseller", None, "big", SINCE),
        auditor.Ip("2001:db8::/32", "berlin", None, None, SINCE),
        auditor.Ip("2001:db8:7::/48", "berlin", "eins", None, CHANGE),
    ],
    tariffs=[
        auditor.Tariff(
            "reseller", "outbound_conversational", Decimal("0.017"), first_seconds=60, next_seconds=6
        ),
        auditor.Tariff("reseller", "outbound_international", Decimal("0.10"), prefix="44"),
        auditor.Tariff("reseller", "outbound_international", Decimal("0.30"), "minute", "4420", CHANGE),
        auditor.Tariff("reseller", "inbound_conversational", Decimal("0.01")),
        auditor.Tariff("reseller", "caller_id_lookup", Decimal("0.004"), "event"),
    ],
    oldest_month="2026-09",
    sip_wait=WAIT,
)
ADDRESSES = (
    "192.0.2.7",
    "::ffff:192.0.2.7",
    "192.0.2.9",
    "198.51.100.1",
    "203.0.113.1",
    "2001:db8:7::1",
    "2001:db8::1",
)
NAMES = (None, "big", " small ", "Big", "eins", "")
STARTS = (
    CHANGE - timedelta(microseconds=1),
    CHANGE,
    MONTH_END - timedelta(milliseconds=1),
    MONTH_END,
    MONTH_END + timedelta(minutes=4),
    datetime(2026, 9, 30, 23, 57, tzinfo=UTC),
    datetime(2026, 8, 31, 23, 59, tzinfo=UTC),
)
RAW = "{method} sip:x@example.com SIP/2.0\r\nFrom: <sip:y@example.com>;tag=1\r\nTo: <sip:x@example.com>{tag}\r\ni: {call_id}\r\nCSeq: {cseq} {method}\r\n{tenant}\r\n"


def _mostly(good: list[Any], bad: list[Any]) -> st.SearchStrategy[Any]:
    """A good value nearly always: one bad field is enough to spoil a record."""
    return st.integers(0, 30).flatmap(lambda dice: st.sampled_from(bad if dice == 17 else good))


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    at = draw(st.sampled_from(STARTS))
    answered = draw(st.sampled_from([None, at, at + timedelta(seconds=3.5)]))
    ended = draw(
        _mostly([None, at + timedelta(seconds=9)], [at + timedelta(hours=25), at - timedelta(seconds=1)])
    )
    said = {
        "id": draw(_mostly([""], [None])),
        "service": draw(st.sampled_from(["call", "Call", "caller_id_lookup", "call recording"])),
        "direction": draw(_mostly(["inbound", "outbound", "outbound"], ["sideways"])),
        "call_id": draw(st.sampled_from(["x", "y", None])),
        "to_number": draw(
            st.sampled_from(
                [
                    "+12125550100",
                    "(212) 555-0101",
                    "+18005550100",
                    "+493023125001",
                    "911",
                    "112",
                    "+442079460000",
                    "+442079460000",
                    "+18765550100",
                    "+33199001234",
                    None,
                ]
            )
        ),
        "source_ip": draw(_mostly([*ADDRESSES, None], ["192.0.2.300"])),
        "x_tenant": draw(st.sampled_from(NAMES)),
        "started_at": at.isoformat(),
        "answered_at": answered and answered.isoformat(),
        "ended_at": ended and ended.isoformat(),
        "answered_seconds": draw(_mostly([None, "0", "5.999", 6, "61.5"], ["-1", "90000"])),
        "billed_seconds": draw(_mostly([None, 0, 66], [-6, "66"])),
        "cost": draw(_mostly([None, "0.0255", "0.0000005"], ["-1", 0.5])),
        "currency": draw(_mostly([None, "USD"], ["EUR"])),
        "hangup_cause": draw(st.sampled_from(["16", "17"])),
    }
    return {name: value for name, value in said.items() if value is not None}


@st.composite
def invites(draw: st.DrawFn) -> dict[str, Any]:
    at = draw(st.sampled_from(STARTS)) + draw(
        st.sampled_from([timedelta(0), timedelta(seconds=-61), timedelta(seconds=5)])
    )
    said: dict[str, Any] = {"observed_at": at, "source_ip": draw(st.sampled_from(ADDRESSES))}
    call_id, name = draw(st.sampled_from(["x", "y"])), draw(st.sampled_from(NAMES))
    method = draw(st.sampled_from(["INVITE", "INVITE", "INVITE", "REGISTER"]))
    cseq, tag = draw(st.integers(1, 2)), draw(st.sampled_from([None, None, None, "t"]))
    if draw(st.booleans()):
        return said | {"text": {"method": method, "call_id": call_id, "cseq": cseq, "tag": tag, "name": name}}
    headers = {"X-TENANT": name} if name is not None else {}
    return said | {"call_id": call_id, "method": method, "cseq": cseq, "to_tag": tag, "headers": headers}


@dataclass(frozen=True)
class Again:
    """An earlier record (the one so many records back, round and round) once more, with some fields changed."""

    back: int
    change: dict[str, Any]


agains = st.builds(
    Again,
    st.integers(1, 6),
    st.sampled_from(
        [
            {},
            {"hangup_cause": "99"},
            {"billed_seconds": 120},
            {"cost": "7"},
            {"started_at": (MONTH_END + timedelta(minutes=4)).isoformat()},
        ]
    ),
)
messages = st.integers(0, 30).flatmap(
    lambda dice: st.sampled_from([b"{", None]) if dice == 17 else (calls(), invites(), agains)[dice % 3]
)
pauses = st.sampled_from([timedelta(0), timedelta(milliseconds=1), timedelta(seconds=2), WAIT])
stories = st.lists(st.tuples(messages, pauses), min_size=1, max_size=16)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=stories)
def test_product_and_auditor_come_to_the_same_end(
    database: Engine, story: list[tuple[Any, timedelta]]
) -> None:
    world = furnished(database)
    name = f"switch-{next(_examples)}"
    happenings = told_under(story, name)
    before = Counter(world.outcomes())
    for each in happenings:
        world.receive(value_of(each), at=each.received_at, topic=each.topic)
    world.resolve()
    report = auditor.audit(CARRIER, happenings)
    assert Counter(world.outcomes()) - before == Counter(report.outcomes())
    assert ledger_of(world, name) == sorted(map(posted_row, with_records(report, happenings)), key=str)


@example(sizes=[12])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 6), min_size=1))
def test_how_messages_fall_into_batches_changes_nothing(database: Engine, sizes: list[int]) -> None:
    world = furnished(database)
    name = f"switch-{next(_examples)}"
    story = [(_plain(serial), timedelta(0)) for serial in range(12)]
    happenings = told_under(story, name)
    before = Counter(world.outcomes())
    left = list(happenings)
    for size in [*sizes, len(left)]:
        batch, left = left[:size], left[size:]
        if batch:
            world.receive(*map(value_of, batch), at=RECEIVED)
    assert Counter(world.outcomes()) - before == Counter(auditor.audit(CARRIER, happenings).outcomes())


def _plain(serial: int) -> dict[str, Any]:
    """Resends, conflicts and new records in turn."""
    return {
        "id": str(serial // 4),
        "service": "call",
        "direction": "inbound",
        "to_number": "+12125550100",
        "started_at": CHANGE.isoformat(),
        "billed_seconds": 60 if serial % 4 < 3 else 120,
        "cost": "0.01",
    }


def furnished(database: Engine) -> World:
    world = World(database, sip_wait_seconds=WAIT.total_seconds())
    if world.query("select from accounts"):
        return world
    accounts = {
        each.code: world.account(each.code, each.currency, each.home_country, ",".join(each.domestic_regions))
        for each in CARRIER.accounts
    }
    tenants: dict[str | None, int | None] = {None: None}
    for tenant in CARRIER.tenants:
        tenants[tenant.code] = world.tenant(
            accounts[tenant.account], tenant.code, tenant.made_at, tenant.ended_at
        )
    for number in CARRIER.numbers:
        world.number(
            number.number, accounts[number.account], tenants[number.tenant], number.made_at, number.ended_at
        )
    for ip in CARRIER.ips:
        owner, default = tenants[ip.tenant], tenants[ip.default_tenant]
        world.ip(ip.network, accounts[ip.account], owner, default, ip.made_at, ip.ended_at)
    for tariff in CARRIER.tariffs:
        world.tariff(
            accounts[tariff.account],
            tariff.usage_class,
            str(tariff.cost),
            tariff.unit,
            prefix=tariff.prefix,
            first=tariff.first_seconds,
            next=tariff.next_seconds,
            effective_at=tariff.effective_at,
        )
    world.run("2026-09", "2026-12")
    world.receive(None, at=RECEIVED, topic="sip.raw")  # a partition that was never read holds everything up
    return world


def told_under(story: list[tuple[Any, timedelta]], switch: str) -> list[auditor.Received]:
    """The story under a switch and Call-IDs of its own, each INVITE seen at an instant of its own."""
    at, received = RECEIVED, []
    records: list[dict[str, Any]] = []
    for serial, (said, later) in enumerate(story):
        at += later
        match said:
            case Again(back, change) if records:
                value: Any = {**records[-1 - back % len(records)], **change}
            case Again():
                continue
            case dict() if "observed_at" in said:
                value = _sip(said, switch, serial)
            case dict():
                value = _record(said, switch, serial)
                records.append(value)
            case _:
                value = said
        is_sip = isinstance(value, dict) and "observed_at" in value
        received.append(auditor.Received("sip.raw" if is_sip else "calls.raw", at, value))
    return received


def _record(said: dict[str, Any], switch: str, serial: int) -> dict[str, Any]:
    record = {**said, "switch": switch}
    if "call_id" in said:
        record["call_id"] = f"{switch}-{said['call_id']}"
    return record if said.get("id") is None else {**record, "id": str(said["id"] or serial)}


def _sip(said: dict[str, Any], switch: str, serial: int) -> dict[str, Any]:
    observed_at = (said["observed_at"] + timedelta(microseconds=serial)).isoformat()
    message = {**said, "switch": switch, "observed_at": observed_at}
    if "text" in said:
        return {**message, "raw": _raw(switch, **message.pop("text"))}
    return {**message, "call_id": f"{switch}-{said['call_id']}"}


def _raw(switch: str, *, method: str, call_id: str, cseq: int, tag: str | None, name: str | None) -> str:
    tenant = "" if name is None else f"x-Tenant :\r\n\t{name}\r\n"
    return RAW.format(
        method=method,
        tag=f";tag={tag}" if tag else "",
        call_id=f"{switch}-{call_id}",
        cseq=cseq,
        tenant=tenant,
    )


def value_of(each: auditor.Received) -> dict[str, Any] | bytes | None:
    return dict(each.value) if isinstance(each.value, dict) else each.value  # type: ignore[return-value]


def with_records(
    report: auditor.Report, happenings: list[auditor.Received]
) -> list[tuple[auditor.Verdict, str]]:
    return [
        (verdict, each.value["id"])  # type: ignore[index,call-overload]
        for verdict, each in zip(report.verdicts, happenings, strict=True)
        if verdict.outcome == "posted"
    ]


def posted_row(posted: tuple[auditor.Verdict, str]) -> tuple[Any, ...]:
    verdict, record_id = posted
    return (
        *(
            record_id,
            verdict.usage_month,
            verdict.period,
            verdict.account,
            verdict.tenant,
            verdict.attribution or None,
        ),
        *(verdict.header_ignored, verdict.usage_class, verdict.answered, verdict.answered_seconds),
        *(verdict.billed_seconds, verdict.cost, verdict.currency),
    )


def ledger_of(world: World, switch: str) -> list[tuple[Any, ...]]:
    rows = world.query(
        "select u.record_id, to_char(u.started_date, 'YYYY-MM'), to_char(u.period, 'YYYY-MM'), a.code, t.code, u.reason, "
        "u.header_ignored, u.usage_class, u.answered, u.answered_seconds, u.billed_seconds, u.cost, u.currency "
        "from usage_records u left join accounts a on a.id = u.account_id left join tenants t on t.id = u.tenant_id "
        "where u.switch = :switch",
        switch=switch,
    )
    return sorted((tuple(row) for row in rows), key=str)

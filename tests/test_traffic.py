"""The sample traffic means what it says: the auditor, which knows only the rules, comes to the same counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from deploy.sample.carrier import SampleCarrier, sample_carrier
from deploy.sample.expected import Group, Owner, Usage
from deploy.traffic import Traffic, generate
from schemas.periods import Period
from tests import auditor

PERIOD = Period(2026, 10)
PUBLISHED_AT = datetime(2026, 11, 22, 9, tzinfo=UTC)
SIP_WAIT = timedelta(seconds=3)


def audited_carrier(carrier: SampleCarrier) -> auditor.Carrier:
    regions = {"US": auditor.US_REGIONS, "DE": frozenset({"DE"})}
    return auditor.Carrier(
        accounts=[
            auditor.Account(each.code, each.currency, each.home_country, regions[each.home_country])
            for each in carrier.accounts
        ],
        tenants=[auditor.Tenant(each.account, each.code, each.made_at) for each in carrier.tenants],
        numbers=[
            auditor.Number(each.number, each.account, each.tenant, each.made_at, each.ended_at)
            for each in carrier.numbers
        ],
        ips=[
            auditor.Ip(each.network, each.account, each.tenant, each.default_tenant, carrier.since)
            for each in carrier.networks
        ],
        tariffs=[
            auditor.Tariff(
                each.account,
                each.usage_class,
                each.cost,
                each.unit,
                each.prefix,
                carrier.since,
                each.first_seconds,
                each.next_seconds,
            )
            for each in carrier.tariffs
        ],
        oldest_month=str(carrier.period),
        sip_wait=SIP_WAIT,
    )


def received(groups: list[Group], since: datetime) -> list[auditor.Received]:
    """Groups as Kafka would stamp them: a second apart, their messages a millisecond."""
    return [
        auditor.Received(sent.topic, since + timedelta(seconds=place, milliseconds=order), sent.value)
        for place, group in enumerate(groups)
        for order, sent in enumerate(group.messages)
    ]


@pytest.fixture(scope="module")
def carrier() -> SampleCarrier:
    return sample_carrier(PERIOD)


@pytest.fixture(scope="module")
def traffic(carrier: SampleCarrier) -> Traffic:
    return generate(carrier, calls=600, seed=7)


@pytest.fixture(scope="module")
def report(carrier: SampleCarrier, traffic: Traffic) -> auditor.Report:
    happenings: list[auditor.Received | auditor.Sealed] = [
        *received(list(traffic.month), PUBLISHED_AT),
        auditor.Sealed(str(PERIOD)),
        *received(list(traffic.late), PUBLISHED_AT + timedelta(days=1)),
    ]
    return auditor.audit(audited_carrier(carrier), happenings)


def test_every_message_becomes_what_was_meant_by_it(traffic: Traffic, report: auditor.Report) -> None:
    assert report.outcomes() == dict(traffic.expected.outcomes)


def test_usage_comes_to_the_sums_that_were_meant(traffic: Traffic, report: auditor.Report) -> None:
    assert _usage(report, str(PERIOD)) == dict(traffic.expected.usage)
    assert _usage(report, str(PERIOD.next())) == dict(traffic.expected.late_usage)


def test_what_has_no_tenant_is_told_why(traffic: Traffic, report: auditor.Report) -> None:
    assert (
        Counter(each.attribution for each in report.verdicts if each.attribution)
        == traffic.expected.unattributed
    )
    ignored = Counter(each.header_ignored for each in report.verdicts if each.header_ignored)
    assert ignored == traffic.expected.headers_ignored


def test_the_same_seed_gives_the_same_bytes(carrier: SampleCarrier, traffic: Traffic) -> None:
    again = generate(carrier, calls=600, seed=7)
    assert (again.month, again.late) == (traffic.month, traffic.late)
    assert generate(carrier, calls=600, seed=8).month != traffic.month


def _usage(report: auditor.Report, period: str) -> dict[Owner, Usage]:
    usage: dict[Owner, Usage] = defaultdict(Usage)
    for group, sums in report.totals().items():
        if group.period == period:
            total = usage[Owner(group.account, group.tenant)]
            total.attempts += sums.attempts
            total.calls += sums.calls
            total.answered_seconds += sums.answered_seconds
            total.billed_seconds += sums.billed_seconds
            total.cost += sums.cost
    return dict(usage)

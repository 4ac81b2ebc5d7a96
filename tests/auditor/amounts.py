"""How much it is, of what, and in which month (L5-L9)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Any

import phonenumbers

from tests.auditor.owners import dialled
from tests.auditor.words import (
    US_REGIONS,
    Account,
    Carrier,
    Input,
    Owner,
    Received,
    Tariff,
    Verdict,
    month_of,
)


def posted(
    carrier: Carrier,
    source: Input,
    record: dict[str, Any],
    message: Received,
    owner: Owner,
    sealed: set[str],
) -> Verdict:
    unowned = Account(
        "",
        "",
        source.home_country,
        US_REGIONS if source.home_country == "US" else frozenset({source.home_country}),
    )
    account = next((each for each in carrier.accounts if each.code == owner.account), unowned)
    at = record["started_at"]
    refused = refused_at_sight(carrier, record, message, account.currency)
    if refused is not None:
        return refused
    seconds = _answered_seconds(record)
    usage_class = _usage_class(record, seconds, account)
    tariff = _tariff(carrier, owner.account, usage_class, record, account)
    billed = _billed_seconds(record, seconds, tariff)
    cost = _cost(record, usage_class, billed, owner, tariff)
    if cost is None:
        return Verdict("quarantined", "unrated")
    return Verdict(
        "posted",
        period=_posting_month(at, sealed),
        usage_month=month_of(at),
        account=owner.account,
        tenant=owner.tenant,
        attribution=owner.attribution,
        header_ignored=owner.header_ignored,
        usage_class=usage_class,
        answered="answered_at" in record or seconds > 0,
        answered_seconds=seconds,
        billed_seconds=billed,
        cost=cost,
        currency=account.currency or record.get("currency") or "XXX",
    )


def refused_at_sight(
    carrier: Carrier, record: dict[str, Any], message: Received, currency: str = ""
) -> Verdict | None:
    """What can be told of a record before its owner is known (L6); with an account's currency, that too."""
    if _implausible(record, currency):
        return Verdict("quarantined", "implausible")
    at = record["started_at"]
    if message.received_at - at > timedelta(days=400) or month_of(at) < carrier.oldest_month:
        return Verdict("quarantined", "too_old")
    return None


def _implausible(record: dict[str, Any], currency: str) -> bool:
    started, answered, ended = record["started_at"], record.get("answered_at"), record.get("ended_at")
    day = timedelta(hours=24)
    amounts = [record.get(name, 0) for name in ("answered_seconds", "billed_seconds", "cost")]
    return (
        (ended is not None and answered is not None and ended < answered)
        or (ended is not None and ended < started)
        or any(amount < 0 for amount in amounts)
        or (ended is not None and ended - min(started, answered or started) > day)
        or max(amounts[:2]) > day.total_seconds()
        or bool(currency and record.get("currency") not in {None, currency})
    )


def _answered_seconds(record: dict[str, Any]) -> Decimal:
    if "answered_seconds" in record:
        return Decimal(record["answered_seconds"])
    if "answered_at" not in record or "ended_at" not in record:
        return Decimal(0)
    return Decimal((record["ended_at"] - record["answered_at"]) // timedelta(microseconds=1)) / 1_000_000


def _usage_class(record: dict[str, Any], seconds: Decimal, account: Account) -> str:
    service = re.sub(r"[^a-z0-9]+", "_", record["service"].lower()).strip("_")
    if service != "call":
        return service
    called = dialled(record.get("to_number") or "", account.home_country)
    if record["direction"] == "inbound":
        return "inbound_toll_free" if is_toll_free(called) else "inbound_conversational"
    if _is_emergency(called, account.home_country):
        return "outbound_emergency"
    if is_toll_free(called):
        return "outbound_toll_free"
    if not _is_domestic(called, account):
        return "outbound_international"
    return "outbound_short_duration" if 0 < seconds < 6 else "outbound_conversational"


def _is_emergency(called: str, home: str) -> bool:
    code = str(phonenumbers.country_code_for_region(home))
    spelt = {called} if not called.startswith("+") else {called[1:], called[1:].removeprefix(code)}
    return any(phonenumbers.is_emergency_number(each, home) for each in spelt) or (
        code == "1" and "933" in spelt
    )


def is_toll_free(called: str) -> bool:
    if not called.startswith("+"):
        return False
    kind = phonenumbers.number_type(phonenumbers.parse(called))
    return bool(kind == phonenumbers.PhoneNumberType.TOLL_FREE)


def _is_domestic(called: str, account: Account) -> bool:
    if not called.startswith("+"):
        return True
    parsed = phonenumbers.parse(called)
    region = phonenumbers.region_code_for_number(parsed)
    if region is None:
        return bool(parsed.country_code == phonenumbers.country_code_for_region(account.home_country))
    return region in account.domestic_regions


def _tariff(
    carrier: Carrier, owner: str | None, usage_class: str, record: dict[str, Any], account: Account
) -> Tariff | None:
    """The longest prefix in force, and of one prefix the latest (L8)."""
    called = dialled(record.get("to_number") or "", account.home_country).removeprefix("+")
    fitting = [
        each
        for each in carrier.tariffs
        if each.account == owner
        and each.usage_class == usage_class
        and called.startswith(each.prefix)
        and each.effective_at <= record["started_at"]
    ]
    return max(fitting, key=lambda each: (len(each.prefix), each.effective_at), default=None)


def _billed_seconds(record: dict[str, Any], seconds: Decimal, tariff: Tariff | None) -> int:
    if "billed_seconds" in record:
        return int(record["billed_seconds"])
    whole = int(seconds.to_integral_value(ROUND_CEILING))
    if tariff is None or whole == 0:
        return whole
    billed = tariff.first_seconds
    while billed < whole:
        billed += tariff.next_seconds
    return billed


def _cost(
    record: dict[str, Any], usage_class: str, billed: int, owner: Owner, tariff: Tariff | None
) -> Decimal | None:
    if "cost" in record:
        return _six_decimals(record["cost"])
    is_free = usage_class == "outbound_emergency" or (billed == 0 and record["service"].lower() == "call")
    if is_free or owner.account is None:
        return Decimal(0)
    if tariff is None or tariff.unit == "month":
        return None
    return _six_decimals(tariff.cost if tariff.unit == "event" else billed * tariff.cost / 60)


def _posting_month(at: datetime, sealed: set[str]) -> str:
    month = month_of(at)
    if month not in sealed:
        return month
    year, number = map(int, max(sealed).split("-"))  # months seal in order: the oldest open one comes next
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def _six_decimals(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP)

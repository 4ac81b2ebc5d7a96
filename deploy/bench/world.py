"""What the benchmarks bill: one account with a thousand tenants, skewed traffic, and its records as JSON lines."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta

from sqlalchemy import Engine, text

from schemas.periods import Period, utc_text

_SKEW = 1.1  # exponent of the tenants' share of traffic: a few large ones, many small
_SPAN = timedelta(days=28)
_ANSWERED = 0.8
_STRANGERS = 0.5  # of whom nothing was heard before
_REGULARS = 20_000
_AREAS = (205, 213, 303, 305, 312, 404, 415, 503, 512, 602, 617, 646, 702, 713, 786, 808, 907, 954, 416, 787)
_RATES = (0.0049, 0.0085, 0.0255)  # a minute


def make_directory(engine: Engine, tenants: int, first_period: Period) -> None:
    """An account, its tenants with one number and one IP each, a tariff, and the months; then the bootstrap is over."""
    since = first_period.plus(-2).starts_at
    with engine.begin() as connection:
        run = connection.execute
        run(
            text(
                "insert into accounts (code, name, currency, home_country, domestic_regions, made_at) "
                "values ('bench', 'Bench', 'USD', 'US', '{US,PR}', :since)"
            ),
            {"since": since},
        )
        run(
            text(
                "insert into tenants (account_id, code, made_at) "
                "select 1, 't' || n || '.example.com', :since from generate_series(1, :tenants) n"
            ),
            {"since": since, "tenants": tenants},
        )
        run(
            text(
                "insert into number_assignments (number, account_id, tenant_id, made_at) "
                "select '+1212' || (2000000 + n), 1, n, :since from generate_series(1, :tenants) n"
            ),
            {"since": since, "tenants": tenants},
        )
        run(
            text(
                "insert into ip_assignments (network, account_id, tenant_id, made_at) "
                "select ('10.' || n / 65536 || '.' || n / 256 % 256 || '.' || n % 256)::cidr, 1, n, :since "
                "from generate_series(1, :tenants) n"
            ),
            {"since": since, "tenants": tenants},
        )
        month = first_period
        for _ in range(5):
            run(text("select make_period(:month)"), {"month": month.first_day})
            month = month.next()
        run(text("update installation set state = 'running', bootstrap_finished_at = clock_timestamp()"))


def call_records(count: int, tenants: int, period: Period, seed: int = 1) -> Iterator[bytes]:
    """Canonical call records of about 430 bytes, over four weeks of a month, about in the order in which they started.

    Half are inbound and half outbound, a fifth is not answered. Every second is with a number that was never seen before;
    seconds have milliseconds, and costs are what a rate makes of them.
    """
    chosen = random.Random(seed)  # noqa: S311 (traffic, not secrets)
    shares = [1 / (rank + 1) ** _SKEW for rank in range(tenants)]
    regulars = [_number(chosen) for _ in range(_REGULARS)]
    for serial, tenant in enumerate(chosen.choices(range(1, tenants + 1), weights=shares, k=count)):
        started_at = period.starts_at + _SPAN * (serial / count) + timedelta(seconds=chosen.uniform(0, 600))
        answered = chosen.random() < _ANSWERED
        answered_at = started_at + timedelta(milliseconds=chosen.randint(1_000, 30_000))
        milliseconds = chosen.randint(1, 600_000) if answered else 0
        billed_seconds = -(-milliseconds // 6_000) * 6  # in steps of six seconds
        inbound = serial % 2 == 0
        own = f"+1212{2_000_000 + tenant}"
        other = _number(chosen) if chosen.random() < _STRANGERS else chosen.choice(regulars)
        record = {
            "id": f"{seed:04x}{serial:08x}-08c3-1238-9ba8-022c7a011cae",
            "switch": f"sbc-nyc-{1 + tenant % 4}",
            "service": "call",
            "direction": "inbound" if inbound else "outbound",
            "call_id": f"{seed:04x}{serial:08x}-08c3-1238-9ba8-022c7a011cae",
            "from_number": other if inbound else own,
            "to_number": own if inbound else other,
            "source_ip": f"10.{tenant // 65536}.{tenant // 256 % 256}.{tenant % 256}",
            "started_at": utc_text(started_at),
            "answered_at": utc_text(answered_at) if answered else None,
            "ended_at": utc_text(answered_at + timedelta(milliseconds=milliseconds)),
            "answered_seconds": f"{milliseconds // 1000}.{milliseconds % 1000:03d}",
            "billed_seconds": billed_seconds,
            "cost": f"{billed_seconds * chosen.choice(_RATES) / 60:.6f}",
            "currency": "USD",
        }
        yield json.dumps(record, separators=(",", ":")).encode()


def _number(chosen: random.Random) -> str:
    return f"+1{chosen.choice(_AREAS)}{chosen.randrange(2_000_000, 10_000_000)}"


def strewn(values: Sequence[bytes]) -> list[bytes]:
    """Records in no order, as when a switch empties a queue of weeks: each batch touches every day's pages."""
    return random.Random(4).sample(values, len(values))  # noqa: S311 (traffic, not secrets)


def again_as_others(values: Sequence[bytes], copies: int) -> Iterator[bytes]:
    """The records that `call_records` made with its first seed, so many times over, each time as other calls."""
    for copy in range(1, copies + 1):
        for value in values:
            yield value.replace(b'"0001', b'"%04x' % (copy + 0x1000))


def sip_events(count: int, tenants: int, period: Period) -> Iterator[bytes]:
    """Initial INVITEs in the canonical form, of about 330 bytes."""
    for serial in range(count):
        tenant = serial % tenants + 1
        event = {
            "switch": "sbc-nyc-1",
            "observed_at": utc_text(period.starts_at + timedelta(seconds=serial / 10)),
            "source_ip": f"10.{tenant // 65536}.{tenant // 256 % 256}.{tenant % 256}",
            "source_port": 5060,
            "call_id": f"{serial:012x}-08c3-1238-9ba8-022c7a011cae",
            "method": "INVITE",
            "cseq": "102 INVITE",
            "from_tag": f"{serial:08x}",
            "headers": {
                "X-Tenant": f"t{tenant}.example.com",
                "User-Agent": "Example PBX 18.2",
                "Max-Forwards": "70",
            },
        }
        yield json.dumps(event, separators=(",", ":")).encode()

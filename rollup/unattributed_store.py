"""Why usage has no tenant, and which headers were ignored: one row per reason, account and asset (A4, A6).

So that an operator sees in one look which number nobody assigned and which IP should be shared. What a call's own record
does not say, its source IP or the name on a shared one, is looked up in the SIP event that spoke for it (A10); the rule is
that of attribution/context.py, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from schemas.network import Address
from schemas.periods import Period


class Unattributed(NamedTuple):
    """Records without a tenant, or with an ignored header (`reason` `header_ignored`), that share what they lack.

    `asset`: the called number or the source IP. `named`: what their `X-Tenant` header said; `near_match`: the Account
    ID of the account that it probably meant, where only the case of letters or what surrounds it differs.
    """

    reason: str
    account: str | None
    asset: str | None
    named: str | None
    near_match: str | None
    records: int
    cost: Decimal
    currency: str
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class SipReading:
    """How SIP events speak for calls: until `wait` after a record; topics without them, and our own edges by topic."""

    wait: timedelta = timedelta(minutes=5)
    topics_without: Collection[str] = ()
    edges: Mapping[str, Collection[Address]] = field(default_factory=dict)


def unattributed(
    connection: Connection,
    period: Period | None = None,
    account: str | None = None,
    sip: SipReading | None = None,
) -> tuple[Unattributed, ...]:
    """Usage posted to a month, or to every month that is not closed; the most records first."""
    sip = sip or SipReading()
    edges = [(topic, str(edge)) for topic, each in sip.edges.items() for edge in each]
    rows = connection.execute(
        text(_UNATTRIBUTED),
        {
            "period": period.first_day if period else None,
            "account": account,
            "wait": sip.wait,
            "topics_without": list(sip.topics_without),
            "edge_topics": [topic for topic, _ in edges],
            "edges": [edge for _, edge in edges],
        },
    )
    return tuple(Unattributed(*row) for row in rows)


_BLANKS: Final = r"E' \t\n\r\f\x0b'"

# The SIP event that spoke for a call (A10): those received up to the record go before later ones.
_EVENT: Final = f"""
    select e.source_ip, e.x_tenant from sip_contexts e
    where u.direction = 'outbound'
      and (u.source_ip is null or (u.reason = 'unknown_tenant' and btrim(coalesce(u.x_tenant, ''), {_BLANKS}) = ''))
      and u.reason is distinct from 'ambiguous_context'
      and s.topic <> all(cast(:topics_without as text[]))
      and e.call_id = u.call_id
      and e.received_at between u.received_at - interval '35 days' and u.received_at + :wait
      and e.observed_at between u.started_at - interval '60 seconds'
                            and coalesce(u.ended_at, u.started_at + interval '60 seconds')
      and case when u.source_ip is not null then e.source_ip = u.source_ip
          else not exists (select from unnest(cast(:edge_topics as text[]), cast(:edges as inet[])) as edge (topic, address)
                           where edge.topic = s.topic and edge.address = e.source_ip) end
    order by e.received_at > u.received_at, e.cseq desc, e.observed_at,
             btrim(coalesce(e.x_tenant, ''), {_BLANKS}) = '', coalesce(e.x_tenant, '') collate "C", e.x_tenant is null,
             host(e.source_ip) collate "C", e.switch collate "C"
    limit 1"""  # noqa: S608 (our own text)

_UNATTRIBUTED: Final = f"""
    with found as (
        select coalesce(u.reason, 'header_ignored') as reason, u.account_id, u.currency, u.cost, u.started_at,
               case when u.direction = 'inbound' then u.to_number
                    else host(coalesce(u.source_ip, event.source_ip)) end as asset,
               coalesce(u.header_ignored, nullif(btrim(u.x_tenant, {_BLANKS}), ''),
                        case when u.reason = 'unknown_tenant' then btrim(event.x_tenant, {_BLANKS}) end) as named
        from usage_records u
        join periods p on p.period = u.period
        join stream_positions s on s.id = u.position_id
        left join lateral ({_EVENT}) as event on true
        where (u.reason is not null or u.header_ignored is not null)
          and (u.period = cast(:period as date) or (cast(:period as date) is null and p.state <> 'closed'))),
    summed as (
        select reason, account_id, asset, named, currency, count(*) as records, sum(cost) as cost,
               min(started_at) as first_at, max(started_at) as last_at
        from found group by reason, account_id, asset, named, currency)
    select f.reason, a.code as account, f.asset, f.named, meant.code as near_match, f.records, f.cost, f.currency,
           f.first_at, f.last_at
    from summed f
    left join accounts a on a.id = f.account_id
    left join lateral (
        select min(t.code) as code from tenants t
        where f.reason = 'unknown_tenant' and t.account_id = f.account_id and t.code <> f.named
          and t.made_at <= f.last_at and (t.ended_at is null or t.ended_at > f.first_at)
          and lower(regexp_replace(t.code, '^[^[:alnum:]]+|[^[:alnum:]]+$', '', 'g'))
            = lower(regexp_replace(f.named, '^[^[:alnum:]]+|[^[:alnum:]]+$', '', 'g'))) as meant on true
    where cast(:account as text) is null or a.code = :account
    order by f.records desc, f.reason, a.code, f.asset, f.named"""  # noqa: S608 (our own text)

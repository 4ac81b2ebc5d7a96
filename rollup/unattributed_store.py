"""Why usage has no tenant, and which headers were ignored: one row per reason, account and asset (A4, A6).

So that an operator sees in one look which number nobody assigned and which IP should be shared.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text

from schemas.periods import Period


class Unattributed(NamedTuple):
    """Records without a tenant, or with an ignored header (`reason` `header_ignored`), that share what they lack.

    `asset`: the called number or the source IP. `named`: what their `X-Tenant` header said; `near_match`: the Account
    ID of the account that it probably meant, where only the case of letters differs.
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


def unattributed(
    connection: Connection, period: Period | None = None, account: str | None = None
) -> tuple[Unattributed, ...]:
    """Usage posted to a month, or to every month that is not closed; the most records first."""
    rows = connection.execute(
        text(
            "with found as ("
            "select coalesce(u.reason, 'header_ignored') as reason, u.account_id, u.currency, u.cost, u.started_at, "
            "case when u.direction = 'inbound' then u.to_number else host(u.source_ip) end as asset, "
            "coalesce(u.header_ignored, u.x_tenant) as named "
            "from usage_records u join periods p on p.period = u.period "
            "where (u.reason is not null or u.header_ignored is not null) "
            "and (u.period = cast(:period as date) or (cast(:period as date) is null and p.state <> 'closed'))) "
            "select f.reason, a.code as account, f.asset, f.named, "
            "case when f.reason = 'unknown_tenant' then min(t.code) end as near_match, count(*) as records, "
            "sum(f.cost) as cost, f.currency, min(f.started_at) as first_at, max(f.started_at) as last_at "
            "from found f left join accounts a on a.id = f.account_id "
            "left join tenants t on t.account_id = f.account_id and lower(t.code) = lower(trim(f.named)) "
            "where cast(:account as text) is null or a.code = :account "
            "group by f.reason, a.code, f.asset, f.named, f.currency "
            "order by count(*) desc, f.reason, a.code, f.asset, f.named"
        ),
        {"period": period.first_day if period else None, "account": account},
    )
    return tuple(Unattributed(*row) for row in rows)

"""What Prometheus is told from the database: small sums over indexes, each the answer to one question.

Ages are in seconds by the database's clock, and 0 where nothing waits.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from rollup.statement import CHAIN_START, chained

_latest_statements_max: Final = 1000
_recent: Final = "(date_trunc('month', clock_timestamp() at time zone 'UTC') - interval '3 months')::date"


class Waiting(NamedTuple):
    """Held records of one reason: how many, and how long ago the oldest was received."""

    reason: str
    records: int
    oldest_seconds: float


class OutboxDepth(NamedTuple):
    """Events that wait to be published, and how long the oldest has."""

    events: int
    oldest_seconds: float


class MonthAges(NamedTuple):
    """How far ahead months are made, and how long the longest sealed one has been without statements."""

    months_ahead: int
    sealed_seconds: float


class DirectorySize(NamedTuple):
    """Rows in force, accounts aside, which never end."""

    accounts: int
    tenants: int
    numbers: int
    ips: int


class Fees(NamedTuple):
    """Phantom fees in one currency."""

    currency: str
    fees: int
    amount: float


def received(connection: Connection) -> dict[str, int]:
    """Records received by topic: what the stream itself has counted, in whatever outcome."""
    return _by_word(
        connection,
        "select p.topic, coalesce(sum(c.records) filter (where c.writer = 'stream'), 0)::bigint "
        "from stream_positions p left join outcome_counts c on c.position_id = p.id group by p.topic",
    )


def held(connection: Connection) -> list[Waiting]:
    """Held records by reason; both reasons there are, always."""
    rows = connection.execute(
        text(
            "select r.reason, count(h.key), coalesce(extract(epoch from clock_timestamp() - min(h.received_at)), 0)::float "
            "from unnest(array['sip_context', 'clock_ahead']) as r(reason) "
            "left join held_records h on h.reason = r.reason group by r.reason"
        )
    )
    return [Waiting(*row) for row in rows]


def held_overdue_seconds(connection: Connection) -> float:
    """How long ago the longest held record should have been decided."""
    return _number(
        connection,
        "select greatest(0, extract(epoch from clock_timestamp() - min(hold_until)))::float from held_records",
    )


def quarantined(connection: Connection) -> dict[str, int]:
    """Open records in quarantine by reason."""
    return _by_word(
        connection, "select reason, count(*) from quarantine where state = 'open' group by reason"
    )


def headers_ignored(connection: Connection) -> int:
    """Records posted to months that are not closed, whose header named another than the dedicated IP's tenant (A4)."""
    return int(
        _number(
            connection,
            "select count(*) from usage_records where header_ignored is not null "
            "and period = any(array(select period from periods where state <> 'closed'))",
        )
    )


def unattributed(connection: Connection) -> dict[str, int]:
    """Records without a tenant in months that are not closed: an account's, or nobody's."""
    return _by_word(
        connection,
        "select o.owner, coalesce(sum(m.attempts), 0)::bigint from (values ('account', false), ('nobody', true)) "
        "as o(owner, unowned) left join monthly_usage m on m.tenant_id is null and (m.account_id is null) = o.unowned "
        "and m.period in (select period from periods where state <> 'closed') group by o.owner",
    )


def directory_size(connection: Connection) -> DirectorySize:
    """How many accounts, tenants and assignments are in force."""
    row = connection.execute(
        text(
            "select (select count(*) from accounts), (select count(*) from tenants where ended_at is null), "
            "(select count(*) from number_assignments where ended_at is null), "
            "(select count(*) from ip_assignments where ended_at is null)"
        )
    ).one()
    return DirectorySize(*row)


def periods(connection: Connection) -> dict[str, int]:
    """Months by state."""
    return _by_word(connection, "select state, count(*) from periods group by state")


def month_ages(connection: Connection) -> MonthAges:
    """How far months are made ahead, and how long one has waited for its statements."""
    row = connection.execute(
        text(
            "select count(*) filter (where period > (clock_timestamp() at time zone 'UTC')::date), "
            "coalesce(extract(epoch from clock_timestamp() - min(sealed_at) filter (where state = 'sealed')), 0)::float "
            "from periods"
        )
    ).one()
    return MonthAges(*row)


def outbox(connection: Connection) -> OutboxDepth:
    """What waits to be published."""
    row = connection.execute(
        text(
            "select count(*), coalesce(extract(epoch from clock_timestamp() - min(made_at)), 0)::float "
            "from outbox where published_at is null"
        )
    ).one()
    return OutboxDepth(*row)


def chain_breaks(connection: Connection) -> int:
    """Links that do not follow from the one before, or are missing, among the latest statements (C7)."""
    rows = list(
        connection.execute(
            text("select sequence, sha256, chain from statements order by sequence desc limit :max"),
            {"max": _latest_statements_max},
        )
    )[::-1]
    breaks = 0
    expected, previous = (1, CHAIN_START) if len(rows) < _latest_statements_max else (None, None)
    for row in rows:
        missing = expected is not None and row.sequence != expected
        broken = previous is not None and row.chain != chained(previous, row.sha256)
        breaks += missing or broken
        expected, previous = row.sequence + 1, row.chain
    return breaks


def invoice_overdue_seconds(connection: Connection) -> float:
    """How long an invoice that may be worked on has been due; those of paused accounts are left out."""
    return _number(
        connection,
        "select greatest(0, extract(epoch from clock_timestamp() - min(i.due_at)))::float from invoices i "
        "where i.state in ('received', 'drafting', 'drafted') and not exists (select from stripe_links l "
        "where l.account_id = i.account_id and l.unlinked_at is null and l.paused_at is not null)",
    )


def invoice_notices(connection: Connection) -> dict[str, int]:
    """What was noted on invoices of the last three months, by its very words."""
    return _by_word(
        connection,
        f"select notice, count(*) from invoices where period >= {_recent} and notice is not null group by notice",  # noqa: S608 (our own text)
    )


def paused_accounts(connection: Connection) -> int:
    """Accounts whose linked Stripe account refuses us."""
    return int(
        _number(
            connection,
            "select count(*) from stripe_links where unlinked_at is null and paused_at is not null",
        )
    )


def refused_events(connection: Connection) -> int:
    """Statement-closed events that could not be taken, and that nobody has resolved."""
    return int(_number(connection, "select count(*) from refused_events where resolved_at is null"))


def unheard_statements(connection: Connection) -> int:
    """Tenants' statements of the last three months without an invoice's row: their event has not arrived."""
    return int(
        _number(
            connection,
            "select count(*) from statements s where s.kind = 'tenant' "  # noqa: S608 (our own text)
            f"and s.period >= {_recent} and not exists (select from invoices i where i.statement_id = s.id)",
        )
    )


def phantom_fees(connection: Connection) -> list[Fees]:
    """Phantom fees by currency."""
    rows = connection.execute(
        text("select currency, count(*), sum(amount)::float from phantom_fees group by currency")
    )
    return [Fees(*row) for row in rows]


def _by_word(connection: Connection, query: str) -> dict[str, int]:
    return {word: int(number) for word, number in connection.execute(text(query))}


def _number(connection: Connection, query: str) -> float:
    return float(connection.execute(text(query)).scalar_one() or 0)

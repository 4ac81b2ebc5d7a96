"""The ledger, append-only, and the sums that are kept beside it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import INET

from schemas.tables.metadata import COST, INSTANT, SECONDS, metadata

# One row per record, for ever (L1, L2). Partitioned by month of `started_date` (= the UTC date of `started_at`).
# `period` is the posting period (its first day); `late` where that is not the month of `started_at` (L5).
# `rule`, `reason`, `assignment_id` and `tariff_id` say why the record stands where it stands.
usage_records = Table(
    "usage_records",
    metadata,
    Column("started_date", Date, nullable=False),
    Column("key", Uuid, nullable=False),
    Column("content", Uuid, nullable=False),
    Column("period", Date, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("account_id", BigInteger),
    Column("tenant_id", BigInteger),
    Column("usage_class", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("reason", Text),
    Column("assignment_id", BigInteger),
    Column("tariff_id", BigInteger),
    Column("header_ignored", Text),
    Column("switch", Text, nullable=False),
    Column("record_id", Text, nullable=False),
    Column("call_id", Text),
    Column("service", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("from_number", Text),
    Column("to_number", Text),
    Column("source_ip", INET),
    Column("x_tenant", Text),
    Column("started_at", INSTANT, nullable=False),
    Column("answered_at", INSTANT),
    Column("ended_at", INSTANT),
    Column("answered", Boolean, nullable=False),
    Column("answered_seconds", SECONDS, nullable=False),
    Column("billed_seconds", Integer, nullable=False),
    Column("cost", COST, nullable=False),
    Column("currency", Text, nullable=False),
    Column("received_at", INSTANT, nullable=False),
    Column("position_id", Integer, nullable=False),
    Column("kafka_offset", BigInteger, nullable=False),
    # identity: the database stops a duplicate; date first, so that inserts touch one day's pages (L1)
    Index("usage_records_identity_key", "started_date", "key", unique=True),
    # serves: late usage of a period at its close (C3)
    Index("usage_records_late_idx", "period", postgresql_where=text("late")),
    # serves: how many headers were ignored (A4), for Prometheus
    Index("usage_records_header_ignored_idx", "period", postgresql_where=text("header_ignored is not null")),
    postgresql_partition_by="RANGE (started_date)",
)

# Identities of records that started within five minutes of a UTC midnight, whichever side (L1): a resend whose clock
# moved it over midnight meets its first copy here.
midnight_identities = Table(
    "midnight_identities",
    metadata,
    Column("midnight_on", Date, primary_key=True),  # the date that begins at that midnight
    Column("key", Uuid, primary_key=True),
    Column("started_date", Date, nullable=False),
)

# Sums of the ledger (L4). `shard` keeps writers apart: a position's id, 0 for the resolver, -1 for replay.
monthly_usage = Table(
    "monthly_usage",
    metadata,
    Column("shard", Integer, nullable=False),
    Column("period", Date, nullable=False),
    Column("usage_period", Date, nullable=False),
    Column("account_id", BigInteger),
    Column("tenant_id", BigInteger),
    Column("usage_class", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("answered_seconds", SECONDS, nullable=False),
    Column("billed_seconds", BigInteger, nullable=False),
    Column("cost", COST, nullable=False),
    # one row per writer and group; period first serves the close's and `usage`'s sums
    Index(
        "monthly_usage_group_key",
        "period",
        "shard",
        "usage_period",
        "account_id",
        "tenant_id",
        "usage_class",
        "currency",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    postgresql_with={"fillfactor": "40"},
)

"""Months, their boundaries, the statements they close into, and what waits to be published."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from schemas.tables.metadata import COST, INSTANT, metadata

# `period` is the month's first day. open → sealed (takes no more rows) → closed (statements exist) (C2).
periods = Table(
    "periods",
    metadata,
    Column("period", Date, primary_key=True),
    Column("state", Text, nullable=False, server_default="open"),
    Column("cutoff_at", INSTANT),  # written when the boundaries are pinned
    Column("sealed_at", INSTANT),
    Column("closed_at", INSTANT),
    CheckConstraint("state in ('open', 'sealed', 'closed')", name="state"),
    CheckConstraint("extract(day from period) = 1", name="first_day"),
)

# How far each partition must have been read before a month may seal; pinned once, never moved (C1). `topic_id`: the
# topic that was asked for it, where Kafka tells; only that topic's position can reach it.
period_boundaries = Table(
    "period_boundaries",
    metadata,
    Column("period", Date, ForeignKey("periods.period"), primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("boundary_offset", BigInteger, nullable=False),
    Column("pinned_at", INSTANT, nullable=False),
    Column("topic_id", Text),
)

# `body` is the canonical JSON; `chain` hashes the previous row's chain and this row's sha256 (C7).
statements = Table(
    "statements",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Uuid, nullable=False, unique=True),
    Column("period", Date, ForeignKey("periods.period"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("tenant_id", BigInteger, ForeignKey("tenants.id")),
    Column("currency", Text, nullable=False),
    Column("usage_cost", COST, nullable=False),
    Column("total_cost", COST, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("generated_at", INSTANT, nullable=False),
    CheckConstraint("kind in ('tenant', 'unassigned')", name="kind"),
    CheckConstraint("(kind = 'tenant') = (tenant_id is not null)", name="kind_tenant"),
    # one statement per tenant (or account's unassigned usage) and period
    Index(
        "statements_owner_key",
        "period",
        "account_id",
        "tenant_id",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
)

# Events to publish, in order (C5). `published_at` is written when the broker has acknowledged.
outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("made_at", INSTANT, nullable=False),
    Column("published_at", INSTANT),
    Column("kafka_partition", Integer),
    Column("kafka_offset", BigInteger),
    # serves: the relay's next events
    Index("outbox_pending_idx", "id", postgresql_where=text("published_at is null")),
)

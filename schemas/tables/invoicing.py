"""Stripe links, billing profiles, customers, invoices and fees: what to bill, and what was asked for."""

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
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from schemas.tables.metadata import COST, INSTANT, metadata

# An account's own Stripe account (I11). `paused_reason` is set when Stripe refuses us permission (I8).
stripe_links = Table(
    "stripe_links",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("stripe_account", Text, nullable=False),
    Column("linked_at", INSTANT, nullable=False),
    Column("unlinked_at", INSTANT),
    Column("paused_at", INSTANT),
    Column("paused_reason", Text),
    Index(
        "stripe_links_in_force_key", "account_id", unique=True, postgresql_where=text("unlinked_at is null")
    ),
)

# What to bill a tenant and when, version by version; in force in [made_at, ended_at) (I1).
billing_profiles = Table(
    "billing_profiles",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant_id", BigInteger, ForeignKey("tenants.id"), nullable=False),
    Column("made_at", INSTANT, nullable=False),
    Column("ended_at", INSTANT),
    Column("definition", JSONB, nullable=False),
    UniqueConstraint("tenant_id", "made_at"),
    Index(
        "billing_profiles_in_force_key", "tenant_id", unique=True, postgresql_where=text("ended_at is null")
    ),
)

# Which customer in the account's Stripe a tenant is (I5).
stripe_customers = Table(
    "stripe_customers",
    metadata,
    Column("tenant_id", BigInteger, ForeignKey("tenants.id"), primary_key=True),
    Column("stripe_account", Text, primary_key=True),
    Column("customer", Text, nullable=False),
    Column("linked", Text, nullable=False),  # 'ours': made by us; 'theirs': existed and was linked
    Column("made_at", INSTANT, nullable=False),
    Column("details_made_at", INSTANT),  # of ours: which version of the tenant's details Stripe was told
    CheckConstraint("linked in ('ours', 'theirs')", name="linked"),
)

# One row per statement (I0): the natural key is what stops a second invoice. One-time invoices have none (I10).
# `state`: see invoicing/README.md. `due_at`: when the row is looked at next. `send_at`: when Stripe sends it.
# `generation` counts up when an invoice that was deleted in Stripe is made anew by command (I9).
# `terms` and `lines` are fixed when drafting begins; `notice` says what went otherwise than the profile asked (I4).
# `profile_id`: the version that decides, or decided. A one-time invoice's natural key is `one_time_key`, given by its
# caller or derived from what it asks for; `one_time_content` is the digest of that.
invoices = Table(
    "invoices",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False, server_default="monthly"),
    Column("statement_id", Uuid, unique=True),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("tenant_id", BigInteger, ForeignKey("tenants.id"), nullable=False),
    Column("period", Date, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("notice", Text),
    Column("generation", Integer, nullable=False, server_default="1"),
    Column("profile_id", BigInteger, ForeignKey("billing_profiles.id")),
    Column("stripe_account", Text),
    Column("stripe_invoice", Text),
    Column("currency", Text, nullable=False),
    Column("subtotal_minor", BigInteger),
    Column("terms", JSONB),
    Column("lines", JSONB),
    Column("send_at", INSTANT),
    Column("due_at", INSTANT, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("received_at", INSTANT, nullable=False),
    Column("changed_at", INSTANT, nullable=False),
    Column("one_time_key", Text),
    Column("one_time_content", Text),
    CheckConstraint("kind in ('monthly', 'one_time')", name="kind"),
    CheckConstraint("(kind = 'monthly') = (statement_id is not null)", name="kind_statement"),
    # one one-time invoice of a key, whatever is repeated (I10)
    Index(
        "invoices_one_time_key",
        "tenant_id",
        "one_time_key",
        unique=True,
        postgresql_where=text("one_time_key is not null"),
    ),
    # serves: the scheduler's next rows of an account
    Index(
        "invoices_due_idx",
        "account_id",
        "due_at",
        postgresql_where=text("state in ('received', 'drafting', 'drafted')"),
    ),
    # serves: the daily read of what should have been sent (I9)
    Index(
        "invoices_refresh_idx",
        "due_at",
        postgresql_where=text("state in ('scheduled', 'finalization_failed')"),
    ),
    # serves: `invoice list` of a month
    Index("invoices_period_idx", "period", "account_id"),
)

# Each outside step of an invoice: intent before, result after (I7).
invoice_steps = Table(
    "invoice_steps",
    metadata,
    Column("invoice_id", Uuid, ForeignKey("invoices.id"), primary_key=True),
    Column("step", Text, primary_key=True),
    Column("idempotency_key", Text, nullable=False),
    Column("intended_at", INSTANT, nullable=False),
    Column("done_at", INSTANT),
    Column("result", Text),
)

# USD 5.00 on the account for an invoice sent for nearly nothing (I6). Append-only; no one can take one back.
phantom_fees = Table(
    "phantom_fees",
    metadata,
    Column("statement_id", Uuid, primary_key=True),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("tenant_id", BigInteger, ForeignKey("tenants.id"), nullable=False),
    Column("period", Date, nullable=False),
    Column("stripe_invoice", Text, nullable=False),
    Column("amount", COST, nullable=False),
    Column("currency", Text, nullable=False),
    Column("evidence", Text, nullable=False),  # 'sent': seen in Stripe; 'assumed': could no longer be read
    Column("made_at", INSTANT, nullable=False),
    CheckConstraint("evidence in ('sent', 'assumed')", name="evidence"),
    CheckConstraint("amount > 0", name="amount"),  # no row can take another back
    # serves: an account's fees by month
    Index("phantom_fees_account_id_period_idx", "account_id", "period"),
)

# Events that the invoicing consumer could not read, with their Kafka coordinates: visible until someone resolves them.
refused_events = Table(
    "refused_events",
    metadata,
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("kafka_offset", BigInteger, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("refused_at", INSTANT, nullable=False),
    Column("resolved_at", INSTANT),
)

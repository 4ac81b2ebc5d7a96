"""Accounts, tenants, assignments and tariffs: who owned what, and from when.

Append-only (A9). A row's `made_at` comes from `directory_clock`, which only moves forward (A7); `ended_at` is
written once. Guard triggers are made by the migrations.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, CIDR

from schemas.tables.metadata import COST, INSTANT, metadata

# One row. `bootstrap`: history may be imported with its own times and no worker consumes; `running` for ever after (A8).
installation = Table(
    "installation",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False, server_default="bootstrap"),
    Column("bootstrap_finished_at", INSTANT),
    CheckConstraint("id = 1", name="one_row"),
    CheckConstraint("state in ('bootstrap', 'running')", name="state"),
)

# One row: the latest instant that any change was made at or any fence was taken at; changes come strictly after it (A7).
directory_clock = Table(
    "directory_clock",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("last_made_at", INSTANT, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("code", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("home_country", Text, nullable=False),
    Column("domestic_regions", ARRAY(Text), nullable=False),
    Column("made_at", INSTANT, nullable=False),
)

# `code` is the Account ID; unique within the account without regard to case, for ever (also after the tenant ended).
tenants = Table(
    "tenants",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("code", Text, nullable=False),
    Column("made_at", INSTANT, nullable=False),
    Column("ended_at", INSTANT),
    UniqueConstraint("account_id", "id"),  # lets assignments prove that their tenant is their account's
    CheckConstraint("code ~ '^[A-Za-z0-9._-]{1,128}$'", name="code"),
    CheckConstraint("ended_at > made_at", name="interval"),
    Index("tenants_account_id_lower_code_key", "account_id", text("lower(code)"), unique=True),
    # serves: what changed since the last refresh
    Index("tenants_made_at_idx", "made_at"),
    Index("tenants_ended_at_idx", "ended_at", postgresql_where=text("ended_at is not null")),
)

# What is known of a tenant, version by version; the newest with made_at <= t was true at t.
tenant_details = Table(
    "tenant_details",
    metadata,
    Column("tenant_id", BigInteger, ForeignKey("tenants.id"), primary_key=True),
    Column("made_at", INSTANT, primary_key=True),
    Column("name", Text, nullable=False),
    Column("contact_name", Text, nullable=False),
    Column("billing_email", Text, nullable=False),
    Column("phone", Text, nullable=False),
    Column("address_line1", Text, nullable=False),
    Column("address_line2", Text, nullable=False, server_default=""),
    Column("city", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("postal_code", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("address_validated_at", INSTANT),
)

number_assignments = Table(
    "number_assignments",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("number", Text, nullable=False),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("tenant_id", BigInteger),
    Column("made_at", INSTANT, nullable=False),
    Column("ended_at", INSTANT),
    ForeignKeyConstraint(["account_id", "tenant_id"], ["tenants.account_id", "tenants.id"]),
    UniqueConstraint("number", "made_at"),  # serves: the history of one number
    CheckConstraint(r"number ~ '^\+[1-9][0-9]{6,14}$'", name="e164"),
    CheckConstraint("ended_at > made_at", name="interval"),
    # one assignment of a number in force at a time
    Index(
        "number_assignments_in_force_key", "number", unique=True, postgresql_where=text("ended_at is null")
    ),
    # serves: what changed since the last refresh
    Index("number_assignments_made_at_idx", "made_at"),
    Index("number_assignments_ended_at_idx", "ended_at", postgresql_where=text("ended_at is not null")),
    # serves: numbers of one tenant (statements, `number list`)
    Index("number_assignments_tenant_idx", "account_id", "tenant_id"),
)

# `tenant_id` set: a dedicated IP. Null: shared, `X-Tenant` decides, with an optional default.
ip_assignments = Table(
    "ip_assignments",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("network", CIDR, nullable=False),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("tenant_id", BigInteger),
    Column("default_tenant_id", BigInteger),
    Column("made_at", INSTANT, nullable=False),
    Column("ended_at", INSTANT),
    ForeignKeyConstraint(["account_id", "tenant_id"], ["tenants.account_id", "tenants.id"]),
    ForeignKeyConstraint(["account_id", "default_tenant_id"], ["tenants.account_id", "tenants.id"]),
    UniqueConstraint("network", "made_at"),  # serves: the history of one network
    CheckConstraint("tenant_id is null or default_tenant_id is null", name="dedicated_or_shared"),
    CheckConstraint("ended_at > made_at", name="interval"),
    Index("ip_assignments_in_force_key", "network", unique=True, postgresql_where=text("ended_at is null")),
    # serves: what changed since the last refresh
    Index("ip_assignments_made_at_idx", "made_at"),
    Index("ip_assignments_ended_at_idx", "ended_at", postgresql_where=text("ended_at is not null")),
    Index("ip_assignments_tenant_idx", "account_id", "tenant_id"),
)

# What the carrier charges an account for a usage class from `effective_at` on; longest called `prefix` wins (L7, L8).
# `unit` is what `cost` is for: a billed minute, one event, or one number for one month.
tariffs = Table(
    "tariffs",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", BigInteger, ForeignKey("accounts.id"), nullable=False),
    Column("usage_class", Text, nullable=False),
    Column("prefix", Text, nullable=False, server_default=""),
    Column("effective_at", INSTANT, nullable=False),
    Column("unit", Text, nullable=False),
    Column("cost", COST, nullable=False),
    Column("increment_first_seconds", Integer, nullable=False, server_default="1"),
    Column("increment_next_seconds", Integer, nullable=False, server_default="1"),
    Column("made_at", INSTANT, nullable=False),
    UniqueConstraint("account_id", "usage_class", "prefix", "effective_at"),
    CheckConstraint("unit in ('minute', 'event', 'month')", name="unit"),
    CheckConstraint("cost >= 0", name="cost"),
    CheckConstraint("increment_first_seconds > 0 and increment_next_seconds > 0", name="increments"),
    CheckConstraint("prefix ~ '^[0-9]*$'", name="prefix"),
    # serves: what changed since the last refresh
    Index("tariffs_made_at_idx", "made_at"),
)

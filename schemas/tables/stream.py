"""Where each partition was read to, what became of each record, and what waits or could not be posted."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
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
from sqlalchemy.dialects.postgresql import INET

from schemas.tables.metadata import INSTANT, metadata

# The truth about what was consumed (L3). A missing row means: from the earliest record.
# `read_through_at`: every record that Kafka stamped up to then has been read (A10). `topic_id`: Kafka's own, from the
# first assignment; a topic made anew has another. The position of a log that is gone keeps its row, for what was read
# from there names it: its partition is then minus its id, which no other has, and `former_partition` what it was.
stream_positions = Table(
    "stream_positions",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("read_through_at", INSTANT),
    Column("gap_records", BigInteger, nullable=False, server_default="0"),
    Column("topic_id", Text),
    Column("former_partition", Integer),
    UniqueConstraint("topic", "partition"),
    CheckConstraint("next_offset >= 0", name="next_offset"),
    postgresql_with={"fillfactor": "50"},
)

# Conservation (DESIGN 8). `writer`: the stream itself, or the resolver, replay or discard that moved a count later.
outcome_counts = Table(
    "outcome_counts",
    metadata,
    Column("position_id", Integer, ForeignKey("stream_positions.id"), primary_key=True),
    Column("writer", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("reason", Text, primary_key=True),
    Column("records", BigInteger, nullable=False),
    CheckConstraint(
        "outcome in ('posted', 'duplicate', 'held', 'quarantined', 'ignored', 'context')", name="outcome"
    ),
    CheckConstraint("writer in ('stream', 'resolver', 'replay')", name="writer"),
    postgresql_with={"fillfactor": "50"},
)

# Records whose tenant cannot be told yet. `hold_until` is when the reason ends by itself at the latest, where known.
# The key is the ledger's: a record is held once.
held_records = Table(
    "held_records",
    metadata,
    Column("started_date", Date, primary_key=True),
    Column("key", Uuid, primary_key=True),
    Column("content", Uuid, nullable=False),
    Column("reason", Text, nullable=False),
    Column("hold_until", INSTANT, nullable=False),
    # SIP events received before this record have been looked at, and none decided it: only `hold_until` can, then
    Column("examined", Boolean, nullable=False, server_default=text("false")),
    Column("call_id", Text),
    Column("switch", Text, nullable=False),
    Column("record_id", Text, nullable=False),
    Column("started_at", INSTANT, nullable=False),
    Column("received_at", INSTANT, nullable=False),
    Column("position_id", Integer, ForeignKey("stream_positions.id"), nullable=False),
    Column("kafka_offset", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("ordinal", Integer, nullable=False, server_default="0"),  # which record of the message
    CheckConstraint("reason in ('sip_context', 'clock_ahead')", name="reason"),
    # serve: the resolver's next records
    Index("held_records_unexamined_idx", "received_at", postgresql_where=text("not examined")),
    Index("held_records_hold_until_idx", "hold_until"),
)

# SIP events by which held records are decided; partitioned by month of `received_at`, expired by dropping partitions.
sip_contexts = Table(
    "sip_contexts",
    metadata,
    Column("received_at", INSTANT, nullable=False),
    Column("call_id", Text, nullable=False),
    Column("observed_at", INSTANT, nullable=False),
    Column("source_ip", INET, nullable=False),
    Column("x_tenant", Text),
    Column("cseq", BigInteger, nullable=False),
    Column("switch", Text, nullable=False),
    Column("position_id", Integer, nullable=False),
    Column("kafka_offset", BigInteger, nullable=False),
    # serves: the SIP events of one call
    Index("sip_contexts_call_id_idx", "call_id"),
    postgresql_partition_by="RANGE (received_at)",
)

# What could not be read or must not be posted: bytes and coordinates kept, replayable. `discarded` stays quarantined
# in the counts (the record is still not posted), with who said so and why. A record that was refused only for what its
# owner's terms say stands under its identity while it is open: `started_date`, `record_key` and `content` are the ledger's.
quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("position_id", Integer, ForeignKey("stream_positions.id"), nullable=False),
    Column("kafka_offset", BigInteger, nullable=False),
    Column("ordinal", Integer, nullable=False, server_default="0"),  # which record of one message
    Column("received_at", INSTANT, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("account_id", BigInteger),
    Column("started_at", INSTANT),
    Column("started_date", Date),
    Column("record_key", Uuid),
    Column("content", Uuid),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("state", Text, nullable=False, server_default="open"),
    Column("resolved_at", INSTANT),
    Column("resolution", Text),
    UniqueConstraint("position_id", "kafka_offset", "ordinal"),
    CheckConstraint("state in ('open', 'replayed', 'discarded')", name="state"),
    # serves: what is open, by reason (list, replay, and what may block a seal)
    Index("quarantine_open_idx", "reason", "received_at", postgresql_where=text("state = 'open'")),
    # serves: whether a record stands under an identity without being posted
    Index(
        "quarantine_standing_idx",
        "started_date",
        "record_key",
        postgresql_where=text("state = 'open' and record_key is not null"),
    ),
)

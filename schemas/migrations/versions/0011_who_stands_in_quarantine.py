"""A record that lacks only its tariff stands under its identity in quarantine, as one that waits does (L2).

`standing_records` are those that stand without being in the ledger. Records that are in quarantine already get their
identity when they are replayed; until then they stand for nothing, as before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("started_date", sa.Date()),
        sa.Column("record_key", sa.Uuid()),
        sa.Column("content", sa.Uuid()),
    ):
        op.add_column("quarantine", column)
    op.create_index(
        "quarantine_standing_idx",
        "quarantine",
        ["started_date", "record_key"],
        postgresql_where=sa.text("state = 'open' and record_key is not null"),
    )
    # a negative ordinal: set aside, about to be written again
    op.execute("""
        create view standing_records as
        select started_date, key, content from held_records
        union all
        select started_date, record_key, content from quarantine
        where state = 'open' and record_key is not null and ordinal >= 0""")
    op.execute("alter view standing_records owner to tenant_billing_migration")
    op.execute("grant select on standing_records to tenant_billing_ingest")
    op.execute("grant select on standing_records to tenant_billing_reading")

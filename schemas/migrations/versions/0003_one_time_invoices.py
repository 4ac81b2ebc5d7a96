"""One-time invoices have a natural key (I10); Stripe's customers follow the tenant's details (I5); no fee is negative (I6)."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stripe_customers", sa.Column("details_made_at", sa.DateTime(timezone=True)))
    op.add_column("invoices", sa.Column("one_time_key", sa.Text()))
    op.add_column("invoices", sa.Column("one_time_content", sa.Text()))
    # the column is new and empty: the index is built at once
    op.create_index(
        "invoices_one_time_key",
        "invoices",
        ["tenant_id", "one_time_key"],
        unique=True,
        postgresql_where=sa.text("one_time_key is not null"),
    )
    op.execute(
        "alter table phantom_fees add constraint phantom_fees_amount_check check (amount > 0) not valid"
    )
    op.execute("alter table phantom_fees validate constraint phantom_fees_amount_check")

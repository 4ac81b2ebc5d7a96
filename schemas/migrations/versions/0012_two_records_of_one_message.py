"""Which of the two records of an on-net call a message is held for, where it is billed both ways."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("held_records", sa.Column("ordinal", sa.Integer(), server_default="0", nullable=False))

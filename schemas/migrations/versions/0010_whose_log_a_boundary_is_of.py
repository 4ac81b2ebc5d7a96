"""Which topic a month's boundary was pinned on, by Kafka's id: a position of another topic of that name has not reached it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("period_boundaries", sa.Column("topic_id", sa.Text()))

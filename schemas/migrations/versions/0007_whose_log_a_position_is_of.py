"""Which topic a position was read from, by Kafka's id: a topic made anew under the same name is another one."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stream_positions", sa.Column("topic_id", sa.Text()))
    op.add_column("stream_positions", sa.Column("former_partition", sa.Integer()))

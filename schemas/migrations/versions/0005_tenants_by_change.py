"""Tenants by the instant they were made or ended: a refresh of the directory reads those that changed, not all (A7)."""

from alembic import op
from sqlalchemy import text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("tenants_made_at_idx", "tenants", ["made_at"])
    op.create_index(
        "tenants_ended_at_idx", "tenants", ["ended_at"], postgresql_where=text("ended_at is not null")
    )

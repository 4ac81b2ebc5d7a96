"""Records whose header was ignored, by month: Prometheus is told how many there are, without reading the ledger (A4).

Few rows are in it, so it costs the ledger's writers next to nothing. Where the ledger is large already, they wait while it
is built: about a minute for a hundred million records.
"""

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "usage_records_header_ignored_idx",
        "usage_records",
        ["period"],
        postgresql_where=text("header_ignored is not null"),
    )

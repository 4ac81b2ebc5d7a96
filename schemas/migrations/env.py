"""Alembic's entry: runs the revisions on the connection that the caller hands over."""

from alembic import context
from sqlalchemy import Connection

from schemas.tables import metadata

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    transaction_per_migration=True,  # locks are held no longer than one revision needs them
    compare_type=True,
    compare_server_default=True,
    include_name=lambda name, kind, _parents: (
        not (kind == "table" and name is not None and "_partition_" in name)
    ),
)
with context.begin_transaction():
    context.run_migrations()

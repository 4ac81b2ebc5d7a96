"""The database's history: alembic revisions, oldest first, applied by `tenant-billing migrate`."""

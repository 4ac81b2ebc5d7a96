"""The database, table by table: one file per subject, one shared `metadata`."""

from schemas.tables import directory, invoicing, months, stream, usage
from schemas.tables.metadata import metadata

__all__ = ["directory", "invoicing", "metadata", "months", "stream", "usage"]

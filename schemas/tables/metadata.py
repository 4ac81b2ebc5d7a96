"""The one metadata all tables belong to, and the column types they share."""

from __future__ import annotations

from typing import Final

from sqlalchemy import DateTime, MetaData, Numeric

metadata: Final = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

INSTANT: Final = DateTime(timezone=True)
COST: Final = Numeric(18, 6)
SECONDS: Final = Numeric(18, 6)

"""The advisory locks, each with what it orders.

Transaction locks order short critical sections; session locks elect the one process that does a job.
"""

from __future__ import annotations

from enum import IntEnum


class Lock(IntEnum):
    """Keys for `pg_advisory_*`; one number space for the whole database."""

    DIRECTORY = 7_001  # changes exclusive, fences shared (A7)
    PERIODS = 7_002  # a seal exclusive, postings shared (L5, C2)
    RESOLVER = 7_003  # session: the one releaser of held records
    CLOSER = 7_004  # session: the one that pins, seals and closes by itself
    RELAY = 7_005  # session: the one that publishes the outbox (C5)
    MIGRATION = 7_006  # session: one migration at a time
    INVOICE_ACCOUNT = 7_100  # session, two-key form (this, account id): one scheduler per account (I0)

"""What must become of every message: the rules A1-A11 and L1-L9 told a second time, slowly and obviously.

Nothing here is shared with the product. Histories are plain lists that are scanned from end to end, so that a
mistake in an index, a cache, a batch or a transaction shows as a difference. Tests give the same carrier and the
same happenings to the product and to `audit`, and compare outcomes and totals.

How to use it:
    carrier = Carrier(accounts=[...], tenants=[...], numbers=[...], ips=[...], tariffs=[...])
    report = audit(carrier, [Received("calls.raw", at, {...}), Sealed("2026-10"), Received(...)])
    report.outcomes()   # {("posted", ""): 17, ("quarantined", "unrated"): 1, ...}
    report.totals()     # sums by period, month of usage, account, tenant and class
    report.verdicts     # one per Received, in the order given

Happenings are in the order in which the product commits them: each partition's messages in their own order, and
records of one identity in one partition, as switches key them. `Sealed` stands where a month's seal fell.
A record that cannot be true by itself is quarantined for that, whatever else stands under its identity. Every other
stands from its arrival, posted or waiting or refused for what its owner's terms say (currency, no tariff): what comes
later under its identity repeats it.
"""

from __future__ import annotations

from tests.auditor.judging import audit, numbers_held, peak_channels
from tests.auditor.words import (
    US_REGIONS,
    Account,
    Carrier,
    Group,
    Input,
    Ip,
    Number,
    Received,
    Report,
    Sealed,
    Sums,
    Tariff,
    Tenant,
    Verdict,
)

__all__ = [
    "US_REGIONS",
    "Account",
    "Carrier",
    "Group",
    "Input",
    "Ip",
    "Number",
    "Received",
    "Report",
    "Sealed",
    "Sums",
    "Tariff",
    "Tenant",
    "Verdict",
    "audit",
    "numbers_held",
    "peak_channels",
]

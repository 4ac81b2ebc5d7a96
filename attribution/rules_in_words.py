"""What each rule and reason of attribution means, for a person who asks why a record stands where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attribution.attribute import Reason, Rule

RULE_SAYS: Final[Mapping[Rule, str]] = {
    "A2": "inbound usage follows the called number, wherever the call was routed",
    "A3": "outbound usage follows the source IP, by the longest prefix in force",
    "A4": "a dedicated IP is its tenant's, whatever a header says",
    "A5": "on a shared IP the X-Tenant header decides, among the tenants of the IP's own account",
    "A6": "what has no tenant is its account's unassigned usage; what has no account is nobody's",
}
REASON_SAYS: Final[Mapping[Reason, str]] = {
    "number_not_assigned": "nobody owned the called number at that instant",
    "number_without_tenant": "the account had given the called number to no tenant",
    "ip_not_assigned": "nobody owned the source IP at that instant",
    "no_source_ip": "neither the record nor a SIP event named the source IP",
    "ambiguous_context": "SIP events named several source IPs, the record none",
    "no_tenant_header": "the IP is shared, no header named a tenant, and it had no default tenant",
    "unknown_tenant": "the IP is shared, and the header named no tenant that its account had at that instant",
}

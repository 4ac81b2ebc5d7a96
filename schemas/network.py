"""Which address is it (A11).

Addresses are normalised once: an IPv4-mapped IPv6 address is the IPv4 address.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = (
    str  # an address in the one text form that `address` gives it: shared, quick to compare and to look up
)
IpAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED_PREFIX_LENGTH = 96


@lru_cache(maxsize=65_536)
def address(text: str) -> Address:
    """Read one IP address, v4 or v6, brackets allowed around v6; equal addresses come back as equal text.

    Raises:
        ValueError: the text is no IP address, or carries a zone (`%eth0`), which names an interface, not a host.
    """
    if "%" in text:
        raise ValueError(f"{text!r} carries a zone")
    parsed = ip_address(text.strip().removeprefix("[").removesuffix("]"))
    return str((parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed)


@lru_cache(maxsize=65_536)
def parsed(of: Address) -> IpAddress:
    """An address as a number with its version."""
    return ip_address(of)


def network(text: str) -> Network:
    """Read one network in CIDR form; a bare address is a network of one.

    Raises:
        ValueError: the text is no network, carries a zone, or has bits set to the right of its prefix.
    """
    if "%" in text:
        raise ValueError(f"{text!r} carries a zone")
    parsed = ip_network(text.strip(), strict=False)
    if str(parsed.network_address) != str(ip_address(text.split("/", maxsplit=1)[0].strip())):
        raise ValueError(f"{text} has host bits set: say {parsed}, or the address alone")
    if isinstance(parsed, IPv6Network):
        mapped = parsed.network_address.ipv4_mapped
        if mapped is not None and parsed.prefixlen >= _MAPPED_PREFIX_LENGTH:
            return IPv4Network((mapped, parsed.prefixlen - _MAPPED_PREFIX_LENGTH))
    return parsed

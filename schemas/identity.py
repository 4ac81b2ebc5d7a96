"""What makes two records the same (L1, L2).

Ids are hashes of facts, so doing a thing twice makes one row. Each is 16 bytes, held as uuid. Parts are joined
with a separator that the wire schema refuses inside text, so no two different lists of parts collide.
"""

from __future__ import annotations

from hashlib import blake2b
from uuid import UUID

_SEPARATOR = "\x1f"


def fact_id(*parts: object) -> UUID:
    """The id of a fact told by its parts, in order; None is told apart from empty text."""
    text = _SEPARATOR.join("\x00" if part is None else str(part) for part in parts)
    return UUID(bytes=blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def record_key(switch: str, record_id: str) -> str:
    """The ledger key of a record as 32 hexadecimal digits, which Postgres reads as the same uuid."""
    return record_digest(switch, record_id).hex()


def record_digest(switch: str, record_id: str) -> bytes:
    """The ledger key of a record: a 16-byte hash of its switch and id (L1)."""
    return digest(f"{switch}{_SEPARATOR}{record_id}".encode())


def digest(facts: bytes) -> bytes:
    """A 16-byte hash of facts already written down."""
    return blake2b(facts, digest_size=16).digest()

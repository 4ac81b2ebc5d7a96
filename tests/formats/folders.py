"""The messages of each format's fixture folder, with what each must come to.

`tests/formats/fixtures/<kind>-<format>/` holds one file per message, `settings.json` (the input's format) and
`expected.json`: per message a record, an event, or the reason it is none; and which of them are the same fact again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from schemas.decoded import Decoded, Ignored, Rejected, Undirected
from schemas.formats import DIALECTS, Decoder, Dialect, Format, decoder
from schemas.records import CallRecord, SipEvent

FOLDER: Final = Path(__file__).with_name("fixtures")
_AROUND: Final = frozenset({"settings.json", "expected.json"})


@dataclass(frozen=True)
class Fixtures:
    """One folder."""

    dialect: Dialect
    settings: Format
    messages: dict[str, bytes]
    expected: dict[str, dict[str, Any]]
    resends: list[list[str]]

    @property
    def decode(self) -> Decoder:
        return decoder(self.dialect.kind, self.settings)


def folder_of(dialect: Dialect) -> Path:
    return FOLDER / f"{dialect.kind}-{dialect.name}"


@cache
def fixtures_of(dialect: Dialect) -> Fixtures:
    folder = folder_of(dialect)
    told = json.loads((folder / "expected.json").read_text())
    return Fixtures(
        dialect,
        Format.model_validate_json((folder / "settings.json").read_text()),
        {each.name: each.read_bytes() for each in sorted(folder.iterdir()) if each.name not in _AROUND},
        told["messages"],
        told["resends"],
    )


def every_message() -> list[tuple[Dialect, str]]:
    return [(dialect, name) for dialect in DIALECTS for name in sorted(fixtures_of(dialect).messages)]


def said(decoded: Decoded) -> dict[str, Any]:
    """What a message came to, in the words of `expected.json`."""
    match decoded:
        case CallRecord():
            return {"record": _fields(decoded)}
        case SipEvent():
            return {"event": _fields(decoded)}
        case Undirected():
            return {"undirected": _fields(decoded.record)}
        case Ignored():
            return {"ignored": decoded.reason}
        case Rejected():
            return {"rejected": decoded.reason}


def _fields(of: CallRecord | SipEvent) -> dict[str, Any]:
    return {name: _plain(getattr(of, name)) for name in of.__struct_fields__}


def _plain(value: object) -> object:
    if value is None or isinstance(value, int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)

"""What reading one message costs, for each format beside the canonical form of its kind.

CPU time of this process, the formats measured in turns with the canonical form, so that what disturbs one disturbs both;
the figure is the median ratio. Messages are the first that each format's fixtures read, FreeSWITCH's as it encodes them by
default, and a capture of ordinary size.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from schemas.formats import DIALECTS, Dialect, Format, decoder

_FIXTURES: Final = Path(__file__).parents[2] / "tests" / "formats" / "fixtures"
_ROUNDS: Final = 15
_MESSAGES: Final = 1500
_BILLED: Final = {"calls": "record", "sip": "event"}
_PADDING_VARIABLES: Final = 190  # with which a leg has the 10 kB that FreeSWITCH usually writes

_SIP: Final = (
    "INVITE sip:+12125550199@term.example.net SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.10:5080;rport;branch=z9hG4bKvm6m68v1tZt3g\r\nMax-Forwards: 69\r\n"
    'From: "Pat Example" <sip:+12125550150@192.0.2.10>;tag=HQ1jcrp2U6HZj\r\n'
    "To: <sip:+12125550199@term.example.net>\r\nCall-ID: 9934a1ef-08c3-1238-9ba8-022c7a011cae\r\n"
    "CSeq: 5676555 INVITE\r\nContact: <sip:gw@192.0.2.10:5080;transport=udp>\r\nUser-Agent: Example PBX/1.6\r\n"
    "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE\r\nSupported: timer, path, replaces\r\n"
    "Content-Type: application/sdp\r\nContent-Disposition: session\r\nX-Tenant: bigcustomer.mypbx.com\r\n"
    'P-Asserted-Identity: "Pat Example" <sip:+12125550150@192.0.2.10>\r\nContent-Length: 0\r\n\r\n'
)
_HEADING: Final = "2026/10/10 11:59:57.026549 192.0.2.10:5080 -> 198.51.100.9:5060\r\n"


def run(console: Console) -> dict[str, float]:
    """Measure; `sip_raw_us` and `…_us` in microseconds a message, `format_<name>_to_canonical` as ratios."""
    figures: dict[str, float] = {}
    canonical = {each.kind: _reading(each) for each in DIALECTS if each.name == "canonical"}
    for dialect in DIALECTS:
        read, size = _reading(dialect)
        ours, ratio = _beside(read, canonical[dialect.kind][0])
        console.print(
            f"{dialect.kind:6}{dialect.name:22}{size:>7,} bytes {ours:7.2f} µs {ratio:6.2f} x canonical",
            highlight=False,
        )
        suffix = "" if dialect.kind == "calls" or dialect.name in {"hep", "sip_text"} else "_sip"
        if dialect.name != "canonical":
            figures[f"format_{dialect.name}{suffix}_to_canonical"] = ratio
        else:
            figures[f"canonical{suffix}_us"] = ours
    text = (_HEADING + _SIP).encode()
    decode = decoder("sip", Format(name="sip_text", switch="tap-1", zone="UTC"))
    figures["sip_raw_us"] = min(_microseconds(lambda: decode(text)) for _ in range(_ROUNDS))
    console.print(
        f"raw SIP text of {len(text)} bytes to its event: {figures['sip_raw_us']:.2f} µs", highlight=False
    )
    figures |= _encoded(console, canonical["calls"][0])
    return figures | _full_size(console, canonical["calls"][0])


def _encoded(console: Console, canonical: Callable[[], object]) -> dict[str, float]:
    """A FreeSWITCH leg whose values are URL-encoded, as mod_json_cdr's are unless it is told otherwise."""
    dialect = next(each for each in DIALECTS if each.name == "freeswitch_json_cdr")
    value, decode = _message(dialect, "encoded.json")
    ours, ratio = _beside(lambda: decode(value), canonical)
    console.print(f"{dialect.name}, encoded: {ours:.2f} µs, {ratio:.2f} x canonical", highlight=False)
    return {f"format_{dialect.name}_encoded_to_canonical": ratio}


def _full_size(console: Console, canonical: Callable[[], object]) -> dict[str, float]:
    """FreeSWITCH legs of their usual size, most of which billing does not read."""
    figures = {}
    for dialect in DIALECTS:
        if not dialect.name.startswith("freeswitch"):
            continue
        value, decode = _message(dialect)
        document = json.loads(value)
        variables, prefix = (
            (document["variables"], "") if "variables" in document else (document, "variable_")
        )
        for number in range(_PADDING_VARIABLES):
            variables[f"{prefix}rtp_audio_in_statistic_{number}"] = "0.0000000"
        full = json.dumps(document).encode()
        ours, ratio = _beside(lambda decode=decode, full=full: decode(full), canonical)  # type: ignore[misc]
        console.print(
            f"{dialect.name} of {len(full):,} bytes: {ours:.2f} µs, {ratio:.2f} x canonical", highlight=False
        )
        figures[f"{dialect.name}_full_size_us"] = ours
    return figures


def _message(dialect: Dialect, name: str | None = None) -> tuple[bytes, Callable[[bytes | None], object]]:
    folder = _FIXTURES / f"{dialect.kind}-{dialect.name}"
    expected: dict[str, dict[str, Any]] = json.loads((folder / "expected.json").read_text())["messages"]
    billed = _BILLED[dialect.kind]
    name = name or next(each for each, outcome in expected.items() if billed in outcome)
    settings = Format.model_validate_json((folder / "settings.json").read_text())
    return (folder / name).read_bytes(), decoder(dialect.kind, settings)


def _reading(dialect: Dialect) -> tuple[Callable[[], object], int]:
    value, decode = _message(dialect)
    return lambda: decode(value), len(value)


def _beside(ours: Callable[[], object], canonical: Callable[[], object]) -> tuple[float, float]:
    """Microseconds at best, and the median ratio to the canonical form's in the same round."""
    rounds = [(_microseconds(ours), _microseconds(canonical)) for _ in range(_ROUNDS)]
    return min(each for each, _ in rounds), statistics.median([each / base for each, base in rounds])


def _microseconds(read: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(_MESSAGES):
        read()
    return (time.process_time() - started) / _MESSAGES * 1e6

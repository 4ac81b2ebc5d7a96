"""What services log is JSON, line by line, and names nobody."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# a phone number, an address of either kind, a key, or what the mask of the logs leaves of one
_SOMEBODYS = re.compile(
    r"\+\d{7}|\b(?!127\.)\d{1,3}(\.\d{1,3}){3}|\S@\S|[rs]k_(test|live)|<(number|address|key|password)>"
)


def logged(*logs: Path) -> list[dict[str, Any]]:
    """The events of some logs; each line must be one, and hold nobody's number, address or key."""
    events = []
    for log in logs:
        for line in log.read_text().splitlines():
            assert line.startswith("{"), f"no JSON: {line}"
            assert not _SOMEBODYS.search(line), line
            events.append(json.loads(line))
    return events

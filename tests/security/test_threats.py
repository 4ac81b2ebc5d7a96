"""The threat model names tests; they exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "security.md").read_text()


def test_each_threat_has_its_tests_and_they_exist() -> None:
    written = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), flags=re.MULTILINE)
    }
    table = PAGE.split("| somebody …")[1].split("\n\n")[0]
    threats = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(threats) > 10
    for threat in threats:
        named = re.findall(r"`(test_\w+)`", threat)
        assert named, threat
        assert set(named) <= written, set(named) - written

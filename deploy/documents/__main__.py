"""`python -m deploy.documents` writes every generated document anew, into the tree it is part of."""

from __future__ import annotations

from pathlib import Path

from deploy.documents.pages import pages

root = Path(__file__).resolve().parents[2]
for name, text in pages().items():
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")

"""The pages of the tree: links lead somewhere, each package and each decision is told in the same way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".", "schemas", "attribution", "rollup", "invoicing", "pipeline", "deploy")
PAGES = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
    if ".run" not in file.parts
)
PACKAGES = sorted(file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests")


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Each link inside the tree: the file, and the heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            path, _, heading = target.partition("#")
            yield (page.parent / path if path else page), heading


def headings(page: Path) -> set[str]:
    """As GitHub names them in a link."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, heading in links(page):
        assert target.exists(), target
        assert not heading or heading in headings(target), f"{target}#{heading}"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_says_what_it_owns_what_not_and_how_it_fails(package: str) -> None:
    told = (ROOT / package / "README.md").read_text()
    for words in (r"\bOwns\b", r"\bDoes not own\b", r"^(## |\*\*)How it fails"):
        assert re.search(words, told, re.MULTILINE), words


def test_decisions_are_numbered_in_a_row_and_say_why_and_what_was_not_chosen() -> None:
    files = sorted((ROOT / "deploy/decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        told = file.read_text()
        assert re.match(rf"# {int(file.name[:4])}\. \S", told), file
        parts = re.findall(r"^\*\*(Context|Decision|Consequences|Not chosen)", told, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Not chosen"], file


def test_each_promise_names_tests_of_its_own() -> None:
    table = (ROOT / "README.md").read_text().split("| promise | tests |")[1].split("\n\n")[0]
    promises = re.findall(r"^\| \*\*(.+?)\*\*.*\| (.+) \|$", table, re.MULTILINE)
    assert [name for name, _ in promises] == [
        "Counted once",
        "Nothing dropped silently",
        "History never changes",
        "Exact to the cent",
        "Asked for once",
    ]
    for name, tests in promises:
        files = re.findall(r"\]\((tests/\S+\.py)\)", tests)
        assert files, name
        for file in files:
            assert re.search(r"^def test_", (ROOT / file).read_text(), re.MULTILINE), file

"""The project's own pages, and what stands in them: commands, code spans, links, headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("recsys", "tests", "examples", "tuning", "clusters")
SHELL = ("", "sh", "bash", "console")
"""Languages of a fenced block whose lines are commands; an indented block is one too."""


@dataclass(frozen=True)
class Page:
    """A Markdown file, its fenced and indented blocks apart from the rest."""

    path: Path
    prose: str
    commands: tuple[str, ...]
    """Of its shell blocks, in one line each, without comments."""

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def spans(self) -> list[str]:
        """What stands in backticks in the prose."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @property
    def anchors(self) -> set[str]:
        """Of its headings, as GitHub makes them."""
        heads = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def pages() -> tuple[Page, ...]:
    paths = sorted(ROOT.glob("*.md"))
    paths += [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))]
    return tuple(read(path) for path in paths)


def page(name: str) -> Page:
    return read(ROOT / name)


@cache
def read(path: Path) -> Page:
    prose, shell = [], []
    language, before = None, ""
    for line in path.read_text().splitlines():
        if line.startswith("```"):
            language = line[3:].strip() if language is None else None
        elif language is not None:
            shell += [line] if language in SHELL else []
        elif line.startswith("    ") and (not before or before.startswith(("    ", "#"))):
            shell.append(line)
        else:
            prose.append(line)
        before = line
    return Page(path, "\n".join(prose), tuple(commands_of(shell)))


def commands_of(lines: list[str]) -> Iterator[str]:
    """Lines that end with a backslash go on; two blanks and # begin a comment."""
    whole = "\n".join(re.sub(r"(^|\s\s)\s*# .*$", "", line) for line in lines)
    for line in re.sub(r"\\\n", " ", whole).splitlines():
        if line.strip():
            yield " ".join(line.split())

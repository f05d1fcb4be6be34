"""The code blocks of the documentation."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^([ \t]*)```(\w*)\n(.*?)^\1```[ \t]*$", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """``line``: that of its first line in the page, from 1."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All blocks of these languages, page by page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            if match[2] in languages:
                line = text.count("\n", 0, match.start(3)) + 1
                found.append(Block(str(page.relative_to(ROOT)), line, match[2], match[3]))
    return found


def commands(*names: str) -> list[tuple[Block, str]]:
    """The commands of these names in all blocks for shells, without comments and redirections."""
    found = []
    for block in blocks("bash", "sh"):
        for line in _whole_lines(re.sub(r"\\\n", " ", block.text)):
            for part in re.split(r"\s;\s|\s&&\s", line):
                words = part.split()
                if words and "=" not in words[0] and words[0].rpartition("/")[2] in names:
                    found.append((block, re.sub(r"\s[|>]\s.*$", "", part).strip()))
    return found


def _whole_lines(text: str) -> list[str]:
    """Lines, those with an open quote joined with what follows."""
    found, waiting = [], ""
    for line in text.split("\n"):
        waiting += line if not waiting else f"\n{line}"
        try:
            shlex.split(waiting, comments=True)
        except ValueError:  # an open quote
            continue
        found.append(re.sub(r"(^|\s)#\s[^\n]*$", "", waiting))
        waiting = ""
    return found

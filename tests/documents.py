"""The Markdown pages of the repository: their code blocks, headings and links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_GENERATED = ("build", "demo-work", "bench-work", "evaluation-report", "loadtest-report")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str


def _pages() -> list[str]:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    found = [page for folder in folders if folder.name not in _GENERATED for page in folder.rglob("*.md")]
    return sorted(str(page.relative_to(ROOT)) for page in (*ROOT.glob("*.md"), *found))


PAGES = _pages()


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the code blocks of a page, in order."""
    return [Block(language, code) for language, code in _FENCE.findall(text)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page. Headings of one name are not numbered."""
    headings = [heading.strip().lower() for heading in _HEADING.findall(_FENCE.sub("", text))]
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "]", heading)).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Return the relative links of a page, with their anchors."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    return [link for link in _LINK.findall(prose) if not re.match(r"[a-z]+:", link)]


def broken_links(page: Path) -> list[str]:
    """Return the relative links of `page` whose file or heading does not exist."""
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken

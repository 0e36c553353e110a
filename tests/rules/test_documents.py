"""Links of the Markdown pages lead somewhere, and their code blocks say whether the tests run them."""

from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, blocks, broken_links, read_page

# bash and python are run by tests/e2e/test_first_five_minutes.py, yaml is checked there or (of helm/) in tests/k8s, the
# others are not run.
LANGUAGES = {"bash", "python", "yaml", "console", ""}


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/clients.md", "docs/decisions/0014-api-keys.md", "helm/qwen-tts/README.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: str) -> None:
    assert broken_links(ROOT / page) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_code_block_has_a_known_language(page: str) -> None:
    text = read_page(page)
    assert {block.language for block in blocks(text)} <= LANGUAGES
    assert text.count("\n```") == 2 * len(blocks(text)), "a block is not closed, or is indented"


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A `first` heading, here\n\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Own\n[a](other.md) [b](other.md#a-first-heading-here) [c](#own) [d](https://example.com/none.md)\n"
        "`[e](code.md)` [f](gone.md) [g](other.md#no-heading) [h\ni](#owned) ![j](gone.png)\n"
    )
    assert broken_links(page) == ["gone.md", "other.md#no-heading", "#owned", "gone.png"]

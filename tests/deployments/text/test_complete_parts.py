"""Sentences and clauses of a text that is still being written."""

import pytest

from deployments.text.sentences import complete_parts


def written(text: str, language: str = "auto", *, clauses: bool = False) -> list[str]:
    """Return the parts of a text that arrives letter by letter, and the rest at its end."""
    parts: list[str] = []
    rest = ""
    for letter in text:
        complete, rest = complete_parts(rest + letter, language, clauses=clauses)
        parts += complete
    return [*parts, rest.strip()]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two. Three! Four", ["One two.", "Three!", "Four"]),
        ("It is 3.5 now. Mr. Smith came.", ["It is 3.5 now.", "Mr. Smith came."]),
        ('He said "Go." Then', ['He said "Go."', "Then"]),
        ("你好。我是谁？她", ["你好。", "我是谁？", "她"]),
        ("One...", ["One..."]),
        ("", [""]),
    ],
)
def test_a_sentence_is_complete_when_another_has_begun(text: str, sentences: list[str]) -> None:
    assert written(text) == sentences


def test_clauses() -> None:
    assert written("One, two; three. 1,000 four", clauses=True) == ["One,", "two;", "three.", "1,000 four"]
    assert written("你好，我是。她", "chinese", clauses=True) == ["你好，", "我是。", "她"]


def test_nothing_is_lost_however_it_comes() -> None:
    text = 'One. "Two," he said — (three). 4.5?! 你好。… Five:\n\nsix.'
    for clauses in (False, True):
        assert "".join("".join(written(text, clauses=clauses)).split()) == "".join(text.split())
        parts, rest = complete_parts(text, "auto", clauses=clauses)
        assert "".join("".join([*parts, rest]).split()) == "".join(text.split())

"""Splitting of text that is too long for one utterance: after sentences, else after clauses, else after words."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import sentencex

from deployments.text.languages import LANGUAGE_CODES

# The boundary at the end of a piece. It determines the pause after the piece.
Ending = Literal["paragraph", "sentence", "clause", "word"]

# For a text without a language: its script decides (kana is tested before Han, because Japanese text has both); else
# its most common words decide.
_SCRIPTS = (("ja", "[\u3040-\u30ff]"), ("ko", "[\uac00-\ud7a3]"), ("zh", "[\u4e00-\u9fff]"), ("ru", "[\u0400-\u04ff]"))
_COMMON_WORDS = {
    "en": {"the", "and", "of", "to", "is", "in", "that", "was", "you"},
    "de": {"der", "die", "und", "das", "ist", "nicht", "ein", "zu", "von"},
    "fr": {"le", "les", "et", "est", "des", "une", "que", "dans", "je"},
    "pt": {"o", "os", "não", "uma", "um", "do", "da", "em", "com"},
    "es": {"el", "los", "y", "en", "una", "por", "del", "las", "es"},
    "it": {"il", "che", "di", "è", "non", "per", "sono", "della", "gli"},
}
_GUESSED_FROM = 1000  # characters at the beginning of the text

_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n\s*")
_CLAUSES = re.compile(r"[,;:–—…]+[\"'”’»)\]]*\s+|[，、；：…—]+[”’」』）]*\s*")
_WORDS = re.compile(r"\s+")
_WIDE = 0x2E80  # the first code point of Chinese, Japanese and Korean characters, and of emoji


@dataclass(frozen=True)
class Piece:
    """One utterance: the characters [start, end) of the whole text."""

    text: str
    start: int
    end: int
    ending: Ending


def spoken_length(text: str) -> int:
    """Return the length in letters. A Chinese, Japanese or Korean character takes as long to speak as three letters."""
    return len(text) if text.isascii() else len(text) + 2 * sum(ord(character) >= _WIDE for character in text)


def split(text: str, language: str, longest: int, first: int) -> list[Piece]:
    """Split a text into pieces of at most `longest`; lengths are those of `spoken_length`.

    A text of at most `longest` is returned as one unchanged piece. Otherwise a piece ends with the sentence that brings
    it to half of `longest`. The first piece, which the listener waits for, and the last piece of a paragraph end with
    the sentence that brings them to `first`. No piece is blank. Only the white space between pieces is left out.
    """
    if spoken_length(text) <= longest:
        return [Piece(text, 0, len(text), "paragraph")]
    paragraphs = {*(match.end() for match in _PARAGRAPHS.finditer(text)), len(text)}
    sentences = set(_sentence_ends(text, sorted(paragraphs), language))
    pieces: list[Piece] = []
    start = end = 0
    half = longest // 2
    for next_end in _atoms(text, sorted(sentences), longest):
        size = _size(text, start, end)
        enough = min(first, half) if not pieces or end in paragraphs else half
        complete = size >= enough and end in sentences and _has_words(text[end:next_end])
        if size and (complete or _size(text, start, next_end) > longest):
            pieces.append(_piece(text, start, end, _ending(text, end, paragraphs, sentences)))
            start = end
        end = next_end
    if _size(text, start, end):
        pieces.append(_piece(text, start, end, "paragraph"))
    ends, starts = [0, *(piece.end for piece in pieces)], [*(piece.start for piece in pieces), len(text)]
    left_out = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    assert not "".join(left_out).strip(), f"words are in no piece: {left_out}"
    assert all(end <= start for end, start in zip(ends, starts, strict=True)), "two pieces overlap"
    assert all(spoken_length(piece.text) <= longest for piece in pieces), f"a piece is longer than {longest}"
    return pieces


def complete_parts(text: str, language: str, *, clauses: bool) -> tuple[list[str], str]:
    """Split a growing text into its complete parts and the rest.

    A sentence is complete when the next one has begun. With `clauses`, a clause is a part too.
    """
    ends = set(_sentence_ends(text, [len(text)], language))
    if clauses:
        ends.update(match.end() for match in _CLAUSES.finditer(text))
    words = [place for place, character in enumerate(text) if character.isalnum()]
    parts: list[str] = []
    start = spoken = 0
    for end in sorted(ends):
        before = bisect_left(words, end)
        if spoken < before < len(words):
            parts.append(text[start:end].strip())
            start, spoken = end, before
    return parts, text[start:]


def _sentence_ends(text: str, paragraphs: list[int], language: str) -> Iterator[int]:
    """Yield the ends of the sentences, as positions in `text`; every end of a paragraph is among them.

    The library may leave out white space, so every sentence it returns is located in the text again.
    """
    code = LANGUAGE_CODES.get(language.lower()) or _guess(text)
    start = 0
    for paragraph_end in paragraphs:
        for sentence in sentencex.segment(code, text[start:paragraph_end]):
            found = text.find(sentence.strip(), start, paragraph_end)
            if found >= 0:
                start = found + len(sentence.strip())
                assert start <= paragraph_end, "a sentence goes on in the next paragraph"
                yield start
        yield paragraph_end
        start = paragraph_end


def _guess(text: str) -> str:
    """Return the code of the likely language."""
    sample = text[:_GUESSED_FROM]
    if (by_script := next((code for code, script in _SCRIPTS if re.search(script, sample)), None)) is not None:
        return by_script
    words = re.findall(r"\w+", sample.lower())
    return max(_COMMON_WORDS, key=lambda code: sum(word in _COMMON_WORDS[code] for word in words))


def _atoms(text: str, sentences: list[int], longest: int) -> Iterator[int]:
    """Yield the ends of the smallest units: sentences that fit into `longest`, and parts of longer sentences."""
    start = 0
    for end in sentences:
        yield from _parts(text, start, end, longest, (_CLAUSES, _WORDS))
        start = end


def _parts(text: str, start: int, end: int, longest: int, marks: tuple[re.Pattern[str], ...]) -> Iterator[int]:
    """Yield the ends of the parts of text[start:end].

    The text is cut at the first of `marks`. Parts that are still too long are cut at the next mark. When no mark is
    left, they are cut anywhere.
    """
    if _size(text, start, end) > longest and marks:
        for cut in [*(match.end() for match in marks[0].finditer(text, start, end)), end]:
            yield from _parts(text, start, cut, longest, marks[1:])
            start = cut
        return
    if _size(text, start, end) > longest:
        yield from range(start + longest // 3, end, longest // 3)
    yield end


def _ending(text: str, end: int, paragraphs: set[int], sentences: set[int]) -> Ending:
    """Return the boundary that lies at `end`."""
    if end in paragraphs:
        return "paragraph"
    if end in sentences:
        return "sentence"
    return "clause" if next(_CLAUSES.finditer(text, max(0, end - 8), end), None) else "word"


def _piece(text: str, start: int, end: int, ending: Ending) -> Piece:
    """Return text[start:end] as a piece, without the white space around it."""
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    assert part.strip(), f"the piece at {start} is blank"
    return Piece(part.strip(), start, start + len(part.strip()), ending)


def _size(text: str, start: int, end: int) -> int:
    return spoken_length(text[start:end].strip())


def _has_words(text: str) -> bool:
    """Return whether the text can be spoken. Closing quotes alone, for example, are no utterance."""
    return any(character.isalnum() for character in text)

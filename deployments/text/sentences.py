"""Text beyond one utterance, cut where a speaker would breathe: after sentences, else clauses, else words."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import sentencex

from deployments.text.languages import LANGUAGE_CODES

# What a piece of text ends with; the pause after it depends on that.
Ending = Literal["paragraph", "sentence", "clause", "word"]

# Of a text in no language that was named: by its script, kana before Han, which Japanese has too; else by the words
# that every text has.
_SCRIPTS = (("ja", "[\u3040-\u30ff]"), ("ko", "[\uac00-\ud7a3]"), ("zh", "[\u4e00-\u9fff]"), ("ru", "[\u0400-\u04ff]"))
_COMMON_WORDS = {
    "en": {"the", "and", "of", "to", "is", "in", "that", "was", "you"},
    "de": {"der", "die", "und", "das", "ist", "nicht", "ein", "zu", "von"},
    "fr": {"le", "les", "et", "est", "des", "une", "que", "dans", "je"},
    "pt": {"o", "os", "não", "uma", "um", "do", "da", "em", "com"},
    "es": {"el", "los", "y", "en", "una", "por", "del", "las", "es"},
    "it": {"il", "che", "di", "è", "non", "per", "sono", "della", "gli"},
}
_GUESSED_FROM = 1000  # characters

_PARAGRAPHS = re.compile(r"\n[^\S\n]*\n\s*")
_CLAUSES = re.compile(r"[,;:–—…]+[\"'”’»)\]]*\s+|[，、；：…—]+[”’」』）]*\s*")
_WORDS = re.compile(r"\s+")
_WIDE = 0x2E80  # from here on: Chinese, Japanese and Korean, and emoji


@dataclass(frozen=True)
class Piece:
    """One utterance: characters [start, end) of the whole text."""

    text: str
    start: int
    end: int
    ending: Ending


def spoken_length(text: str) -> int:
    """Characters, a Chinese, Japanese or Korean one counted as three: it takes as long to say as three letters."""
    return len(text) if text.isascii() else len(text) + 2 * sum(ord(character) >= _WIDE for character in text)


def split(text: str, language: str, longest: int, first: int) -> list[Piece]:
    """Pieces of up to `longest`, as `spoken_length` counts; text of that length is one piece, as it is.

    A piece ends with the sentence that makes it half as long as it may be; the first one, which is waited for, and the
    last of a paragraph with one that makes it `first`. None is blank, and nothing but the white space between them is
    left out.
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
    return pieces


def complete_parts(text: str, language: str, *, clauses: bool) -> tuple[list[str], str]:
    """Of a growing text the sentences (or clauses) after which another has begun, and the rest."""
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
    """The library may leave out white space, so its sentences are looked up: they place cuts, the text stays ours."""
    code = LANGUAGE_CODES.get(language.lower()) or _guess(text)
    start = 0
    for paragraph_end in paragraphs:
        for sentence in sentencex.segment(code, text[start:paragraph_end]):
            found = text.find(sentence.strip(), start, paragraph_end)
            if found >= 0:
                start = found + len(sentence.strip())
                yield start
        yield paragraph_end
        start = paragraph_end


def _guess(text: str) -> str:
    sample = text[:_GUESSED_FROM]
    if (by_script := next((code for code, script in _SCRIPTS if re.search(script, sample)), None)) is not None:
        return by_script
    words = re.findall(r"\w+", sample.lower())
    return max(_COMMON_WORDS, key=lambda code: sum(word in _COMMON_WORDS[code] for word in words))


def _atoms(text: str, sentences: list[int], longest: int) -> Iterator[int]:
    """Ends of what is not cut any further: sentences that fit, and parts of the others."""
    start = 0
    for end in sentences:
        yield from _parts(text, start, end, longest, (_CLAUSES, _WORDS))
        start = end


def _parts(text: str, start: int, end: int, longest: int, marks: tuple[re.Pattern[str], ...]) -> Iterator[int]:
    """Ends of text[start:end] cut at the first of `marks`, what is still too long at the next; with none, anywhere."""
    if _size(text, start, end) > longest and marks:
        for cut in [*(match.end() for match in marks[0].finditer(text, start, end)), end]:
            yield from _parts(text, start, cut, longest, marks[1:])
            start = cut
        return
    if _size(text, start, end) > longest:
        yield from range(start + longest // 3, end, longest // 3)
    yield end


def _ending(text: str, end: int, paragraphs: set[int], sentences: set[int]) -> Ending:
    if end in paragraphs:
        return "paragraph"
    if end in sentences:
        return "sentence"
    return "clause" if next(_CLAUSES.finditer(text, max(0, end - 8), end), None) else "word"


def _piece(text: str, start: int, end: int, ending: Ending) -> Piece:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return Piece(part.strip(), start, start + len(part.strip()), ending)


def _size(text: str, start: int, end: int) -> int:
    return spoken_length(text[start:end].strip())


def _has_words(text: str) -> bool:
    """A piece of closing quotes alone would be an utterance of nothing."""
    return any(character.isalnum() for character in text)

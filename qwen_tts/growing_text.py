"""Token ids of a text that is still being written: only those that no further character can change.

The rest may still change and is held back:

- The end of the text before composition (NFC): a letter and the accent that follows it may become another letter.
- The last pre-token (see the expression in text.py), because a word may go on. A pre-token is complete once a character
  follows that does not belong to it. A pre-token of blanks is complete once something else follows, because its last
  blank may belong to the word that follows.
- Of that last pre-token only the end is held back: the part behind the last certain boundary. A boundary between two
  tokens is certain if no entry of the vocabulary could ever lie across it. Byte-pair encoding only joins neighbours to
  entries of the vocabulary, so the two sides of such a boundary are never joined, and each is encoded as if it stood
  alone. So texts without spaces are spoken without delay.
"""

import bisect
import functools
import unicodedata
from collections.abc import Iterable

from tokenizers import Tokenizer

_ALPHABETS = 0x20000  # the planes beyond hold ideographs, which compose with nothing
_HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)
_HANGUL_FINALS = 28  # a syllable without a final may get one
_HANGUL_LEADS, _HANGUL_REST = range(0x1100, 0x1113), (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))


class Vocabulary:
    """The entries of a vocabulary in the spelling of byte-level encoding: one character per byte."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = sorted(entries)
        self._longest = max(map(len, self._entries), default=0)

    def may_cross(self, spelled: str, at: int) -> bool:
        """Whether an entry could lie across the boundary at `at` in a text that begins with `spelled`."""
        return any(
            self._has_longer(spelled[start:])
            or (self._has_longer(spelled[start:at]) and self._has_between(spelled, start, at))
            for start in range(at - 1, max(0, at - self._longest) - 1, -1)
        )

    def _has_longer(self, beginning: str) -> bool:
        index = bisect.bisect_right(self._entries, beginning)
        return index < len(self._entries) and self._entries[index].startswith(beginning)

    def _has_between(self, spelled: str, start: int, at: int) -> bool:
        ends = range(at + 1, min(len(spelled), start + self._longest) + 1)
        return any(self._has(spelled[start:end]) for end in ends)

    def _has(self, entry: str) -> bool:
        index = bisect.bisect_left(self._entries, entry)
        return index < len(self._entries) and self._entries[index] == entry


class GrowingText:
    """Encodes one text that arrives in parts. The ids of all `append` and `finish` calls are those of the whole text.

    An example with the released vocabulary, after "Hello, 机器学习" has been appended:

        Hello | , | 机器学习      pre-tokens; the last one includes the blank and is incomplete: it may go on
                  [ |机器|学习]   _open: the text from the first incomplete pre-token on, here with its tokens
                  |----|          _given: its first 7 bytes, whose ids have been returned
                       |----|     held back: an entry of the vocabulary could lie across its end
    """

    def __init__(self, bpe: Tokenizer, vocabulary: Vocabulary, opening: str) -> None:
        """opening: the beginning of the text. Its ids are returned with those of the text that is appended."""
        self._bpe = bpe
        self._vocabulary = vocabulary
        self._open = opening  # composed
        self._given = 0

    def append(self, text: str) -> list[int]:
        """Return the ids that have become certain with `text`."""
        self._open = self._bpe.normalizer.normalize_str(self._open + text)
        return self._take(self._open[: _settled(self._open)], ended=False)

    def finish(self) -> list[int]:
        """Return the remaining ids of the text, which is complete now."""
        return self._take(self._open, ended=True)

    def _take(self, text: str, *, ended: bool) -> list[int]:
        """Return the certain ids of `text`, the beginning of `_open`. Drop complete pre-tokens from `_open`."""
        ids: list[int] = []
        complete = 0  # characters
        for spelled, (start, end) in self._bpe.pre_tokenizer.pre_tokenize_str(text):
            if not ended and not _is_complete(text[start:end], text[end:]):
                if not text[start:end].isspace():
                    ids += self._take_beginning(spelled)
                break
            assert self._given <= len(spelled), f"ids for {self._given} bytes of {spelled!r} have been returned"
            ids += [token.id for token in self._bpe.model.tokenize(spelled[self._given :])]
            self._given = 0
            complete = end
        self._open = self._open[complete:]
        return ids

    def _take_beginning(self, spelled: str) -> list[int]:
        """Return the ids up to the last certain token boundary of an incomplete pre-token."""
        rest = spelled[self._given :]
        tokens = self._bpe.model.tokenize(rest)
        boundary = len(rest)
        for count in range(len(tokens), 0, -1):
            if not self._vocabulary.may_cross(rest, boundary):
                self._given += boundary
                return [token.id for token in tokens[:count]]
            boundary -= len(tokens[count - 1].value)
        return []


def _is_complete(pre_token: str, following: str) -> bool:
    """Whether the text after `pre_token` shows where it ends."""
    if pre_token.isspace():  # its last blank may belong to the word that follows
        return following.strip() != ""
    return following != ""


def _settled(text: str) -> int:
    """Return the number of characters of the composed `text` that no further character can change.

    The last character that neither combines nor composes with one before it begins the part that may change:

        n a ı v e ◌̣         "e" may compose with a mark that comes before or after ◌̣
        settled |-open-|
    """
    firsts, seconds = _composing()
    last = len(text) - 1
    for index in range(last, -1, -1):
        if unicodedata.combining(text[index]) == 0 and text[index] not in seconds:
            may_change = text[index] in firsts or index < last
            return index if may_change else index + 1
    return 0


@functools.cache
def _composing() -> tuple[frozenset[str], frozenset[str]]:
    """Return the characters that may compose with a following one, and those that may compose with one before."""
    decompositions = filter(None, map(unicodedata.decomposition, map(chr, range(_ALPHABETS))))
    pairs = [parts for parts in map(str.split, decompositions) if len(parts) == 2 and not parts[0].startswith("<")]
    canonical = [(chr(int(first, 16)), chr(int(second, 16))) for first, second in pairs]
    open_syllables = map(chr, (*_HANGUL_LEADS, *_HANGUL_SYLLABLES[::_HANGUL_FINALS]))
    firsts = frozenset((*(first for first, _ in canonical), *open_syllables))
    return firsts, frozenset((*(second for _, second in canonical), *map(chr, _HANGUL_REST)))

"""The texts of the corpus: words in free order, strings of digits, and a little of Alice in Wonderland.

Flite speaks by rule, so a word sounds the same in a random string as in a sentence. In free order any word may follow
any other. The corpus contains no held-out text.
"""

import re
from functools import cache
from pathlib import Path
from random import Random

from wordfreq import top_n_list, word_frequency

VOCABULARY_WORDS = 8000
NUMBERS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million",
)  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ALICE = Path("/usr/share/doc/flite/examples/alice")  # chapters 1 and 2, public domain
_HELD_OUT = Path(__file__).with_name("held_out")
_MAX_WORDS = 14
_CONTRACTIONS = (
    "don't", "it's", "i'm", "that's", "can't", "you're", "didn't", "i'll", "we're", "isn't", "let's", "he's",
)  # fmt: skip


@cache
def vocabulary() -> list[str]:
    """Return the most frequent English words of letters only, in lower case; each becomes one token."""
    found = [word for word in top_n_list("en", 2 * VOCABULARY_WORDS) if word.isascii() and word.isalpha()]
    single = [word for word in found if len(word) > 1 or word in ("a", "i")]
    return sorted({*single[:VOCABULARY_WORDS], *DIGITS, *NUMBERS})


@cache
def _weights() -> list[float]:
    return [word_frequency(word, "en") ** 0.5 for word in vocabulary()]


@cache
def _alice_sentences() -> list[str]:
    text = re.sub(r"\s+", " ", _ALICE.read_text(encoding="latin-1")).replace("`", "").replace("*", "")
    sentences = re.split(r"(?<=[.!?;:])'?\s+", text)
    return [s for s in sentences if 2 <= len(s.split()) <= _MAX_WORDS and re.fullmatch(r"[A-Za-z',.!?;: -]+", s)]


@cache
def held_out() -> frozenset[str]:
    """Return the texts of the evaluation, as `_plain` texts."""
    lines = [line for file in _HELD_OUT.glob("*.txt") for line in file.read_text(encoding="utf-8").splitlines()]
    return frozenset(map(_plain, lines))


def draw_text(rng: Random) -> str:
    """Return a text of 1 to 14 words as users type it: capitals and punctuation vary; some are two sentences."""
    while _plain(text := _draw(rng)) in held_out():
        pass
    return text


def _plain(text: str) -> str:
    words = re.findall(r"[a-z']+|[0-9]", text.lower())
    return " ".join(DIGITS[int(word)] if word.isdigit() else word for word in words)


def _draw(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.12:
        return _digit_string(rng)
    if kind < 0.17:
        return rng.choice(_alice_sentences())
    if kind < 0.25:
        return " ".join((_word_string(rng, _MAX_WORDS // 2).rstrip(".!?") + ".", _word_string(rng, _MAX_WORDS // 2)))
    return _word_string(rng, _MAX_WORDS)


def _digit_string(rng: Random) -> str:
    digits = [rng.randrange(10) for _ in range(rng.randint(1, 8))]
    if rng.random() < 0.3:
        return " ".join(str(digit) for digit in digits)
    words = [DIGITS[digit] for digit in digits]
    return _punctuate(rng, words, comma=0.05)


def _word_string(rng: Random, longest: int) -> str:
    count = rng.randint(1, longest)
    common = rng.choices(vocabulary(), _weights(), k=count)
    words = [word if rng.random() < 0.6 else rng.choice(vocabulary()) for word in common]
    if rng.random() < 0.15:
        words[rng.randrange(count)] = rng.choice(_CONTRACTIONS)
    return _punctuate(rng, words, comma=0.06)


def _punctuate(rng: Random, words: list[str], comma: float) -> str:
    words = ["I" + word[1:] if word == "i" or word.startswith("i'") else word for word in words]
    words = [word + "," if rng.random() < comma else word for word in words[:-1]] + words[-1:]
    text = " ".join(words)
    if rng.random() < 0.6:
        text = text[0].upper() + text[1:]
    return text + rng.choices([".", "", "!", "?"], [0.6, 0.25, 0.07, 0.08])[0]

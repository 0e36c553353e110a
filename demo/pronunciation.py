"""A text table that is a pronouncing dictionary.

Every token's embedding is its phones side by side, in slots. The talker learns to read 50 phones instead of tens of
thousands of words, and speaks words that are rare in the training data. The released architecture needs only a table of
rows; their origin is a matter of training.
"""

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from demo.texts import DIGITS

SLOTS = 14
SLOT_WIDTH = 8
_NOTHING, _AFTER_SPACE, _OTHER = "", "space", "other"
# A single letter inside a word stands for its sound, not for its name.
_LETTER_SOUNDS = {
    "a": "ae1", "b": "b", "c": "k", "d": "d", "e": "eh1", "f": "f", "g": "g", "h": "hh", "i": "ih1", "j": "jh",
    "k": "k", "l": "l", "m": "m", "n": "n", "o": "aa1", "p": "p", "q": "k", "r": "r", "s": "s", "t": "t", "u": "ah1",
    "v": "v", "w": "w", "x": "k s", "y": "iy", "z": "z",
}  # fmt: skip


@dataclass(frozen=True)
class Pronunciations:
    """`slots` [V, SLOTS] int64: the phone numbers of every token; the last slot tells whether a space precedes it."""

    symbols: tuple[str, ...]
    slots: Tensor


def letters_to_phones(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the phones of each word by flite's lexicon and letter-to-sound rules."""

    def phones(word: str) -> list[str]:
        spoken = subprocess.run(["t2p", word], capture_output=True, text=True, check=True).stdout.split()
        return [phone for phone in spoken if phone != "pau"]

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(words, tqdm(pool.map(phones, words), "phones", total=len(words)), strict=True))


def pronounce(tokens: Sequence[str], specials: Sequence[str], cache: Path) -> Pronunciations:
    """Return the phones of all tokens (texts, with a leading space) and special tokens, in the order of the ids."""
    if not cache.exists():
        words = sorted({t.strip().lower() for t in tokens if t.strip().isalpha() and t.strip().isascii()})
        cache.write_text(json.dumps(letters_to_phones(words)), encoding="utf-8")
    dictionary = json.loads(cache.read_text(encoding="utf-8"))
    spelled = [_phones(token, dictionary) for token in tokens] + [[special] for special in specials]
    spaces = [_AFTER_SPACE if t.startswith(" ") else _NOTHING for t in (*tokens, *specials)]
    symbols = (_NOTHING, *sorted({symbol for phones in spelled for symbol in phones} | {_AFTER_SPACE}))
    numbers = {symbol: number for number, symbol in enumerate(symbols)}
    rows = [
        [numbers[p] for p in phones[: SLOTS - 1]] + [0] * (SLOTS - 1 - len(phones)) + [numbers[space]]
        for phones, space in zip(spelled, spaces, strict=True)
    ]
    return Pronunciations(symbols, torch.tensor(rows))


def _phones(token: str, dictionary: dict[str, list[str]]) -> list[str]:
    text = token.strip()
    if text.isdigit() and text.isascii():
        return dictionary[DIGITS[int(text)]]
    if len(text) == 1 and text.isascii() and text.islower() and not (text in "ai" and token.startswith(" ")):
        return _LETTER_SOUNDS[text].split()
    if text.lower() in dictionary:
        return dictionary[text.lower()]
    # Punctuation and the endings of contractions are symbols of their own.
    return [text] if text.isascii() and text.isprintable() and text else [_OTHER]


class PronouncedEmbedding(nn.Module):
    """Replaces the text table during training; `table` computes the final text table."""

    slots: Tensor

    def __init__(self, pronunciations: Pronunciations) -> None:
        super().__init__()
        self.register_buffer("slots", pronunciations.slots, persistent=False)
        self.phones = nn.Embedding(len(pronunciations.symbols), SLOT_WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] -> [..., SLOTS * SLOT_WIDTH]."""
        out: Tensor = self.phones(self.slots[ids]).flatten(-2)
        return out

    def table(self) -> Tensor:
        """Return the text table [V, SLOTS * SLOT_WIDTH]."""
        with torch.no_grad():
            table: Tensor = self(torch.arange(len(self.slots)))
        return table

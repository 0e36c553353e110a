"""The text tokenizer of the demo checkpoints: byte-level BPE in which every vocabulary word is one token."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from demo.texts import vocabulary
from qwen_tts.seeded_tokenizer import SPECIAL_TOKENS, byte_alphabet

_ROLES = ("assistant", "user", "system")
_ENOUGH = 200_000  # never reached: learning ends when every word is one token


def learn_merges() -> list[tuple[str, str]]:
    """Return merges after which each word is one token, in four forms: bare or capitalised, with or without a space."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = BpeTrainer(
        vocab_size=_ENOUGH, min_frequency=1, initial_alphabet=list(byte_alphabet()), show_progress=False
    )
    bpe.train_from_iterator(_spellings((*vocabulary(), *_ROLES)), trainer)
    return [(left, right) for left, right in json.loads(bpe.to_str())["model"]["merges"]]


def _spellings(words: Iterable[str]) -> Iterable[str]:
    for word in words:
        yield from (word, " " + word, word.capitalize(), " " + word.capitalize())


def token_texts(merges: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return the texts of the ordinary tokens and the names of the special ones, in the order of their ids."""
    stands_for = byte_alphabet()
    spelled = [*stands_for, *(left + right for left, right in merges)]
    texts = [bytes(stands_for[char] for char in token).decode("utf-8", "replace") for token in spelled]
    return texts, list(SPECIAL_TOKENS)

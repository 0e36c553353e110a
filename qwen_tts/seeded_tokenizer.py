"""The text tokenizer of a seeded checkpoint: bytes, the merges of "assistant" and "user", and the special tokens.

With the released text_vocab_size, the ids that the model's config names are the released ones ("assistant" is 77091).
The other 151,000 tokens are entries that no text can produce.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RELEASED_TEXT_VOCAB = 151936
_RELEASED_BPE = 151643  # entries of the released vocab.json; special tokens follow
_RELEASED_IDS = {"assistant": 77091, "user": 872}

# tokenizer_config.json of the released checkpoints, in id order.
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>", "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>",
    "<tts_text_bos_single>", "<|audio_pad|>",
)  # fmt: skip


@dataclass(frozen=True)
class SpecialIds:
    """The text ids that config.json names; the field names are its keys."""

    assistant_token_id: int
    im_start_token_id: int
    im_end_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int


def role_merges() -> list[tuple[str, str]]:
    """Return the merges that every tokenizer needs: they make one token of each role in the chat templates."""
    return [*_chain("assistant"), *_chain("user")]


def write_tokenizer(directory: Path, text_vocab: int, merges: Sequence[tuple[str, str]]) -> SpecialIds:
    """Write vocab.json, merges.txt and tokenizer_config.json for an embedding table of `text_vocab` rows."""
    merged = [left + right for left, right in merges]
    released = text_vocab == RELEASED_TEXT_VOCAB
    ids = {token: index for index, token in enumerate(byte_alphabet())}
    taken = set(_RELEASED_IDS.values()) if released else set()
    free = (index for index in range(len(ids), text_vocab) if index not in taken)
    ids |= {token: _RELEASED_IDS[token] if released and token in _RELEASED_IDS else next(free) for token in merged}
    if released:
        used = set(ids.values())
        ids |= {f"<unused {index}>": index for index in range(_RELEASED_BPE) if index not in used}
    first_special = len(ids)
    assert first_special + len(SPECIAL_TOKENS) <= text_vocab, (first_special, text_vocab)

    special = {token: first_special + index for index, token in enumerate(SPECIAL_TOKENS)}
    by_id = dict(sorted(ids.items(), key=lambda item: item[1]))
    (directory / "vocab.json").write_text(json.dumps(by_id, ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text("".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(special), indent=2) + "\n")
    return SpecialIds(
        assistant_token_id=ids["assistant"],
        im_start_token_id=special["<|im_start|>"],
        im_end_token_id=special["<|im_end|>"],
        tts_pad_token_id=special["<tts_pad>"],
        tts_bos_token_id=special["<tts_text_bos>"],
        tts_eos_token_id=special["<tts_text_eod>"],
    )


def byte_alphabet() -> dict[str, int]:
    """Return the 256 characters that stand for bytes in byte-level BPE, with their bytes, in the order of the ids.

    Printable bytes stand for themselves; the others are the code points from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def _chain(word: str) -> list[tuple[str, str]]:
    return [(word[:end], word[end]) for end in range(1, len(word))]


def _tokenizer_config(special: dict[str, int]) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(index): {"content": token, **flags} for token, index in special.items()},
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 131072,
        "tokenizer_class": "Qwen2Tokenizer",
    }

"""Text to token ids: the Qwen2 byte-level BPE and the two chat templates around a text.

Special ids come from config.json, and only the templates insert them. The tokenizer is built without special tokens, so
a user's "<|im_end|>" becomes the tokens of its characters.

Template (reference): <|im_start|>assistant\\n{text}<|im_end|>\\n<|im_start|>assistant\\n
and for instructions: <|im_start|>user\\n{instruct}<|im_end|>\\n
"""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from qwen_tts.config import ModelConfig
from qwen_tts.errors import CheckpointError
from qwen_tts.growing_text import GrowingText, Vocabulary

# The pre-tokenizer of Qwen2. tokenizer_config.json names the class; the expression comes from the class.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ROLE = "assistant\n"
ROLE_ROWS = 3  # <|im_start|>, assistant, newline


@dataclass(frozen=True)
class SpokenText:
    """The ids of an assistant turn: `role` [3] begins it, `body` [N] is the text."""

    role: list[int]
    body: list[int]


class TextTokenizer:
    """The tokenizer of a checkpoint: vocab.json and merges.txt. Raises CheckpointError when they are not readable."""

    def __init__(self, directory: Path, config: ModelConfig) -> None:
        self._config = config
        vocab, merges = directory / "vocab.json", directory / "merges.txt"
        try:
            model = BPE.from_file(str(vocab), str(merges))
        except Exception as error:  # the Rust library raises bare Exception for a missing or malformed file
            raise CheckpointError(f"text tokenizer {vocab}, {merges}: {error}") from None
        self._bpe = Tokenizer(model)
        self._bpe.normalizer = NFC()
        self._bpe.pre_tokenizer = Sequence(
            [Split(Regex(_WORDS), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        entries = self._bpe.get_vocab()
        self._vocabulary = Vocabulary(entries)
        largest = max(entries.values(), default=0)
        if largest >= config.talker_config.text_vocab_size:
            raise CheckpointError(f"{vocab} has id {largest}, above text_vocab_size of the config")
        opening = self.encode(_ROLE)
        if len(opening) != ROLE_ROWS - 1 or opening[0] != config.assistant_token_id:
            raise CheckpointError(f"{vocab}: 'assistant' and newline must be one token each, got {opening}")

    def encode(self, text: str) -> list[int]:
        """Return the token ids of plain text. None of them is special."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def spoken(self, text: str) -> SpokenText:
        ids = [self._config.im_start_token_id, *self.encode(_ROLE + text)]
        return SpokenText(role=ids[:ROLE_ROWS], body=ids[ROLE_ROWS:])

    def growing(self) -> GrowingText:
        """Return a tokenizer of a turn that is being written, after <|im_start|>: 2 ids of the role, then the body."""
        return GrowingText(self._bpe, self._vocabulary, _ROLE)

    def instruction(self, instruct: str) -> list[int]:
        """Return the ids of a whole user turn. It precedes the assistant's turn."""
        start, end = self._config.im_start_token_id, self._config.im_end_token_id
        return [start, *self.encode(f"user\n{instruct}"), end, *self.encode("\n")]

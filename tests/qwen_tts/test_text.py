"""The text tokenizer on the released vocabulary."""

import hashlib
from pathlib import Path

import pytest

from qwen_tts.errors import CheckpointError
from qwen_tts.text import TextTokenizer
from tests.qwen_tts.released_vocabulary import released_config

# sha256 of the files in every Qwen3-TTS-12Hz repository.
RELEASED_FILES = {
    "vocab.json": "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910",
    "merges.txt": "599bab54075088774b1733fde865d5bd747cbcc7a547c5bc12610e874e26f5e3",
}
FIRST_SPECIAL_ID = 151643  # entries of the released vocab.json; special tokens follow

ROLE = [151644, 77091, 198]  # <|im_start|>assistant\n
# The body of each text, as ids. Source: mingshi2333/Qwen3-TTS-ncnn, tests/data/{cv_text,e2e_text,extra_en}_ids.npy
# (Apache-2.0), made there with the released tokenizer.
VECTORS = {
    "你好，这是内置音色的对齐测试。": [108386, 3837, 100346, 115654, 78685, 38035, 9370, 32664, 100046, 81705, 1773],
    "你好，这是 ncnn 移植的对齐测试。": [
        108386, 3837, 100346, 25126, 7370, 75671, 119, 100077, 9370, 32664, 100046, 81705, 1773,
    ],
    "The quick brown fox jumps over the lazy dog, and the port to ncnn works perfectly.": [
        785, 3974, 13876, 38835, 34208, 916, 279, 15678, 5562, 11, 323, 279, 2635, 311, 25126, 7370, 4278, 13942, 13,
    ],
}  # fmt: skip

SPECIAL_TEXTS = [
    "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|audio_start|>", "<think>", "</tool_call>", "<tts_pad>",
    "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(released_vocabulary: Path) -> TextTokenizer:
    return TextTokenizer(released_vocabulary, released_config())


@pytest.mark.parametrize("name", RELEASED_FILES)
def test_the_vocabulary_under_test_is_the_released_one(released_vocabulary: Path, name: str) -> None:
    assert hashlib.sha256((released_vocabulary / name).read_bytes()).hexdigest() == RELEASED_FILES[name]


@pytest.mark.parametrize("text", VECTORS)
def test_a_spoken_text_has_the_ids_of_the_released_tokenizer(tokenizer: TextTokenizer, text: str) -> None:
    spoken = tokenizer.spoken(text)
    assert (spoken.role, spoken.body) == (ROLE, VECTORS[text])


def test_an_instruction_is_a_whole_user_turn(tokenizer: TextTokenizer) -> None:
    assert tokenizer.instruction("Hello") == [151644, 872, 198, 9707, 151645, 198]


@pytest.mark.parametrize("text", SPECIAL_TEXTS)
def test_special_token_text_typed_by_a_user_stays_text(tokenizer: TextTokenizer, text: str) -> None:
    """Otherwise a caller could close their own turn, or write rows of another role."""
    ids = tokenizer.spoken(f"Hello{text} world").body
    assert max(ids) < FIRST_SPECIAL_ID
    assert (ids[0], ids[-1]) == (9707, 1879)  # "Hello", " world": the words around it are untouched
    start, *words, end, newline = tokenizer.instruction(text)
    assert max(words) < FIRST_SPECIAL_ID
    assert (start, end, newline) == (151644, 151645, 198)


def test_composed_and_decomposed_letters_are_one_text(tokenizer: TextTokenizer) -> None:
    composed, decomposed = "caf\u00e9 \uac00", "cafe\u0301 \u1100\u1161"
    assert tokenizer.encode(composed) == tokenizer.encode(decomposed)


def test_every_byte_can_be_spoken(tokenizer: TextTokenizer) -> None:
    """Byte-level: no text is dropped or replaced by an unknown token. Letters no merge knows take one id a byte."""
    for text in ("\U000132f9", "\u0007", "\U0010ffff"):
        assert len(tokenizer.encode(text)) >= 1
    assert len(tokenizer.encode("\U0010ffff")) == len("\U0010ffff".encode())


@pytest.mark.parametrize("name", RELEASED_FILES)
def test_a_missing_file_is_a_checkpoint_error(released_vocabulary: Path, tmp_path: Path, name: str) -> None:
    for kept in RELEASED_FILES.keys() - {name}:
        (tmp_path / kept).symlink_to(released_vocabulary / kept)
    with pytest.raises(CheckpointError, match=name):
        TextTokenizer(tmp_path, released_config())


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [
        pytest.param(b'{"a": 0', b"", id="truncated"),
        pytest.param(b"[1, 2]", b"", id="a list"),
        pytest.param(b'{"a": "zero"}', b"", id="an id that is no number"),
        pytest.param(b"\xff\xfe\x00", b"", id="not utf-8"),
        pytest.param(b'{"a": 0, "b": 1, "ab": 2}', b"a c\n", id="merge of an unknown token"),
        pytest.param(b'{"a": 0, "b": 1, "ab": 2}', b"a\n", id="half a merge"),
    ],
)
def test_a_garbled_file_is_a_checkpoint_error(tmp_path: Path, vocab: bytes, merges: bytes) -> None:
    (tmp_path / "vocab.json").write_bytes(vocab)
    (tmp_path / "merges.txt").write_bytes(merges)
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        TextTokenizer(tmp_path, released_config())


def test_a_vocabulary_of_another_model_is_a_checkpoint_error(released_vocabulary: Path, tmp_path: Path) -> None:
    """The role is cut off as three ids: a vocabulary that spells it otherwise would shift every prompt row."""
    (tmp_path / "vocab.json").symlink_to(released_vocabulary / "vocab.json")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(CheckpointError, match="'assistant' and newline must be one token each"):
        TextTokenizer(tmp_path, released_config())

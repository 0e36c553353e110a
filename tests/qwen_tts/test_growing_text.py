"""Token ids of a growing text on the released vocabulary: none is ever taken back, and the sum is the whole text's."""

import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers.normalizers import NFC

from qwen_tts.text import ROLE_ROWS, TextTokenizer
from tests.qwen_tts.released_vocabulary import released_config

TEXTS = [
    "Hello there, world! It's mine; I'll go, we're 'Tis 's'RE 'LLama they've don't.",
    "你好，今天的天气怎么样？中华人民共和国，我们在北京大学的图书馆里看书，有限责任公司的董事长。",
    "吾輩は猫である。名前はまだ無い。か\u3099ラス",
    "안녕하세요 세계 \u1112\u1161\u11ab\u1100\u1173\u11af 각\u11a8 가\u11a8",
    "Привет, мир! Ещё 123 раза\u0301, й и\u0306",
    "Grüße aus München, Straße ﬁ Zu\u0308rich",
    "¿Qué tal? ¡Nin\u0303o! año",
    "L'été à Noe\u0308l, c'est ça... œuf",
    "Olá, coraça\u0303o não",
    "Perché no? E\u0300 così",
    "👩‍🚀🎉👨‍👩‍👧‍👦 ok 🇩🇪🇫🇷 ☺\ufe0f",
    "a\n\n  \n b\t\tc   d \r\n\r\n x   ",
    "\n\n  Lead",
    "   lead  ",
    "\n",
    "1234 12.5% 3,000\u0338 =\u0338 <\u0338 >x",
    "e\u0301\u0323 e\u0323\u0301 o\u0328\u0304 q\u0307\u0323 \u0301x",
    "हिन्दी में कि\u093c क\u093c \u0958 ภาษาไทย ที่",
    "!!!???...---\n\n\n \n x" + "." * 200 + "a",
    "x\u00a0\u2003 y\u3000z\u2028w\x1c\x1d x\x1ey\x85",
    "' ''s 'r e (a(b[ c ſ'ſ 'ſx a'",
    "<|im_end|> <unused 12> <tts_pad>",
    "supercalifragilisticexpialidocious" * 5,
]
ALPHABET = "ab 'sre\n\r\t.,!?12中文的人民\u0301\u0323é가\u11a8\u1100\u1161かが\u3099\u3000👩\u200d=<\u0338ſÅLlvV"


@pytest.fixture(scope="module")
def tokenizer(released_vocabulary: Path) -> TextTokenizer:
    return TextTokenizer(released_vocabulary, released_config())


def cuttings(text: str, rng: random.Random) -> Iterator[list[str]]:
    yield list(text)
    yield [text]
    for _ in range(8):
        places = sorted(rng.choices(range(len(text) + 1), k=rng.randint(1, 8)))
        yield [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def assert_exact(tokenizer: TextTokenizer, text: str, pieces: list[str]) -> None:
    spoken = tokenizer.spoken(text)
    whole = [*spoken.role, *spoken.body][1:]
    growing = tokenizer.growing()
    ids: list[int] = []
    for piece in pieces:
        ids += growing.append(piece)
        assert ids == whole[: len(ids)], (text, pieces)
    assert ids + growing.finish() == whole, (text, pieces)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_every_cutting_gives_the_ids_of_the_whole(tokenizer: TextTokenizer, text: str) -> None:
    for pieces in cuttings(text, random.Random(text)):
        assert_exact(tokenizer, text, pieces)


@pytest.mark.parametrize("seed", range(10))
def test_texts_at_random(tokenizer: TextTokenizer, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        text = "".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 30)))
        for pieces in cuttings(text, rng):
            assert_exact(tokenizer, text, pieces)


def waits(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Given character by character: for each token, how many characters came after its last before it was given."""
    growing, given, written = tokenizer.growing(), 0, 0
    found: list[int] = []
    ends: list[int] = []
    for id_ in tokenizer.spoken(text).body:
        written += len(tokenizer._bpe.model.id_to_token(id_) or "")
        ends.append(written)  # bytes
    for count in range(1, len(text) + 1):
        given += len(growing.append(text[count - 1]))
        while len(found) < given - (ROLE_ROWS - 1):
            end = len(text.encode()[: ends[len(found)]].decode(errors="ignore"))
            found.append(count - end)
    return found


def test_a_word_is_certain_with_the_next_character(tokenizer: TextTokenizer) -> None:
    assert waits(tokenizer, "The quick brown fox jumps. Over!") == [1] * 7


def test_the_example_of_the_docstring(tokenizer: TextTokenizer) -> None:
    growing = tokenizer.growing()
    growing.append("Hello, 机器学习")
    assert (growing._open, growing._given) == (" 机器学习", len(" 机器".encode()))


@pytest.mark.parametrize(
    "text",
    [
        "机器学习是人工智能的一个分支，它使计算机能够从数据中学习并做出决策，而无需进行明确的编程。",
        "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少",
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    ],
)
def test_writing_without_spaces_flows(tokenizer: TextTokenizer, text: str) -> None:
    found = waits(tokenizer, text)
    assert len(found) > len(tokenizer.spoken(text).body) - 4
    assert max(found) <= 4
    assert sum(found) / len(found) <= 1.5


def test_python_and_the_tokenizer_compose_alike() -> None:
    """The tables of what may be composed are Python's."""
    composed = NFC().normalize_str
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    assert [one for one in characters if composed(one) != unicodedata.normalize("NFC", one)] == []

"""Splitting long text into utterances: no text is ever lost, and cuts are where a speaker breathes."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployments.text.sentences import Piece, split, spoken_length

LONGEST, FIRST = 60, 20
LANGUAGES = ["auto", "chinese", "english", "japanese", "korean", "german", "french", "russian", "italian"]
# Boundaries, and text that looks like a boundary.
MARKS = st.sampled_from([".", "。", "? ", "！", ", ", "，", "\n", "\n\n", " ", '"', "」", "…", "Dr. ", "3.5", "👩‍🚀"])


@given(text=st.lists(MARKS | st.text(max_size=40), max_size=40).map("".join), language=st.sampled_from(LANGUAGES))
@example(text="\n" * 200, language="english")
@example(text="\r\n \u3000" * 40 + "x", language="auto")
@example(text="好" * 200, language="chinese")
@settings(max_examples=300, deadline=None)
def test_no_text_is_lost_or_reordered(text: str, language: str) -> None:
    pieces = split(text, language, LONGEST, FIRST)
    if spoken_length(text) <= LONGEST:
        assert pieces == [Piece(text, 0, len(text), "paragraph")], "short text stays as it is"
        return
    end = 0
    for piece in pieces:
        assert text[piece.start : piece.end] == piece.text
        assert piece.text.strip() == piece.text != ""
        assert spoken_length(piece.text) <= LONGEST
        assert text[end : piece.start].strip() == ""
        end = piece.end
    assert text[end:].strip() == ""


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("english", ["Dr. Smith paid 3.50 at 5 p.m. yesterday.", "Then he left?", '"Yes," she said.']),
        ("chinese", ["今天天气怎么样？", "我们一起去公园吧。", "他说：“很好！”"]),
        ("japanese", ["今日は天気がいいですね。", "公園に行きましょうか？", "「はい、行きます。」"]),
        ("korean", ["오늘 날씨가 좋네요.", "공원에 갈까요?", "네, 좋습니다!"]),
        ("german", ["Am 3. Mai kam Dr. Müller z. B. zu spät.", "War das gut?", "Nein!"]),
        ("french", ["Bonjour M. Dupont, comment allez-vous ?", "Très bien !", "Il fait beau."]),
        ("russian", ["Привет, как дела?", "Хорошо!", "Сегодня идёт дождь."]),
        ("portuguese", ["Olá, Sr. Silva, tudo bem?", "Sim!", "Hoje está sol."]),
        ("spanish", ["¿Qué tal está usted?", "¡Muy bien!", "Hoy hace sol."]),
        ("italian", ["Come va il lavoro, Sig. Rossi?", "Bene!", "Oggi piove."]),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "auto"])
def test_cuts_are_between_sentences(language: str, sentences: list[str], named: bool) -> None:
    between = "" if language in ("chinese", "japanese") else " "
    text = between.join(sentences * 8)
    ends = {text.index(s, at) + len(s) for s in sentences for at in range(len(text)) if text.startswith(s, at)}
    pieces = split(text, language if named else "auto", 120, 20)
    assert len(pieces) > 3
    assert {piece.end for piece in pieces} <= ends, [piece.text for piece in pieces]
    assert {piece.ending for piece in pieces[:-1]} == {"sentence"}


def test_the_first_piece_is_short_and_the_others_are_longer() -> None:
    sentence = "This is one of many sentences."
    pieces = split(" ".join([sentence] * 40), "english", 300, 50)
    assert pieces[0].text == f"{sentence} {sentence}"
    assert {len(piece.text) for piece in pieces[1:-1]} == {5 * 31 - 1}, "half of what it may be"


def test_paragraphs_end_pieces() -> None:
    pieces = split("A paragraph of some words.\n\nAnother paragraph, which goes on, and on.", "english", 60, 10)
    assert [piece.ending for piece in pieces] == ["paragraph", "paragraph"]
    assert pieces[1].text.startswith("Another")


def test_a_sentence_too_long_is_cut_at_clauses_then_words_then_anywhere() -> None:
    clauses = split("one two three four five, " * 10, "english", 60, 20)
    assert {piece.ending for piece in clauses[:-1]} == {"clause"}
    words = split("one two three four five " * 10, "english", 60, 20)
    assert {piece.ending for piece in words[:-1]} == {"word"}
    assert {word for piece in words for word in piece.text.split()} == {"one", "two", "three", "four", "five"}
    assert [len(piece.text) for piece in split("a" * 150, "english", 60, 20)] == [60, 60, 30]
    assert [len(piece.text) for piece in split("好" * 50, "chinese", 60, 20)] == [20, 20, 10]


def test_a_closing_quote_is_no_utterance() -> None:
    pieces = split('He said: "It is late. I must go now." ' * 5, "english", 60, 10)
    assert all(any(character.isalnum() for character in piece.text) for piece in pieces)

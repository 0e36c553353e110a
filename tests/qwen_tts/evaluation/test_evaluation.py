"""Evaluation: lists of texts, counting of errors, figures, report. The judges themselves are other people's."""

import json
import wave
from pathlib import Path

import click
import numpy as np
import pytest

from qwen_tts.evaluation.cases import read_cases
from qwen_tts.evaluation.recognise import words
from qwen_tts.evaluation.report import write_report
from qwen_tts.evaluation.score import Heard, summarise, with_nearest, word_errors
from qwen_tts.evaluation.speakers import RecordedSpeaker


def heard(case: str, errors: int, count: int, **changed: object) -> Heard:
    row = Heard(case, "a", "b", count, errors, 0, True, 2.0, 1.0, 3.0, None)
    return Heard(**{**vars(row), **changed})


def test_a_list_is_texts_or_a_seed_tts_list(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("One text.\n\nAnother one.\n")
    assert [(case.name, case.text) for case in read_cases(plain)] == [("0001", "One text."), ("0003", "Another one.")]
    assert len(read_cases(plain, limit=1)) == 1
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "a.wav").write_bytes(b"")
    listed = tmp_path / "meta.lst"
    listed.write_text("first|words of the prompt|wavs/a.wav|Say this.|wavs/true.wav\n")
    (case,) = read_cases(listed)
    assert (case.name, case.reference_text, case.text) == ("first", "words of the prompt", "Say this.")
    assert case.reference == tmp_path / "wavs" / "a.wav"


@pytest.mark.parametrize(
    ("content", "named"),
    [("", "holds no text"), ("a|b|c", "list.txt:1 has 3 parts"), ("a|b|missing.wav|c", "missing.wav does not exist")],
)
def test_what_is_no_list_is_refused(content: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text(content)
    with pytest.raises(click.ClickException) as caught:
        read_cases(file)
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("text", "said", "digits", "expected"),
    [
        ("Twenty minutes late.", "20 minutes, late", False, (0, 3, 0)),
        ("Three one four.", "314", True, (0, 3, 0)),
        ("Three one four.", "three four", True, (1, 3, 0)),
        ("We don't know.", "we do not know", False, (0, 4, 0)),
        ("Bring the green apples home.", "bring the green", False, (2, 5, 2)),
        ("Bring the green apples home.", "bring a green apples home now", False, (2, 5, 0)),
        ("Bring it.", "", False, (2, 2, 2)),
    ],
)
def test_errors_are_counted_in_words(text: str, said: str, digits: bool, expected: tuple[int, int, int]) -> None:
    assert word_errors(text, said, digits=digits) == expected


def test_digits_are_words_of_their_own_only_when_asked_for() -> None:
    assert words("Four two", digits=True) == ["4", "2"]
    assert words("Four two", digits=False) == ["42"]


def test_a_summary_weighs_by_words() -> None:
    rows = [heard("1", 0, 9), heard("2", 1, 1, ended=False, cut_words=2, duration_s=6.0)]
    found = summarise("ryan", rows)
    assert (found.wer, found.perfect, found.ended, found.cut_short) == (0.1, 0.5, 0.5, 0.5)
    assert found.rtf == pytest.approx(2.0 / 8.0)
    assert found.words_per_s == pytest.approx(10 / 8.0)
    assert found.right_voice is found.similarity is None


def test_the_nearest_voice_is_judged_without_the_utterance_itself() -> None:
    axes = np.eye(3, dtype=np.float32)
    embeddings = {"a": np.stack([axes[0], axes[0], axes[1]]), "b": np.stack([axes[1], axes[1], axes[1]])}
    rows = {name: [heard(str(n), 0, 1) for n in range(3)] for name in embeddings}
    judged = with_nearest(rows, embeddings)
    assert [row.nearest for row in judged["a"]] == ["a", "a", "b"]
    assert [row.nearest for row in judged["b"]] == ["b", "b", "b"]


def test_a_report_is_a_table_json_and_a_plot(tmp_path: Path) -> None:
    table = write_report(tmp_path, {"ryan": [heard("1", 1, 4)], "flite": [heard("1", 0, 4, seconds=None)]}, {"seed": 0})
    assert table.splitlines()[2].startswith("| ryan | 1 | 0.250 |")
    assert "| – |" in table.splitlines()[3], "recordings have no real-time factor"
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["wer"] for row in results["speakers"]] == [0.25, 0.0]
    assert results["utterances"]["ryan"][0]["heard"] == "b"
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_recordings_are_found_by_their_case(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("One.\nTwo.\n")
    with wave.open(str(tmp_path / "0001.wav"), "wb") as file:
        file.setparams((1, 2, 12000, 0, "NONE", "NONE"))
        file.writeframes(np.full(1200, 3000, np.int16).tobytes())
    first, second = read_cases(texts)
    speaker = RecordedSpeaker("human", tmp_path)
    assert len(speaker.speak(first, 0).samples) == 2400, "at 24 kHz"
    with pytest.raises(click.ClickException, match=r"0002\.wav does not exist"):
        speaker.speak(second, 0)

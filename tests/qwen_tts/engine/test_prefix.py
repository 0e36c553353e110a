"""What requests have in common is computed once, and no request can tell: its numbers are those it has alone."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qwen_tts.engine.engine import Engine
from qwen_tts.engine.prefix import shared_prefix
from qwen_tts.engine.sequence import Sequence
from qwen_tts.prompt import PromptLayout
from qwen_tts.request import ClonedVoice, DesignedVoice, SpeechRequest, TextLayout, Voice
from qwen_tts.voice import VoicePrompt
from tests.qwen_tts.engine.test_engine import fill_with_garbage
from tests.qwen_tts.tiny import TINY, custom, drain, speak, tiny_engine

WORDS = "The words that were spoken then."  # a row each letter: with its tags, more than a piece of the prompt
_RNG = np.random.default_rng(0)
EMBEDDING = _RNG.normal(size=TINY.hidden).astype(np.float32)
CODES = _RNG.integers(TINY.codebook, size=(60, TINY.groups)).astype(np.int16)
REFERENCE = VoicePrompt(EMBEDDING, CODES, WORDS)
OTHER = "Something else, and longer."  # of a length with which the prompt is cut where the words end
LAYOUTS: tuple[TextLayout, ...] = ("whole", "streaming")


def cloned(
    text: str = "Hello there.",
    prompt: VoicePrompt = REFERENCE,
    *,
    seed: int = 0,
    layout: TextLayout = "whole",
    frames: int = 9,
) -> SpeechRequest:
    return SpeechRequest(text, ClonedVoice(prompt), "auto", layout, seed=seed, max_frames=frames)


def without(checkpoint: Path, *, slots: int = 8) -> Engine:
    return tiny_engine(checkpoint, slots=slots, prefix_cache_bytes=0)


def numbers(engine: Engine, request: SpeechRequest) -> tuple[Sequence, Tensor]:
    """`request` alone on an engine of one slot, and the keys and values it left."""
    (sequence,) = speak(engine, request)
    return sequence, engine._runner.pools.kv[:, :, 0, : sequence.position].clone()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["reference", "instruction", "description"])
def test_found_or_read_or_never_kept_the_numbers_are_the_same(
    kind: str, layout: TextLayout, request: pytest.FixtureRequest
) -> None:
    """Bit for bit, every key and value and every code."""
    spoken: SpeechRequest
    if kind == "instruction":
        spoken, model = custom(instructions="As slowly as you can, please.", layout=layout), "custom_voice"
    else:
        voice: Voice = ClonedVoice(REFERENCE) if kind == "reference" else DesignedVoice("A voice like a bell.")
        spoken = SpeechRequest("Hello there.", voice, "auto", layout, max_frames=12)
        model = "base" if kind == "reference" else "voice_design"
    checkpoint: Path = request.getfixturevalue(model)
    never, kv = numbers(without(checkpoint, slots=1), spoken)
    engine = tiny_engine(checkpoint, slots=1)
    for text, seed in ((OTHER, 5), (spoken.text, 0)):
        other, _ = numbers(engine, replace(spoken, text=text, seed=seed))
        found, found_kv = numbers(engine, spoken)
        assert found.prefix is not None
        assert found.rows_reused == found.prefix.rows >= 32
        assert found.frames == never.frames
        assert torch.equal(found_kv, kv)
        fill_with_garbage(engine)
    assert (never.rows_reused, other.rows_reused) == (0, found.rows_reused)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_are_known_are_not_computed(base: Path, layout: TextLayout) -> None:
    engine = tiny_engine(base)
    read: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        read.append(inputs[0].shape[1])

    engine._runner.talker.model.register_forward_hook(count)
    first, second = (speak(engine, cloned(text, layout=layout, frames=1))[0] for text in ("Hi", OTHER))
    assert first.prefix is not None
    assert first.prefix == second.prefix
    rows = first.prefix.rows
    assert rows > 32, "several pieces"
    assert sum(read) == len(first.layout) + len(second.layout) - rows
    assert read[:2] == [32, rows - 32]


@pytest.mark.parametrize("garbage", [False, True], ids=["fresh pools", "garbage in the pools"])
@pytest.mark.parametrize("gap", [0, 2, 7], ids=lambda gap: f"every {gap} steps")
def test_company_does_not_matter(base: Path, gap: int, garbage: bool) -> None:
    voices = [REFERENCE, VoicePrompt(EMBEDDING), VoicePrompt(-EMBEDDING, CODES, WORDS)]
    requests = [
        cloned(
            "Text " * (1 + number % 4),
            voices[number % 3],
            seed=number,
            layout=LAYOUTS[number // 4 % 2],
            frames=5 + number,
        )
        for number in range(12)
    ]
    alone = [speak(without(base, slots=1), request)[0].frames for request in requests]
    engine = tiny_engine(base, slots=3, max_waiting=20)
    if garbage:
        fill_with_garbage(engine)
    sequences = []
    for request in requests:
        sequences.append(engine.add(request))
        for _ in range(gap):
            engine.step()
    drain(engine)
    assert [sequence.frames for sequence in sequences] == alone
    assert sum(sequence.rows_reused > 0 for sequence in sequences) == 8 - 4, (
        "two voices, two layouts: the first each read"
    )


def test_voices_that_differ_in_anything_do_not_share(base: Path) -> None:
    other_code, other_embedding = CODES.copy(), EMBEDDING.copy()
    other_code[-1, -1] ^= 1
    other_embedding[3] += 1e-6
    assert other_embedding[3] != EMBEDDING[3]
    requests = [
        cloned(),
        cloned(prompt=VoicePrompt(EMBEDDING, other_code, WORDS)),
        cloned(prompt=VoicePrompt(other_embedding, CODES, WORDS)),
        cloned(prompt=VoicePrompt(EMBEDDING, CODES, WORDS.lower())),
        cloned(layout="streaming"),
        replace(cloned(), language="english"),
    ]
    engine = tiny_engine(base)
    for request in requests:
        (sequence,) = speak(engine, request)
        assert sequence.rows_reused == 0
        assert sequence.frames == speak(without(base), request)[0].frames


def test_the_same_voice_from_elsewhere_shares(base: Path) -> None:
    """Content counts, not whose it is."""
    engine = tiny_engine(base)
    copy = VoicePrompt(EMBEDDING.copy(), np.asfortranarray(CODES), WORDS, fingerprint="of an encoder")
    first, second = speak(engine, cloned(), cloned("Hi", copy))
    assert first.prefix is not None
    assert second.rows_reused == first.prefix.rows


def test_nobody_pays_a_pass_and_who_finds_a_prefix_saves_some() -> None:
    def passes(*parts: int) -> int:
        return sum(-(-rows // piece) for rows in parts)

    for piece, length, shared in itertools.product((1, 2, 7, 32), range(1, 90), range(90)):
        ids = np.zeros(length, dtype=np.int64)
        prefix = shared_prefix(PromptLayout(ids, ids, ids[:0], shared_rows=min(shared, length)), piece)
        least = min(shared, length - 1) // piece * piece
        assert prefix is not None or least == 0
        rows = 0 if prefix is None else prefix.rows
        assert least <= rows <= shared
        assert passes(rows, length - rows) == passes(length)
        assert prefix is None or passes(length - rows) < passes(length)


@pytest.mark.parametrize(("more", "rows"), [(10, 32), (30, 40)])
def test_the_example_of_the_docstring(more: int, rows: int) -> None:
    ids = np.zeros(40 + more, dtype=np.int64)
    prefix = shared_prefix(PromptLayout(ids, ids, ids[:0], shared_rows=40), 32)
    assert prefix is not None
    assert prefix.rows == rows


@pytest.mark.parametrize("first", ["short", "long"])
def test_texts_of_other_lengths_share_as_far_as_both_go(base: Path, first: str) -> None:
    """One is read apart to the end of the words, the other to the last whole piece of them."""
    texts = {"short": "Hi", "long": "A text of some length!"}
    engine = tiny_engine(base)
    rows = {name: engine.prepare(cloned(text)).prefix for name, text in texts.items()}
    assert rows["short"] is not None
    assert rows["long"] is not None
    assert rows["short"].content == rows["long"].content
    assert {rows["short"].rows, rows["long"].rows} == {32, 40}
    order = [first, *({"short", "long"} - {first})] * 2
    found = []
    for name in order:
        (sequence,) = speak(engine, cloned(texts[name]))
        assert sequence.frames == speak(without(base), cloned(texts[name]))[0].frames
        found.append(sequence.rows_reused)
    assert found[0] == 0
    assert found[1] == 32
    assert found[2:] == [rows[name].rows for name in order[2:]]  # type: ignore[union-attr]


def test_a_prompt_of_shared_rows_alone_is_read_to_its_end(base: Path) -> None:
    """Few frames beside many words: the request's own text all trails behind; the first frame comes of the last row."""
    short = VoicePrompt(EMBEDDING, CODES[:24], WORDS)
    engine = tiny_engine(base)
    for _ in range(2):
        (sequence,) = speak(engine, cloned(prompt=short, layout="streaming"))
        assert sequence.layout.shared_rows == len(sequence.layout)
        assert sequence.frames == speak(without(base), cloned(prompt=short, layout="streaming"))[0].frames
    assert sequence.rows_reused == len(sequence.layout) - 1


def test_what_is_kept_is_bounded_and_used_last(base: Path) -> None:
    voices = [VoicePrompt(EMBEDDING * number, CODES, WORDS) for number in (1, 2, 3)]
    engine = tiny_engine(base)
    speak(engine, cloned())
    one = engine._runner._prefixes.used
    assert one == engine._runner.pools.kv[:, :, 0, :32].nbytes
    engine = tiny_engine(base, prefix_cache_bytes=2 * one + 1)
    found = [speak(engine, cloned(prompt=voices[which]))[0].rows_reused > 0 for which in (0, 1, 0, 2, 0, 1)]
    assert found == [False, False, True, False, True, False], "the second went when the third came"
    assert engine._runner._prefixes.used == 2 * one


def test_switched_off_nothing_is_kept(base: Path) -> None:
    engine = without(base)
    assert [sequence.rows_reused for sequence in speak(engine, cloned(), cloned())] == [0, 0]
    assert engine._runner._prefixes.used == 0


@pytest.mark.parametrize("steps", [1, 2, 3], ids=["within the prefix", "after the prefix", "in the text"])
def test_cancelled_while_the_prompt_is_read(base: Path, steps: int) -> None:
    engine = tiny_engine(base, slots=1)
    gone = engine.add(cloned(OTHER))
    for _ in range(steps):
        engine.step()
    engine.cancel(gone)
    assert gone.prefix is not None
    assert gone.prefix.rows > 32, "it takes two steps"
    (sequence,) = speak(engine, cloned(OTHER))
    assert sequence.rows_reused == (0 if steps == 1 else gone.prefix.rows)
    assert sequence.frames == speak(without(base), cloned(OTHER))[0].frames


def infect(engine: Engine, letter: str) -> None:
    (row,) = engine._tokenizer.encode(letter)
    engine._runner.talker.model.text_embedding.weight[row] = float("inf")


def test_numbers_that_overflowed_are_not_kept(base: Path) -> None:
    engine = tiny_engine(base)
    clean = engine._runner.talker.model.text_embedding.weight.clone()
    infect(engine, "T")  # of the reference's words
    (sequence,) = speak(engine, cloned())
    assert (sequence.finish_reason, sequence.frames) == ("failed", [])
    assert engine._runner._prefixes.used == 0
    engine._runner.talker.model.text_embedding.weight.copy_(clean)
    (sequence,) = speak(engine, cloned())
    assert sequence.rows_reused == 0
    assert sequence.frames == speak(without(base), cloned())[0].frames


def test_a_known_prefix_in_a_slot_whose_last_owner_overflowed(base: Path) -> None:
    """Beyond the newcomer's rows the slot would hold what is not finite, which a longer neighbour's steps reach."""
    engine = tiny_engine(base, slots=2)
    infect(engine, "Z")
    expected = speak(engine, cloned())[0].frames
    long = engine.add(cloned("A text that has far more rows, " * 3, seed=3, frames=100))
    while not long.frames:
        engine.step()
    bad = engine.add(cloned("Z" * 100))
    while bad.rows_read < 130:
        engine.step()
    engine.cancel(bad)
    found = engine.add(cloned())
    while not found.finished:
        engine.step()
    assert found.rows_reused > 0
    assert len(long.layout) > len(found.layout)
    assert (found.finish_reason, found.frames) == ("length", expected)
    assert not long.finished

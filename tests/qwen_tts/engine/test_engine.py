"""A request gives the same codes alone, in any batch, in any slot, and whatever the pools held before."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qwen_tts.engine.engine import Engine, load_engine
from qwen_tts.engine.sequence import Frame
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import CustomVoice, FinishReason, SamplingParams, SpeechRequest, TextLayout
from tests.qwen_tts.tiny import ALWAYS, CPU, GREEDY, TINY, codes, custom, drain, speak, tiny_engine

SHARP = SamplingParams(temperature=0.3, top_k=5)
FLAT = SamplingParams(temperature=1.8, top_k=0, top_p=0.8)
# Different in everything a row has of its own: prompt length, layout, language, sampling, seed and length.
REQUESTS = [
    custom("Hello there.", seed=1, max_frames=30),
    custom("A much longer text, which takes more rows.", seed=2, max_frames=9, layout="streaming"),
    custom("Hi", seed=3, max_frames=25, sampling=SHARP, language="english"),
    custom("Hi", seed=4, max_frames=1, speaker="eric"),
    custom("你好", seed=5, max_frames=40, sampling=FLAT, layout="streaming"),
    custom("One, two, three.", seed=6, max_frames=17, sampling=GREEDY, instructions="Slowly, please."),
    dataclasses.replace(custom("Over and over", seed=7, max_frames=33), repetition_penalty=3.0),
    dataclasses.replace(custom("Last", seed=8, max_frames=12), predictor_sampling=GREEDY),
]
End = tuple[list[Frame], FinishReason | None]

LAYOUTS: tuple[TextLayout, ...] = ("whole", "streaming")
# Of 128 codes one in some twenty frames ends the utterance.
SOMETIMES = 3.0


def fill_with_garbage(engine: Engine) -> None:
    """Every pool, whatever pools there are; finite, because NaN would pass through a masked weight."""
    pools = engine._runner.pools
    tensors = {name: value for name, value in vars(pools).items() if isinstance(value, Tensor)}
    assert {"kv", "predictor_kv", "hidden", "codes", "trailing_text", "seen", "seeds"} <= tensors.keys()
    for tensor in tensors.values():
        tensor.fill_(1e4 if tensor.is_floating_point() else 1)
    for rows in (pools.sampling, pools.predictor_sampling):
        rows.temperature.fill_(1e4)
        rows.top_k.fill_(1)
        rows.top_p.fill_(0.0)


@pytest.fixture(scope="module")
def alone(custom_voice: Path) -> list[End]:
    """Codes and finish reason of each request on an engine of its own."""
    ends = []
    for request in REQUESTS:
        (sequence,) = speak(tiny_engine(custom_voice, slots=1, eos_bias=SOMETIMES), request)
        ends.append((sequence.frames, sequence.finish_reason))
    assert {reason for _, reason in ends} == {"stop", "length"}
    return ends


@pytest.mark.parametrize("garbage", [False, True], ids=["fresh pools", "garbage in the pools"])
@pytest.mark.parametrize("slots", [8, 3])
@pytest.mark.parametrize("gap", [0, 2, 7], ids=lambda gap: f"every {gap} steps")
def test_a_batch_is_its_requests(custom_voice: Path, alone: list[End], gap: int, slots: int, garbage: bool) -> None:
    """Requests join `gap` steps apart and leave when they end, so that rows start, run and idle side by side."""
    engine = tiny_engine(custom_voice, slots=slots, eos_bias=SOMETIMES)
    if garbage:
        fill_with_garbage(engine)
    sequences = []
    for request in REQUESTS:
        sequences.append(engine.add(request))
        for _ in range(gap):
            engine.step()
    drain(engine)
    assert [(sequence.frames, sequence.finish_reason) for sequence in sequences] == alone


def test_codes_do_not_depend_on_the_slot(custom_voice: Path, alone: list[End]) -> None:
    engine = tiny_engine(custom_voice, eos_bias=SOMETIMES)
    for other in range(3):
        engine.add(custom(seed=other, max_frames=100))
        engine.step()
    sequence = engine.add(REQUESTS[0])
    engine.step()
    assert sequence.slot is not None
    assert sequence.slot > 0
    drain(engine)
    assert sequence.frames == alone[0][0]


def test_a_used_engine_is_as_good_as_new(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    first = codes(engine, custom(seed=1))
    codes(engine, custom("Something else.", seed=2, max_frames=30, layout="streaming"))
    assert codes(engine, custom(seed=1)) == first


def test_seeds(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    by_seed = [codes(engine, custom(seed=seed)) for seed in (0, 1, 2**63 - 1, 0)]
    assert by_seed[0] == by_seed[3]
    assert len({tuple(frames) for frames in by_seed}) == 3


def test_greedy_needs_no_seed(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    greedy = [dataclasses.replace(custom(seed=seed, sampling=GREEDY), predictor_sampling=GREEDY) for seed in (1, 2)]
    assert codes(engine, greedy[0]) == codes(engine, greedy[1])


def test_top_p_zero_is_greedy(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    nucleus = SamplingParams(temperature=1.0, top_p=0.0)
    requests = [dataclasses.replace(custom(seed=1, sampling=one), predictor_sampling=one) for one in (nucleus, GREEDY)]
    assert codes(engine, requests[0]) == codes(engine, requests[1])


def test_the_repetition_penalty_is_felt_from_the_second_frame(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    request = custom(sampling=GREEDY, max_frames=20)
    plain, varied = (
        [frame[0] for frame in codes(engine, dataclasses.replace(request, repetition_penalty=penalty))]
        for penalty in (1.0, 10.0)
    )
    assert plain[0] == varied[0]
    assert len(set(plain)) < len(set(varied))


def test_control_codes_are_never_sampled(custom_voice: Path) -> None:
    """The last 1024 ids of the talker's vocabulary: without suppression most draws from a flat head would hit them."""
    engine = tiny_engine(custom_voice)
    sampling = SamplingParams(temperature=2.0, top_k=0)
    frames = codes(engine, custom(sampling=sampling, max_frames=60))
    assert len(frames) == 60
    assert all(0 <= code < TINY.codebook for frame in frames for code in frame)
    assert {len(frame) for frame in frames} == {TINY.groups}


def test_end_of_speech_is_refused_for_two_frames(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice, eos_bias=ALWAYS)
    (sequence,) = speak(engine, custom())
    assert (len(sequence.frames), sequence.finish_reason) == (2, "stop")
    (sequence,) = speak(engine, custom(max_frames=1))
    assert (len(sequence.frames), sequence.finish_reason) == (1, "length")


@pytest.mark.parametrize(("own", "engine_limit", "expected"), [(5, 4096, 5), (50, 8, 8), (None, 4096, 75 + 6 * 2)])
def test_length_limit(custom_voice: Path, own: int | None, engine_limit: int, expected: int) -> None:
    engine = tiny_engine(custom_voice, max_frames=engine_limit)
    (sequence,) = speak(engine, custom("Hi", max_frames=own))
    assert (len(sequence.frames), sequence.finish_reason) == (expected, "length")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sequence_may_fill_its_slot_to_the_last_row(custom_voice: Path, layout: TextLayout) -> None:
    request = custom("Hello", layout=layout, max_frames=500)
    engine = tiny_engine(custom_voice, positions=40)
    sequence = engine.add(request)
    drain(engine)
    assert sequence.finish_reason == "length"
    assert len(sequence.frames) == 40 - len(sequence.layout)
    roomy = codes(tiny_engine(custom_voice), request)
    assert sequence.frames == roomy[: len(sequence.frames)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_too_long_an_input_is_refused_by_its_rows(custom_voice: Path, layout: TextLayout) -> None:
    engine = tiny_engine(custom_voice, positions=64)
    fits = next(n for n in range(80, 0, -1) if not refused(engine, custom("x" * n, layout=layout)))
    assert fits > 40
    with pytest.raises(
        InvalidRequest, match=r"input too long: the prompt would take 63 rows, and the model has room for 62"
    ) as caught:
        engine.add(custom("x" * (fits + 1), layout=layout))
    assert (caught.value.param, caught.value.code) == ("input", "input_too_long")
    drain(engine)
    (sequence,) = speak(engine, custom("x" * fits, layout=layout))
    assert len(sequence.frames) >= 2, "the longest input has room for the shortest speech"


def refused(engine: Engine, request: SpeechRequest) -> bool:
    try:
        engine.cancel(engine.add(request))
    except InvalidRequest:
        return True
    return False


def test_streaming_text_is_heard_row_by_row(custom_voice: Path) -> None:
    """Row n of the trailing text enters decode step n, which makes frame n + 1: until then two texts that differ
    in that row alone are one. The letters of this vocabulary are one row each, and the first is in the prompt."""
    engine = tiny_engine(custom_voice)
    one, other = (codes(engine, custom(text, layout="streaming", max_frames=30)) for text in ("abcdefgh", "abcdefgz"))
    assert one[:7] == other[:7]
    assert one[7:] != other[7:]
    one, other = (codes(engine, custom(text, max_frames=30)) for text in ("abcdefgh", "abcdefgz"))
    assert one[0] != other[0], "the whole text is read before the first frame"


def test_speaker_language_and_instruction_are_heard(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    requests = [custom(), custom(speaker="vivian"), custom(language="english"), custom(instructions="Softly.")]
    assert len({tuple(codes(engine, request)) for request in requests}) == 4


def test_an_idle_engine_steps_in_place(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    assert engine.idle
    assert engine.step() == ()


def test_a_step_returns_who_moved(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    first, second = engine.add(custom(max_frames=3)), engine.add(custom(max_frames=1))
    assert engine.step() == (first,)
    assert (engine.running, engine.waiting) == (1, 1)
    assert engine.step() == (first, second)
    assert engine.step() == (first,)
    assert engine.idle


def test_load_engine_takes_its_bound_from_generation_config(custom_voice: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(custom_voice, directory)
    (directory / "generation_config.json").write_text(json.dumps({"max_new_tokens": 77, "top_k": 9}))
    for given, bound in ((None, 77), (5, 5)):
        loaded = load_engine(
            str(directory),
            device=CPU,
            dtype=torch.float32,
            attn_implementation="sdpa",
            slots=1,
            positions=64,
            max_waiting=0,
            max_frames=given,
        )
        assert loaded.engine.max_frames == bound
        assert (loaded.defaults.top_k, loaded.codec_directory) == (9, directory / "speech_tokenizer")


@pytest.mark.parametrize("param", ["input", "instructions"])
def test_what_cannot_fit_is_refused_before_it_is_tokenised(
    custom_voice: Path, monkeypatch: pytest.MonkeyPatch, param: str
) -> None:
    engine = tiny_engine(custom_voice, positions=64)
    monkeypatch.setattr(engine._tokenizer, "encode", None)
    long = "x" * (64 * 64 + 1)
    with pytest.raises(InvalidRequest, match=f"{param} has 4097 characters") as caught:
        engine.add(custom(long) if param == "input" else custom(instructions=long))
    assert caught.value.param == param


def test_every_voice_is_looked_up_before_anything_is_queued(custom_voice: Path) -> None:
    engine = tiny_engine(custom_voice)
    with pytest.raises(InvalidRequest, match="'nobody' is unknown"):
        engine.add(SpeechRequest("Hello", CustomVoice("nobody")))
    assert engine.idle

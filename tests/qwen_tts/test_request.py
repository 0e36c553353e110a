"""Every range a request is held to, once, at its edges."""

import math
import secrets
from dataclasses import FrozenInstanceError

import pytest

from qwen_tts.config import GenerationDefaults
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import (
    MAX_SEED,
    CustomVoice,
    DesignedVoice,
    SamplingParams,
    SpeechRequest,
    Voice,
    default_sampling,
    draw_seed,
    frame_limit,
)

RYAN = CustomVoice("ryan")
HALF_PAIR = "x\ud83d"  # half of an emoji, as a truncated JSON escape leaves it


def speech(text: str = "Hello", voice: Voice = RYAN) -> SpeechRequest:
    return SpeechRequest(text, voice)


def speech_with(field: str, value: object) -> SpeechRequest:
    return SpeechRequest(**{"text": "Hello", "voice": RYAN, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "high", "outside"),
    [
        ("temperature", 2.0, (-1e-3, 2.001, math.nan, math.inf, -math.inf)),
        ("top_k", 65536, (-1, 65537)),
        ("top_p", 1.0, (-1e-3, 1.001, math.nan, math.inf, -math.inf)),
    ],
)
def test_sampling_ranges(name: str, high: float, outside: tuple[float, ...]) -> None:
    for inside in (0, high):
        assert getattr(SamplingParams(**{name: inside}), name) == inside  # type: ignore[arg-type]
    for value in outside:
        with pytest.raises(InvalidRequest, match=f"^subtalker_{name} is .* at most {high}$") as caught:
            SamplingParams(**{name: value}, prefix="subtalker_")  # type: ignore[arg-type]
        assert (caught.value.param, caught.value.code) == (f"subtalker_{name}", "out_of_range")


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("repetition_penalty", (1e-6, 1.0, 10.0), (0.0, -1.0, 10.1, math.nan, math.inf)),
        ("seed", (0, MAX_SEED), (-1, MAX_SEED + 1)),
    ],
)
def test_request_ranges(name: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    for value in inside:
        assert getattr(speech_with(name, value), name) == value
    for value in outside:
        with pytest.raises(InvalidRequest, match=f"^{name} is ") as caught:
            speech_with(name, value)
        assert (caught.value.param, caught.value.code) == (name, "out_of_range")


@pytest.mark.parametrize("frames", [0, -1])
def test_a_request_for_no_frames_is_refused_under_its_public_name(frames: int) -> None:
    with pytest.raises(InvalidRequest, match="max_new_tokens") as caught:
        speech_with("max_frames", frames)
    assert caught.value.param == "max_new_tokens"


@pytest.mark.parametrize("frames", [0, 51])
def test_a_first_chunk_is_refused_under_its_public_name(frames: int) -> None:
    assert [speech_with("first_chunk_frames", inside).first_chunk_frames for inside in (1, 50)] == [1, 50]
    with pytest.raises(InvalidRequest, match="at least 1 and at most 50") as caught:
        speech_with("first_chunk_frames", frames)
    assert caught.value.param == "initial_codec_chunk_frames"


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000", "\u2028"])
def test_blank_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="input is empty") as caught:
        speech(text)
    assert (caught.value.param, caught.value.code) == ("input", "empty_input")


@pytest.mark.parametrize(
    ("text", "voice", "param"),
    [
        (HALF_PAIR, RYAN, "input"),
        ("Hello", CustomVoice("ryan", HALF_PAIR), "instructions"),
        ("Hello", DesignedVoice(HALF_PAIR), "instructions"),
    ],
)
def test_half_a_surrogate_pair_is_refused_where_it_stands(text: str, voice: Voice, param: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{param} holds half of a surrogate pair") as caught:
        speech(text, voice)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("text", None, "input"),
        ("text", b"Hello", "input"),
        ("language", None, "language"),
        ("voice", CustomVoice(None), "voice"),  # type: ignore[arg-type]
        ("voice", CustomVoice("ryan", 3), "instructions"),  # type: ignore[arg-type]
        ("voice", DesignedVoice(["x"]), "instructions"),  # type: ignore[arg-type]
        ("seed", "1", "seed"),
        ("seed", True, "seed"),
        ("repetition_penalty", "1", "repetition_penalty"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(field: str, value: object, param: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^{param} must be a (string|number|whole number), not ") as caught:
        speech_with(field, value)
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [("seed", 1.5, "seed"), ("max_frames", 2.5, "max_new_tokens"), ("max_frames", math.nan, "max_new_tokens")],
)
def test_a_fraction_of_a_whole_number_is_refused_by_name(field: str, value: float, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        speech_with(field, value)
    assert caught.value.param == param


def test_requests_are_values() -> None:
    one, other = (SpeechRequest("Hello", CustomVoice("ryan"), seed=3) for _ in range(2))
    assert one == other
    with pytest.raises(FrozenInstanceError):
        one.seed = 4  # type: ignore[misc]


def test_a_request_without_a_seed_draws_its_own() -> None:
    """63 bits: two alike in a hundred would be a broken source, not bad luck."""
    seeds = {speech().seed for _ in range(50)} | {draw_seed() for _ in range(50)}
    assert len(seeds) == 100
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


def test_a_drawn_seed_and_those_counted_up_from_it_are_exact_as_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda count: count - 1)
    largest = draw_seed()
    assert all(int(float(largest + index)) == largest + index for index in range(1000))


@pytest.mark.parametrize(
    ("text", "max_frames", "absolute", "limit"),
    [
        ("Hello", None, 8192, 75 + 6 * 5),
        ("你好", None, 8192, 75 + 6 * 6),  # UTF-8 bytes, not characters
        ("Hello", None, 100, 100),
        ("x" * 2000, None, 8192, 8192),
        ("Hello", 7, 8192, 7),
        ("Hello", 5000, 8192, 5000),  # the caller's own bound may lie above ours
        ("Hello", 9000, 8192, 8192),
    ],
)
def test_frame_limit(text: str, max_frames: int | None, absolute: int, limit: int) -> None:
    assert frame_limit(SpeechRequest(text, RYAN, seed=0, max_frames=max_frames), absolute) == limit


def test_default_sampling_reads_each_half_from_its_own_keys() -> None:
    defaults = GenerationDefaults(
        temperature=0.5, top_k=5, top_p=0.6, subtalker_temperature=0.7, subtalker_top_k=7, subtalker_top_p=0.8
    )
    assert default_sampling(defaults) == (SamplingParams(0.5, 5, 0.6), SamplingParams(0.7, 7, 0.8))


@pytest.mark.parametrize(("do_sample", "subtalker_dosample"), [(False, True), (True, False)])
def test_not_sampling_means_temperature_zero(do_sample: bool, subtalker_dosample: bool) -> None:
    defaults = GenerationDefaults(do_sample=do_sample, subtalker_dosample=subtalker_dosample)
    talker, predictor = default_sampling(defaults)
    assert (talker.temperature, predictor.temperature) == (0.9 * do_sample, 0.9 * subtalker_dosample)


def test_a_bad_default_of_the_code_predictor_is_named_as_its_own() -> None:
    with pytest.raises(InvalidRequest, match=r"^subtalker_top_k is -1"):
        default_sampling(GenerationDefaults(subtalker_top_k=-1))


def test_an_unknown_text_layout_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="text_layout is 'sideways'; it must be one of whole, streaming"):
        speech_with("text_layout", "sideways")

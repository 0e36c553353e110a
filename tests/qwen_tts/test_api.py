"""The public library on checkpoints of random weights: what is generated, what is streamed, what is refused."""

import itertools
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import qwen_tts
from qwen_tts import EngineStopped, InvalidRequest, Qwen3TTSModel
from qwen_tts.api import GenerationOptions
from qwen_tts.audio import Samples
from tests.qwen_tts.engine.decoding import FRAME_SAMPLES, TOLERANCE
from tests.qwen_tts.tiny import NEVER, set_eos_bias

RATE_HZ = 24000
SHORT: GenerationOptions = {"max_new_tokens": 6, "seed": 1}


def load(checkpoint: Path, dtype: str | torch.dtype | None = None) -> Qwen3TTSModel:
    """A model that speaks until max_new_tokens: random weights end when they please."""
    model = Qwen3TTSModel.from_pretrained(str(checkpoint), dtype=dtype)
    talker = model._engine._runner.talker
    set_eos_bias(talker, NEVER)
    talker.codec_head.to(talker.model.norm.weight.dtype)
    return model


@pytest.fixture(scope="module")
def model(custom_voice: Path) -> Qwen3TTSModel:
    return load(custom_voice)


@pytest.fixture(scope="module")
def designer(voice_design: Path) -> Qwen3TTSModel:
    return load(voice_design)


def speak(model: Qwen3TTSModel, options: GenerationOptions | None = None) -> Samples:
    """One text with SHORT and `options` over it."""
    samples, rate_hz = model.generate_custom_voice("Hello", "ryan", **(SHORT | (options or {})))
    assert rate_hz == RATE_HZ
    return samples[0]


def test_public_names() -> None:
    assert sorted(qwen_tts.__all__) == [
        "CheckpointError",
        "EngineStopped",
        "InvalidRequest",
        "Overloaded",
        "Qwen3TTSModel",
        "Qwen3TTSTokenizer",
        "QwenTTSError",
        "RequestFailed",
        "UnsupportedError",
        "VoiceClonePromptItem",
        "VoicePrompt",
    ]
    assert all(hasattr(qwen_tts, name) for name in qwen_tts.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Qwen4'"):
        _ = qwen_tts.Qwen4


def test_samples_are_whole_frames(model: Qwen3TTSModel) -> None:
    samples = speak(model, {"max_new_tokens": 5})
    assert samples.dtype == np.float32
    assert samples.shape == (5 * FRAME_SAMPLES,)
    assert np.abs(samples).max() > 0.01


@pytest.mark.parametrize("layout", [True, False], ids=["whole text", "streaming text"])
def test_streamed_pieces_are_the_whole(model: Qwen3TTSModel, layout: bool) -> None:
    options: GenerationOptions = {"seed": 3, "max_new_tokens": 90}
    pieces = list(model.stream_custom_voice("Hello", "ryan", "english", "softly", layout, **options))
    (whole,), _ = model.generate_custom_voice("Hello", "ryan", "english", "softly", layout, **options)
    assert {rate_hz for _, rate_hz in pieces} == {RATE_HZ}
    frames = [len(samples) // FRAME_SAMPLES for samples, _ in pieces]
    assert frames[:4] == [1, 2, 4, 8]
    assert sum(frames) > 64, "the whole is decoded in more than one piece too"
    np.testing.assert_allclose(np.concatenate([samples for samples, _ in pieces]), whole, atol=TOLERANCE, rtol=0)


def test_non_streaming_mode_reads_the_whole_text_first(model: Qwen3TTSModel) -> None:
    """Its last letter is then in the first frame already."""
    first_frames = {}
    for whole in (True, False):
        both, _ = model.generate_custom_voice(["abcdefgh", "abcdefgz"], "ryan", non_streaming_mode=whole, **SHORT)
        first_frames[whole] = np.array_equal(both[0][:FRAME_SAMPLES], both[1][:FRAME_SAMPLES])
    assert first_frames == {True: False, False: True}


def test_designed_voice_streams_what_it_generates(designer: Qwen3TTSModel) -> None:
    pieces = list(designer.stream_voice_design("Hello", "warm and low", "english", **SHORT))
    (whole,), _ = designer.generate_voice_design("Hello", "warm and low", "english", **SHORT)
    (other,), _ = designer.generate_voice_design("Hello", "thin and high", "english", **SHORT)
    np.testing.assert_allclose(np.concatenate([samples for samples, _ in pieces]), whole, atol=TOLERANCE, rtol=0)
    assert not np.array_equal(whole, other), "the description is heard"


def test_a_list_is_its_texts_one_by_one(model: Qwen3TTSModel) -> None:
    texts, speakers, seeds = ["One", "Two words", "Three more words"], ["ryan", "eric", "vivian"], [5, 6, 7]
    together, _ = model.generate_custom_voice(texts, speakers, max_new_tokens=6, seed=seeds)
    for text, speaker, seed, samples in zip(texts, speakers, seeds, together, strict=True):
        (alone,), _ = model.generate_custom_voice(text, speaker, max_new_tokens=6, seed=seed)
        np.testing.assert_array_equal(samples, alone)


def test_one_value_serves_every_text(model: Qwen3TTSModel) -> None:
    texts = [f"Text {n}" for n in range(11)]  # more than there are slots
    spread, _ = model.generate_custom_voice(texts, ["ryan"], ["english"], "softly", max_new_tokens=3, seed=[4])
    written, _ = model.generate_custom_voice(
        texts, ["ryan"] * 11, ["english"] * 11, ["softly"] * 11, max_new_tokens=3, seed=[4] * 11
    )
    assert len(spread) == 11
    for one, other in zip(spread, written, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["speaker", "language", "instruct", "seed"])
def test_a_list_of_another_length_is_named(model: Qwen3TTSModel, name: str) -> None:
    arguments: dict[str, object] = {"speaker": "ryan", name: ["ryan", "ryan"] if name != "seed" else [1, 2]}
    with pytest.raises(InvalidRequest, match=f"{name} has 2 entries; give 3") as caught:
        model.generate_custom_voice(["a", "b", "c"], **arguments)  # type: ignore[arg-type]
    assert caught.value.param == name


def test_values_may_be_tuples_or_numpy_numbers(model: Qwen3TTSModel) -> None:
    """More than the types say, as notebooks do; hence their being ignored here."""
    written, _ = model.generate_custom_voice(
        ["a", "b"], ["ryan", "eric"], seed=[3, 4], temperature=0.5, max_new_tokens=3
    )
    given, _ = model.generate_custom_voice(
        ("a", "b"),  # type: ignore[arg-type]
        ("ryan", "eric"),  # type: ignore[arg-type]
        seed=np.array([3, 4]),  # type: ignore[arg-type]
        temperature=np.float32(0.5),  # type: ignore[arg-type]
        max_new_tokens=np.int64(3),  # type: ignore[arg-type]
    )
    for one, other in zip(written, given, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"text": None, "speaker": "ryan"}, "text"),
        ({"text": {"text": "x"}, "speaker": "ryan"}, "text"),
        ({"text": ["x", 5], "speaker": "ryan"}, "input"),
        ({"text": "x", "speaker": "ryan", "language": 0}, "language"),
        ({"text": "x", "speaker": "ryan", "instruct": 0}, "instructions"),
        ({"text": "x", "speaker": "ryan", "do_sample": "false"}, "do_sample"),
    ],
)
def test_a_value_of_another_type_is_refused(model: Qwen3TTSModel, arguments: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest, match="must be") as caught:
        model.generate_custom_voice(**arguments)  # type: ignore[arg-type]
    assert caught.value.param == param


def test_no_texts_are_refused(model: Qwen3TTSModel) -> None:
    with pytest.raises(InvalidRequest, match="empty list"):
        model.generate_custom_voice([], "ryan")


def test_one_bad_text_leaves_no_other_running(model: Qwen3TTSModel) -> None:
    with pytest.raises(InvalidRequest, match="'nobody' is unknown"):
        model.generate_custom_voice(["a", "b"], ["ryan", "nobody"])
    assert model._engine.idle


def test_an_unknown_option_names_the_valid_ones(model: Qwen3TTSModel) -> None:
    with pytest.raises(InvalidRequest, match=r"unknown argument temprature; valid: do_sample, temperature, .*seed"):
        model.generate_custom_voice("a", "ryan", temprature=0.5)  # type: ignore[call-arg]


OUT_OF_RANGE: list[GenerationOptions] = [
    {"temperature": 2.5},
    {"top_p": 1.5},
    {"subtalker_top_k": -1},
    {"repetition_penalty": 0.0},
    {"seed": -1},
    {"max_new_tokens": 0},
]


@pytest.mark.parametrize("options", OUT_OF_RANGE, ids=lambda options: next(iter(options)))
def test_an_option_out_of_range_is_named_as_the_caller_wrote_it(
    model: Qwen3TTSModel, options: GenerationOptions
) -> None:
    (name,) = options
    with pytest.raises(InvalidRequest, match=f"^{name} is ") as caught:
        speak(model, options)
    assert caught.value.param == name


def test_a_seed_repeats_and_another_differs(model: Qwen3TTSModel) -> None:
    np.testing.assert_array_equal(speak(model, {"seed": 1}), speak(model, {"seed": 1}))
    assert not np.array_equal(speak(model, {"seed": 1}), speak(model, {"seed": 2}))


def test_without_a_seed_every_call_differs(model: Qwen3TTSModel) -> None:
    (first, second), _ = model.generate_custom_voice(["Hello", "Hello"], "ryan", max_new_tokens=6)
    (third,), _ = model.generate_custom_voice("Hello", "ryan", max_new_tokens=6)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_greedy_ignores_the_seed(model: Qwen3TTSModel) -> None:
    def greedy(seed: int) -> Samples:
        return speak(model, {"do_sample": False, "subtalker_dosample": False, "seed": seed})

    np.testing.assert_array_equal(greedy(1), greedy(2))
    first, second = (speak(model, {"do_sample": False, "seed": seed}) for seed in (1, 2))
    assert not np.array_equal(first, second), "the code predictor has a switch of its own"


def test_defaults_come_from_generation_config(custom_voice: Path, model: Qwen3TTSModel, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(custom_voice, directory)
    defaults: GenerationOptions = {
        "temperature": 1.5,
        "top_k": 5,
        "subtalker_temperature": 0.4,
        "repetition_penalty": 2.0,
    }
    (directory / "generation_config.json").write_text(json.dumps(defaults))
    other = load(directory)
    np.testing.assert_array_equal(speak(other), speak(model, defaults))
    assert not np.array_equal(speak(other), speak(model))
    given: GenerationOptions = {"top_k": 9, "temperature": None}  # type: ignore[typeddict-item]  # None is "not given"
    np.testing.assert_array_equal(speak(other, given), speak(model, defaults | {"top_k": 9}))


def test_max_new_tokens_of_generation_config_bounds_everyone(custom_voice: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(custom_voice, directory)
    (directory / "generation_config.json").write_text('{"max_new_tokens": 3}')
    assert len(speak(load(directory), {"max_new_tokens": 50})) == 3 * FRAME_SAMPLES


def test_closing_a_stream_gives_its_slot_back(model: Qwen3TTSModel) -> None:
    for _ in range(20):  # more than there are slots
        stream = model.stream_custom_voice("Hello", "ryan", max_new_tokens=2000, seed=1)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    speak(model)
    assert model._engine.idle


def test_a_stream_that_is_never_read_costs_nothing(model: Qwen3TTSModel) -> None:
    """A generator closed before it starts runs no `finally`: nothing may be queued for it yet."""
    streams = [model.stream_custom_voice("Hello", "ryan", max_new_tokens=2000, seed=1) for _ in range(20)]
    for stream in streams[:10]:
        stream.close()  # type: ignore[attr-defined]
    assert model._engine.idle


def test_a_bad_stream_is_refused_before_it_is_read(model: Qwen3TTSModel) -> None:
    with pytest.raises(InvalidRequest, match="'nobody' is unknown"):
        model.stream_custom_voice("Hello", "nobody")


def test_interleaved_streams_do_not_mix(model: Qwen3TTSModel) -> None:
    options: list[GenerationOptions] = [{"seed": 1, "max_new_tokens": 20}, {"seed": 2, "max_new_tokens": 13}]
    alone = [speak(model, one) for one in options]
    streams = [model.stream_custom_voice("Hello", "ryan", **one) for one in options]
    rounds = itertools.zip_longest(*streams)
    pieces = [[piece[0] for piece in stream if piece is not None] for stream in zip(*rounds, strict=True)]
    for samples, whole in zip(pieces, alone, strict=True):
        np.testing.assert_allclose(np.concatenate(samples), whole, atol=TOLERANCE, rtol=0)


def test_threads_share_a_model(model: Qwen3TTSModel) -> None:
    seeds = range(6)
    alone = [speak(model, {"seed": seed, "max_new_tokens": 15}) for seed in seeds]
    shared: dict[int, Samples] = {}
    together = threading.Barrier(len(seeds))

    def work(seed: int) -> None:
        together.wait()
        shared[seed] = speak(model, {"seed": seed, "max_new_tokens": 15})

    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in seeds:
        np.testing.assert_array_equal(shared[seed], alone[seed])
    assert model._engine.idle


def test_what_a_model_supports(model: Qwen3TTSModel, designer: Qwen3TTSModel) -> None:
    speakers = ["aiden", "dylan", "eric", "ono_anna", "ryan", "serena", "sohee", "uncle_fu", "vivian"]
    languages = [
        "auto", "chinese", "english", "french", "german", "italian", "japanese", "korean", "portuguese", "russian",
        "spanish",
    ]  # fmt: skip
    assert model.get_supported_speakers() == speakers
    assert designer.get_supported_speakers() == []
    assert model.get_supported_languages() == designer.get_supported_languages() == languages


def test_a_method_of_another_model_type_says_so(model: Qwen3TTSModel, designer: Qwen3TTSModel, base: Path) -> None:
    with pytest.raises(InvalidRequest, match="type 'voice_design' and has no built-in voices"):
        designer.generate_custom_voice("a", "ryan")
    with pytest.raises(InvalidRequest, match="type 'custom_voice' and cannot design a voice"):
        model.generate_voice_design("a", "warm")
    with pytest.raises(InvalidRequest, match="type 'base' and has no built-in voices"):
        Qwen3TTSModel.from_pretrained(str(base)).stream_custom_voice("a", "ryan")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16, "float32"])
def test_every_offered_dtype_speaks(custom_voice: Path, dtype: str | torch.dtype) -> None:
    model = load(custom_voice, dtype)
    weight = model._engine._runner.talker.model.codec_embedding.weight
    assert weight.dtype == (getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    samples = speak(model)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert len(samples) == 6 * FRAME_SAMPLES


def test_an_interrupted_step_is_an_error_for_the_others(model: Qwen3TTSModel) -> None:
    """Half an utterance must not pass for a whole one."""
    other = model.stream_custom_voice("Hello", "ryan", max_new_tokens=50, seed=1)
    next(other)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = model._engine._runner.talker.codec_head.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        speak(model, {"max_new_tokens": 2})
    hook.remove()
    with pytest.raises(EngineStopped):
        list(other)
    assert model._engine.idle
    speak(model, {"max_new_tokens": 2})

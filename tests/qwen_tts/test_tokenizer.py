"""The codec on its own: audio to codes and back, in the reference's forms."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qwen_tts import InvalidRequest, Qwen3TTSTokenizer, UnsupportedError
from qwen_tts.audio import Samples
from qwen_tts.checkpoint import CODEC_DIRECTORY
from qwen_tts.tokenizer import EncodedAudio
from tests.parity.reference_clips import CLIPS
from tests.qwen_tts.engine.decoding import FRAME_SAMPLES, TOLERANCE, decode, load_decoder, random_codes
from tests.qwen_tts.tiny import TINY
from tests.recordings import wav

WAV = wav("high")
HIGH, LOW = CLIPS["high"].samples(), CLIPS["low"].samples()
CODES = random_codes(130)[0]  # longer than the pieces it is decoded in


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Qwen3TTSTokenizer:
    return Qwen3TTSTokenizer.from_pretrained(str(base))


@pytest.fixture(scope="module")
def expected(base: Path) -> Samples:
    samples: Samples = decode(load_decoder(base), CODES[None])[0].numpy()
    return samples


def test_a_codec_directory_alone_is_enough(base: Path, tokenizer: Qwen3TTSTokenizer) -> None:
    alone = Qwen3TTSTokenizer.from_pretrained(str(base / CODEC_DIRECTORY))
    codes = [each.encode((HIGH, 24000)).audio_codes[0] for each in (tokenizer, alone)]
    assert torch.equal(*codes)


def test_what_is_said_of_it(tokenizer: Qwen3TTSTokenizer) -> None:
    assert tokenizer.get_model_type() == "qwen3_tts_tokenizer_12hz"
    assert (tokenizer.get_input_sample_rate(), tokenizer.get_output_sample_rate()) == (24000, 24000)
    assert (tokenizer.get_encode_downsample_rate(), tokenizer.get_decode_upsample_rate()) == (1920, 1920)


def test_every_form_of_audio(tokenizer: Qwen3TTSTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(WAV)
    text = base64.b64encode(WAV).decode()
    forms: list[Any] = [str(path), text, f"data:audio/wav;base64,{text}", [str(path)], [text]]
    encoded = [tokenizer.encode(form) for form in forms]
    for other in encoded:
        assert isinstance(other, EncodedAudio)
        assert torch.equal(other.audio_codes[0], encoded[0].audio_codes[0])
    assert encoded[0].audio_codes[0].shape == (38, TINY.groups)


def test_arrays_and_lists(tokenizer: Qwen3TTSTokenizer) -> None:
    together = tokenizer.encode([HIGH, LOW], sr=24000)
    assert isinstance(together, EncodedAudio)
    for samples, codes in zip((HIGH, LOW), together.audio_codes, strict=True):
        (alone,) = tokenizer.encode(samples, sr=24000, return_dict=False)
        assert torch.equal(alone[0], codes)
    resampled = tokenizer.encode((HIGH[::2], 12000))
    assert isinstance(resampled, EncodedAudio)
    assert len(resampled.audio_codes[0]) == len(together.audio_codes[0])


def test_every_form_of_codes(tokenizer: Qwen3TTSTokenizer, expected: Samples) -> None:
    padded = torch.full((2, 140, TINY.groups), -1)
    padded[0, :130], padded[1, :20] = CODES, CODES[:20]
    forms: dict[str, tuple[Any, int]] = {
        "encoded": (EncodedAudio([CODES, CODES[:20]]), 2),
        "dict": ({"audio_codes": CODES}, 1),
        "array": ({"audio_codes": CODES.numpy().astype(np.int16)}, 1),
        "unsigned array": ({"audio_codes": CODES.numpy().astype(np.uint16)}, 1),
        "nested list": ({"audio_codes": [CODES.tolist(), CODES[:20].tolist()]}, 2),
        "dict of a list": ({"audio_codes": [CODES, CODES[:20]]}, 2),
        "padded batch": ({"audio_codes": padded}, 2),
        "list of dicts": ([{"audio_codes": CODES}, {"audio_codes": CODES[:20]}], 2),
    }
    for name, (form, count) in forms.items():
        samples, rate_hz = tokenizer.decode(form)
        assert rate_hz == 24000
        assert [len(one) for one in samples] == [130 * FRAME_SAMPLES, 20 * FRAME_SAMPLES][:count], name
        np.testing.assert_allclose(samples[0], expected, atol=TOLERANCE, rtol=0, err_msg=name)
        if count == 2:
            np.testing.assert_allclose(samples[1], expected[: 20 * FRAME_SAMPLES], atol=TOLERANCE, rtol=0)


def test_what_it_encodes_it_decodes(tokenizer: Qwen3TTSTokenizer) -> None:
    (samples,), _ = tokenizer.decode(tokenizer.encode([(HIGH, 24000)]))
    assert len(samples) == 38 * FRAME_SAMPLES
    assert np.isfinite(samples).all()


@pytest.mark.parametrize(
    ("audio", "param"),
    [(HIGH, "sr"), ("nowhere.wav", "ref_audio"), ((HIGH[:0], 24000), "ref_audio"), (None, "ref_audio")],
)
def test_audio_that_is_refused(tokenizer: Qwen3TTSTokenizer, audio: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tokenizer.encode(audio)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("encoded", "param"),
    [
        (CODES, "encoded"),
        ({}, "encoded"),
        ([], "encoded"),
        ([{"codes": CODES}], "encoded"),
        ({"audio_codes": CODES[:, :-1]}, "audio_codes"),
        ({"audio_codes": CODES[0]}, "audio_codes"),
        ({"audio_codes": CODES[0, 0]}, "audio_codes"),
        ({"audio_codes": None}, "audio_codes"),
        ({"audio_codes": "codes"}, "audio_codes"),
        ({"audio_codes": [None]}, "audio_codes"),
        ({"audio_codes": CODES[None, None]}, "audio_codes"),
        ({"audio_codes": CODES.float()}, "audio_codes"),
        ({"audio_codes": CODES + TINY.codebook}, "audio_codes"),
    ],
)
def test_codes_that_are_refused(tokenizer: Qwen3TTSTokenizer, encoded: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tokenizer.decode(encoded)
    assert caught.value.param == param


def test_no_frames_are_no_samples(tokenizer: Qwen3TTSTokenizer) -> None:
    (samples,), _ = tokenizer.decode({"audio_codes": CODES[:0]})
    assert samples.shape == (0,)


def test_what_this_machine_cannot_do(base: Path) -> None:
    with pytest.raises(UnsupportedError, match="'warp' is not supported"):
        Qwen3TTSTokenizer.from_pretrained(str(base), device_map="warp")

"""The codec encoder, in batches and alone, and the decoder that continues from an encoded reference."""

import asyncio
import math
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deployments.replicas.codec_encoder import CodecEncoderDeployment
from deployments.settings import CodecEncoderArgs, ModelArgs
from qwen_tts.audio import Clip
from qwen_tts.checkpoint import CODEC_DIRECTORY, WEIGHTS_FILE
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.encoder import CodecEncoder, load_codec_encoder
from qwen_tts.errors import EngineStopped, InvalidRequest, RequestFailed, UnsupportedError
from qwen_tts.voice import EncodedReference
from qwen_tts.voice_encoder import fingerprint, load_voice_encoder
from tests.deployments.replicas.conftest import Leaving
from tests.deployments.replicas.waiting import PATIENCE_S, until
from tests.parity.reference_clips import CLIPS
from tests.qwen_tts.engine.decoding import FRAME_SAMPLES, TOLERANCE, decode, load_decoder, random_codes
from tests.qwen_tts.tiny import CPU, TINY
from tests.recordings import wav

CODEC_WEIGHTS = f"{CODEC_DIRECTORY}/{WEIGHTS_FILE}"
WAVES = [
    torch.from_numpy(Clip(clip.samples(), clip.sample_rate_hz).resampled(24000).samples) for clip in CLIPS.values()
]


@pytest.fixture(scope="module")
def encoder(base: Path) -> CodecEncoder:
    encoder, _ = load_codec_encoder(base / CODEC_DIRECTORY, CPU)
    return encoder


def test_a_batch_gives_every_clip_its_own_codes(encoder: CodecEncoder) -> None:
    alone = [encoder.encode([wave], TINY.groups)[0] for wave in WAVES]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0], [1, 1]):
        together = encoder.encode([WAVES[index] for index in order], TINY.groups)
        for codes, index in zip(together, order, strict=True):
            assert torch.equal(codes, alone[index])


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 3840, 48001])
def test_frames_of_a_clip(encoder: CodecEncoder, samples: int) -> None:
    (codes,) = encoder.encode([WAVES[1].repeat(2)[:samples]], TINY.groups)
    assert codes.shape == (math.ceil(samples / FRAME_SAMPLES), TINY.groups)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < TINY.codebook


def test_the_first_frames_do_not_depend_on_what_follows(encoder: CodecEncoder) -> None:
    (whole,) = encoder.encode([WAVES[4]], TINY.groups)
    (start,) = encoder.encode([WAVES[4][: 20 * FRAME_SAMPLES]], TINY.groups)
    assert torch.equal(start[:15], whole[:15]), "it is causal; only the last frames see the padding"


def test_the_encoder_sees_more_than_ten_seconds_back(encoder: CodecEncoder) -> None:
    """A window of 250 positions at 25 Hz would not reach the beginning. The reference has no such window."""
    later = WAVES[4].clone()
    later[: 24000 // 2] *= 0.1
    (one,), (other,) = encoder.encode([WAVES[4]], TINY.groups), encoder.encode([later], TINY.groups)
    assert not torch.equal(one[-20:], other[-20:])


@pytest.mark.parametrize("frames", [1, 5, 11, 12, 13, 40, 100])
@torch.inference_mode()
def test_a_primed_decoder_goes_on_as_if_it_had_decoded_the_reference(base: Path, frames: int) -> None:
    decoder = load_decoder(base)
    codes = random_codes(frames + 20)
    whole = decode(decoder, codes)[:, frames * FRAME_SAMPLES :]
    carry = Carry()
    decoder.prime(codes[:, :frames], carry)
    pieces: list[Tensor] = []
    for start in range(frames, frames + 20, 7):
        carry = Carry(carry.kept)
        pieces.append(decoder(codes[:, start : min(start + 7, frames + 20)], carry))
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=TOLERANCE, rtol=0)


def test_voices_encoded_together_are_those_encoded_alone(base: Path) -> None:
    encoder = load_voice_encoder(base, CPU)
    clips = [Clip(clip.samples(), clip.sample_rate_hz) for clip in CLIPS.values()]
    for clip, together in zip(clips, encoder.encode(clips), strict=True):
        (alone,) = encoder.encode([clip])
        assert (alone.codes == together.codes).all()
        assert (alone.speaker_embedding == together.speaker_embedding).all()
        assert alone.fingerprint == encoder.fingerprint


@torch.inference_mode()
def test_priming_leaves_what_decoding_leaves(base: Path) -> None:
    """Every tensor of the state is compared, because random weights hide some differences of the audio."""
    decoder, codes = load_decoder(base), random_codes(40)
    primed, decoded = Carry(), Carry()
    decoder.prime(codes, primed)
    decoder(codes, decoded)
    for one, other in zip(primed.kept, decoded.kept, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("file", "tensor", "another"),
    [
        (WEIGHTS_FILE, "talker.codec_head.weight", False),
        (WEIGHTS_FILE, "speaker_encoder.fc.bias", True),
        (CODEC_WEIGHTS, "encoder.quantizer.acoustic_residual_vector_quantizer.layers.0.codebook.embed_sum", True),
        (CODEC_WEIGHTS, "decoder.pre_conv.conv.weight", False),
    ],
    ids=["fine-tuned talker", "speaker encoder", "codebook", "decoder"],
)
def test_fingerprints_tell_encoders_apart_and_nothing_else(
    base: Path, tmp_path: Path, file: str, tensor: str, another: bool
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    tensors = load_file(copy / file)
    tensors[tensor].flatten()[0] += 1
    save_file(tensors, copy / file)
    assert (fingerprint(copy) != fingerprint(base)) == another


def test_a_model_of_another_type_has_no_voice_encoder(custom_voice: Path) -> None:
    with pytest.raises(UnsupportedError, match="'custom_voice' cannot clone voices; a model of type 'base' can"):
        load_voice_encoder(custom_voice, CPU)


class GatedEncoder:
    """A voice encoder whose batches wait for a gate. The only code of a clip is its length in units of 10 ms."""

    sample_rate_hz = 24000

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.started = threading.Event()
        self.gate = threading.Event()

    def encode(self, clips: Sequence[Clip]) -> list[EncodedReference]:
        self.batches.append(len(clips))
        self.started.set()
        assert self.gate.wait(PATIENCE_S)
        return [
            EncodedReference(np.zeros(1, np.float32), np.full((1, 1), len(clip.samples) // 240, np.int16), "gated")
            for clip in clips
        ]


@pytest.fixture
def deployment(base: Path) -> CodecEncoderDeployment:
    models = (ModelArgs(name="base", checkpoint=str(base), type="base"),)
    return CodecEncoderDeployment(models, CodecEncoderArgs(threads=1))


async def test_references_that_arrive_while_the_model_is_busy_are_one_batch(deployment: CodecEncoderDeployment) -> None:
    model = GatedEncoder()
    deployment._encoders["base"] = model  # type: ignore[assignment]  # the two members that are used
    seconds = [1 + index / 10 for index in range(12)]
    tasks = [asyncio.create_task(deployment.encode("base", wav(seconds=seconds[0])))]
    await until(model.started.is_set)
    tasks += [asyncio.create_task(deployment.encode("base", wav(seconds=length))) for length in seconds[1:]]
    await until(lambda: len(deployment._batcher._waiting) == 11)
    model.gate.set()
    encoded = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
    assert model.batches == [1, 11]
    assert [int(reference.codes[0, 0]) for reference in encoded] == [round(100 * length) for length in seconds]


async def test_a_recording_that_cannot_be_encoded_fails_alone(
    deployment: CodecEncoderDeployment, monkeypatch: pytest.MonkeyPatch, leaving: Leaving
) -> None:
    encode = deployment._encoders["base"].encode

    def poisoned(clips: Sequence[Clip]) -> list[EncodedReference]:
        if any(clip.seconds > 2 for clip in clips):
            raise ArithmeticError
        return encode(clips)

    monkeypatch.setattr(deployment._encoders["base"], "encode", poisoned)
    sent = [deployment.encode("base", wav(seconds=seconds)) for seconds in (1.2, 2.5, 1.5)]
    one, bad, other = await asyncio.gather(*sent, return_exceptions=True)
    assert isinstance(one, EncodedReference)
    assert isinstance(bad, RequestFailed)
    assert isinstance(other, EncodedReference)
    deployment.check_health()
    assert leaving.count == 0


async def test_an_encoder_that_always_fails_leaves(
    deployment: CodecEncoderDeployment, monkeypatch: pytest.MonkeyPatch, leaving: Leaving
) -> None:
    def fail(clips: Sequence[Clip]) -> list[EncodedReference]:
        raise RuntimeError("device lost")

    monkeypatch.setattr(deployment._encoders["base"], "encode", fail)
    with pytest.raises(InvalidRequest):
        await deployment.encode("base", b"no audio")
    deployment.check_health()
    with pytest.raises(EngineStopped):
        await deployment.encode("base", wav())
    with pytest.raises(EngineStopped):
        deployment.check_health()
    assert leaving.count == 1

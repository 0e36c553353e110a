"""The trained codec is the served codec: encodes and decodes alike; and its losses fall."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.codec.encoder import load_codec_encoder
from qwen_tts.config import codec_config
from qwen_tts.seeded import codec_json
from qwen_tts.train.clips import SAMPLES_PER_FRAME, Clip, ClipSet, ClipWriter
from qwen_tts.train.codec import (
    AutoencoderStage,
    CodecTrainee,
    EncoderStage,
    WaveformStage,
    train_autoencoder,
    train_encoder,
    train_waveform,
)
from qwen_tts.train.crops import CropReader, Crops
from qwen_tts.train.encode import encode_clips
from qwen_tts.train.training import HISTORY, REPORT, Schedule, averaged_weights
from tests.qwen_tts.tiny import CPU, TINY

RAW = codec_json(dataclasses.replace(TINY, encoder_quantizers=TINY.groups, codebook=16))
SCHEDULE = Schedule(steps=12, peak=1e-3, warmup=2, log_every=3, check_every=6, save_every=6)
AUTOENCODER = AutoencoderStage(Crops(2, 6), SCHEDULE, free_steps=4)
ENCODER = EncoderStage(Crops(2, 6), SCHEDULE)
WAVEFORM = WaveformStage(Crops(2, 6), slice_frames=3, warm_frames=1, schedule=SCHEDULE)


def tone(frames: int, hz: float) -> NDArray[np.int16]:
    time = np.arange(frames * SAMPLES_PER_FRAME) / 24000
    pcm: NDArray[np.int16] = (np.sin(2 * np.pi * hz * time) * 3000 * (1 + np.sin(6 * np.pi * time))).astype(np.int16)
    return pcm


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    directory = tmp_path_factory.mktemp("clips")
    writer = ClipWriter(directory)
    for number in range(56):
        frames = 5 + number % 7
        writer.append(Clip(f"Clip {number}.", voice="tone", frames=frames), tone(frames, 200 + 10 * number))
    writer.close()
    return ClipSet(directory)


def codec() -> CodecTrainee:
    torch.manual_seed(0)
    return CodecTrainee(codec_config(RAW))


def write(directory: Path, trained: CodecTrainee) -> None:
    directory.mkdir()
    parts = nn.ModuleDict({"encoder": trained.encoder, "decoder": trained.decoder})
    save_file({name: t.contiguous().clone() for name, t in parts.state_dict().items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(RAW))


# torch.compile's own modules.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_the_stages_end_in_a_codec_that_the_service_can_load(clips: ClipSet, tmp_path: Path) -> None:
    trained = codec()
    train_autoencoder(trained, clips, tmp_path / "autoencoder", AUTOENCODER)
    trained.eval()
    encode_clips(clips.directory, lambda samples: trained.codes(samples[None])[0], workers=2)
    encoded = ClipSet(clips.directory)
    codes = torch.from_numpy(encoded.codes(3))[None]
    samples = torch.from_numpy(clips.samples(3))[None]
    with torch.inference_mode():
        semantic, acoustic = trained.mel_encoder(samples)
        _, embedded = trained.embedded(trained.semantic(semantic)[0], trained.acoustic(acoustic)[0])
        assert torch.allclose(embedded, trained.decoder.quantizer(codes), atol=2e-2), "learned codebooks, in 16 bits"

    train_encoder(trained, clips, tmp_path / "encoder", ENCODER)
    saved = averaged_weights(tmp_path / "encoder")
    assert all(torch.equal(saved[name], tensor) for name, tensor in trained.state_dict().items())
    train_waveform(trained, encoded, tmp_path / "waveform", WAVEFORM)
    trained.eval()
    write(tmp_path / "finished", trained)
    assert trained.codes(samples).tolist() == codes.tolist(), "the later stages leave the codes alone"
    decoder = load_codec_decoder(tmp_path / "finished", CPU, torch.float32)
    assert decoder(codes, Carry()).shape == (1, encoded.clips[3].frames * 1920)
    encoder, config = load_codec_encoder(tmp_path / "finished", CPU)
    (served,) = encoder.encode([samples[0]], config.decoder_config.num_quantizers)
    with torch.inference_mode():
        semantic, acoustic = trained.latents(samples)
        found = torch.cat((trained.semantic.codes(semantic), trained.acoustic.codes(acoustic)), dim=2)
    assert served.tolist() == found[0].tolist(), "training encodes as the service does"
    for stage, loss in (("autoencoder", "mel"), ("encoder", "semantic"), ("waveform", "mel")):
        rows = [json.loads(line) for line in (tmp_path / stage / HISTORY).read_text().splitlines()]
        assert [row["step"] for row in rows] == [3, 6, 9, 12]
        assert rows[-1][loss] < rows[0][loss]
        assert f"held_out/{loss}" in rows[1]
        assert (tmp_path / stage / REPORT).read_bytes().startswith(b"\x89PNG")


def test_a_resumed_run_ends_where_an_unbroken_one_does(clips: ClipSet, tmp_path: Path) -> None:
    whole, broken = codec(), codec()
    train_autoencoder(whole, clips, tmp_path / "whole", AUTOENCODER)

    class Interrupted(Exception):
        pass

    losses = broken.autoencoder_losses

    def failing(samples: torch.Tensor, *, quantise: bool) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 9:
            raise Interrupted
        return losses(samples, quantise=quantise)

    calls: list[int] = []
    broken.autoencoder_losses = failing  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        train_autoencoder(broken, clips, tmp_path / "broken", AUTOENCODER)
    resumed = codec()
    with torch.no_grad():
        resumed.mel_head.weight.zero_()
    train_autoencoder(resumed, clips, tmp_path / "broken", AUTOENCODER)
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name], atol=1e-5), name


def test_processes_share_the_crops_of_one(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, crops = CropReader(clips), Crops(4, 6)
    whole, places = reader.draw(crops, 3, seed=1)
    shares = []
    for number in range(2):
        monkeypatch.setattr("qwen_tts.train.crops.share", lambda number=number: (number, 2))
        shares.append(reader.draw(crops, 3, seed=1))
    assert [places[0::2], places[1::2]] == [share[1] for share in shares]
    assert all(torch.equal(whole[number::2], share[0]) for number, share in enumerate(shares))
    monkeypatch.setattr("qwen_tts.train.crops.share", lambda: (0, 3))
    with pytest.raises(AssertionError, match="cannot be shared evenly by 3"):
        reader.draw(crops, 3, seed=1)


def test_an_interrupted_append_leaves_whole_clips(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path)
    writer.append(Clip("One.", voice="a", frames=2), tone(2, 200))
    writer.close()
    with (tmp_path / "audio.i16").open("ab") as audio:
        audio.write(b"half a clip")
    writer = ClipWriter(tmp_path)
    assert writer.count == 1
    writer.append(Clip("Two.", voice="b", frames=3), tone(3, 400))
    writer.close()
    clips = ClipSet(tmp_path)
    assert [clip.text for clip in clips.clips] == ["One.", "Two."]
    assert np.abs(clips.samples(1) - tone(3, 400) / 32768).max() < 1e-6
    assert np.abs(clips.samples(1, 1, 1) - tone(3, 400)[1920:3840] / 32768).max() < 1e-6


def test_training_in_16_bits_hears_what_the_service_hears() -> None:
    """Some CPUs' bfloat16 convolutions are wrong for some shapes, and a codec can be trained around that unnoticed."""
    widths = dataclasses.replace(TINY, encoder_quantizers=TINY.groups, encoder_filters=16)
    trained = CodecTrainee(codec_config(codec_json(widths))).eval()
    samples = torch.from_numpy(tone(6, 200).astype(np.float32) / 32768)[None]
    with torch.inference_mode():
        exact = trained.latents(samples)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = trained.latents(samples)
    for one, other in zip(exact, coarse, strict=True):
        assert (one - other).norm() < 0.1 * one.norm()

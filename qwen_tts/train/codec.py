"""Train a codec in three stages.

`autoencoder`: the quantisers and the decoder up to 50 Hz learn to carry a mel spectrogram. The waveform stack is left
out: it is most of the cost and improves the codes little. A MelEncoder takes the place of the encoder. The codes are
fixed after this stage. `encoder`: the checkpoint's encoder learns to produce these codes. `waveform`: the decoder
learns to produce samples from them. The last two stages start from the result of the first one, train separate weights
and can run side by side; their results are joined afterwards.

All stages read crops of a data set. There is no adversarial loss: intelligible speech is the aim, not high fidelity.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.codec.carry import Carry
from qwen_tts.codec.conv import SnakeBeta
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.encoder import CodecEncoder
from qwen_tts.config import CodecConfig
from qwen_tts.train.clips import SAMPLES_PER_FRAME, ClipSet
from qwen_tts.train.crops import CropReader, Crops
from qwen_tts.train.initialise import initialise_decoder, initialise_encoder
from qwen_tts.train.mel_encoder import MelEncoder
from qwen_tts.train.spectral import log_mel, spectral_losses
from qwen_tts.train.training import Figures, Losses, Schedule, Trainee, share, train
from qwen_tts.train.vector_quantizer import LearningQuantizer

_MEL_FFT, _MEL_HOP, _MEL_BANDS = 1024, 480, 80  # 50 Hz, the rate after the decoder's two upsampling stages
_COARSE_BANDS = 40
_MELS_PER_FRAME = SAMPLES_PER_FRAME // _MEL_HOP
_MEAN_LOG_MEL = -5.0
_KMEANS_CROPS = 128
_AUTOENCODER_WEIGHTS = {"mel": 1.0, "latent": 0.3, "semantic": 0.2, "commitment": 0.25}
_ENCODER_WEIGHTS = {"semantic": 1.0, "acoustic": 1.0}
_WAVEFORM_WEIGHTS = {"mel": 1.0, "contrast": 0.5, "samples": 0.5}


@dataclass(frozen=True)
class AutoencoderStage:
    """The first `free_steps` run without quantisation."""

    crops: Crops
    schedule: Schedule
    free_steps: int
    seed: int = 0


@dataclass(frozen=True)
class EncoderStage:
    crops: Crops
    schedule: Schedule
    seed: int = 0


@dataclass(frozen=True)
class WaveformStage:
    """The transformer reads all frames of a crop, and `slice_frames` of them become samples. The loss skips the first
    `warm_frames` of these, because their convolutions see no past."""

    crops: Crops
    slice_frames: int
    warm_frames: int
    schedule: Schedule
    seed: int = 0


class CodecTrainee(nn.Module):
    """Encoder, decoder, learning quantisers, and parts for training only: the mel encoder, and heads that predict mels
    from the decoder's latents."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        decoder = config.decoder_config
        size, width = decoder.codebook_size, decoder.codebook_dim // 2
        self.encoder = CodecEncoder(config.encoder_config)
        self.mel_encoder = MelEncoder(width)
        self.decoder = CodecDecoder(decoder)
        self.semantic = LearningQuantizer(1, size, width)
        self.acoustic = LearningQuantizer(decoder.num_quantizers - 1, size, width)
        self.mel_head = nn.Linear(decoder.latent_dim, _MEL_BANDS)
        self.latent_head = nn.Linear(decoder.codebook_dim, _MELS_PER_FRAME * _MEL_BANDS)
        self.semantic_head = nn.Linear(decoder.codebook_dim, _MELS_PER_FRAME * _COARSE_BANDS)
        for head in (self.mel_head, self.latent_head, self.semantic_head):
            nn.init.constant_(head.bias, _MEAN_LOG_MEL)
        initialise_encoder(self.encoder)
        initialise_decoder(self.decoder)

    def latents(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Run the checkpoint's encoder: samples [B, S], S whole frames -> the input of the semantic and of the acoustic
        codebooks, [B, d, F] each."""
        encoder = self.encoder
        features = samples[:, None]
        for layer in encoder.encoder.layers:
            if _miscomputed_in_bfloat16(layer):
                with torch.autocast("cpu", enabled=False):
                    features = layer(features.float())
            else:
                features = layer(features)
        features = features.transpose(1, 2)
        rows = encoder.encoder_transformer(features, use_cache=False).last_hidden_state
        frames = encoder.downsample(rows.transpose(1, 2))
        branches = (
            encoder.quantizer.semantic_residual_vector_quantizer,
            encoder.quantizer.acoustic_residual_vector_quantizer,
        )
        semantic, acoustic = (narrowing(frames) for branch in branches if (narrowing := branch.input_proj) is not None)
        return semantic, acoustic

    def embedded(self, semantic: Tensor, acoustic: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised vectors [B, d, F] -> the semantic part and the sum of both, [B, codebook_dim, F] each."""
        quantizer = self.decoder.quantizer
        first = quantizer.rvq_first.output_proj(semantic)
        return first, first + quantizer.rvq_rest.output_proj(acoustic)

    def autoencoder_losses(self, samples: Tensor, *, quantise: bool) -> dict[str, Tensor]:
        """samples [B, S] -> `mel` (from the decoder), `latent`, `semantic` (from the codes alone), `commitment`."""
        semantic, acoustic = self.mel_encoder(samples)
        commitment = torch.zeros(())
        if quantise:
            semantic, semantic_commitment = self.semantic(semantic)
            acoustic, acoustic_commitment = self.acoustic(acoustic)
            commitment = semantic_commitment + acoustic_commitment
        with torch.autocast("cpu", torch.bfloat16):
            first, both = self.embedded(semantic, acoustic)
            carry = Carry()
            mel = self.mel_head(self.decoder.upsampled(self.decoder.contextual(both, carry), carry).transpose(1, 2))
            latent, coarse = self.latent_head(both.transpose(1, 2)), self.semantic_head(first.transpose(1, 2))
        fine = _mel_target(samples, _MEL_BANDS)
        return {
            "mel": (mel.float() - fine).abs().mean(),
            "latent": (latent.float().view(fine.shape) - fine).abs().mean(),
            "semantic": (coarse.float().view(*fine.shape[:2], -1) - _mel_target(samples, _COARSE_BANDS)).abs().mean(),
            "commitment": commitment,
        }

    def encoder_losses(self, samples: Tensor) -> dict[str, Tensor]:
        """samples [B, S] -> `semantic` and `acoustic`, the squared distance between the encoder's and the mel encoder's
        latents relative to their variance; and the share of equal codes."""
        with torch.no_grad():
            wanted = self.mel_encoder(samples)
        with torch.autocast("cpu", torch.bfloat16):
            found = tuple(latents.float() for latents in self.latents(samples))
        semantic, acoustic = (
            F.mse_loss(one, other) / other.var(dim=(0, 2)).mean() for one, other in zip(found, wanted, strict=True)
        )
        same = (self._coded(*found) == self._coded(*wanted)).float().mean(dim=(0, 1))
        return {
            "semantic": semantic,
            "acoustic": acoustic,
            "group_0_accuracy": same[0],
            "group_1_accuracy": same[1],
            "accuracy": same.mean(),
        }

    @torch.no_grad()
    def codes(self, samples: Tensor) -> Tensor:
        """Run the mel encoder: samples [B, S] -> codes [B, F, G]."""
        return self._coded(*self.mel_encoder(samples))

    def _coded(self, semantic: Tensor, acoustic: Tensor) -> Tensor:
        return torch.cat((self.semantic.codes(semantic), self.acoustic.codes(acoustic)), dim=2)

    def waveform_losses(self, codes: Tensor, wanted: Tensor, stage: WaveformStage, starts: Tensor) -> dict[str, Tensor]:
        """codes [B, F, G] and their samples [B, F * 1920]; starts [B] is the first frame of each row's slice.

        Returns `mel`, `contrast` (see spectral.py) and `samples`, the L1 distance between waveforms.
        """
        decoder, carry = self.decoder, Carry()
        width, warm = stage.slice_frames, stage.warm_frames
        latents = decoder.upsampled(decoder.contextual(decoder.quantizer(codes), carry), carry)
        rate = latents.shape[2] // codes.shape[1]
        pieces = [row[:, start * rate : (start + width) * rate] for row, start in zip(latents, starts, strict=True)]
        made = decoder.waveform(torch.stack(pieces), Carry())
        size = SAMPLES_PER_FRAME
        true = torch.stack([row[s * size : (s + width) * size] for row, s in zip(wanted, starts, strict=True)])
        heard = torch.ones_like(true)
        heard[:, : warm * size] = (starts == 0).float()[:, None]
        made, true = made * heard, true * heard
        return {**spectral_losses(made, true), "samples": (made - true).abs().mean()}

    @torch.no_grad()
    def initialise_codebooks(self, samples: Tensor) -> None:
        """Initialise the codebooks by k-means over the latents of samples [B, S]."""
        semantic, acoustic = self.mel_encoder(samples)
        self.semantic.initialise(semantic.transpose(1, 2).flatten(0, 1))
        self.acoustic.initialise(acoustic.transpose(1, 2).flatten(0, 1))

    @torch.no_grad()
    def codebooks_to_checkpoint(self) -> None:
        """Copy the learning codebooks to their two places in the checkpoint: for encoding and for decoding."""
        stored = self.state_dict()  # shares memory with the modules
        for learning, encoding, decoding in (
            (self.semantic, "encoder.quantizer.semantic_residual_vector_quantizer", "decoder.quantizer.rvq_first"),
            (self.acoustic, "encoder.quantizer.acoustic_residual_vector_quantizer", "decoder.quantizer.rvq_rest"),
        ):
            for index, book in enumerate(learning.books):
                entries = book.entries().half().float()  # rounded as in a 16-bit file, so encoding and decoding agree
                to_encode, to_decode = f"{encoding}.layers.{index}.codebook", f"{decoding}.vq.layers.{index}._codebook"
                stored[f"{to_encode}.embed_sum"].copy_(entries)
                stored[f"{to_decode}.embedding_sum"].copy_(entries)
                for name in (f"{to_encode}.cluster_usage", f"{to_encode}.initialized", f"{to_decode}.cluster_usage"):
                    stored[name].fill_(1.0)
            # The encoder's class has an output projection that nothing uses.
            stored[f"{encoding}.output_proj.weight"].zero_()


def train_autoencoder(codec: CodecTrainee, clips: ClipSet, directory: Path, stage: AutoencoderStage) -> None:
    """Run the first stage, or the rest of it. The codec ends with averaged weights and finished codebooks."""
    _train_only(codec, codec.mel_encoder, codec.decoder, codec.mel_head, codec.latent_head, codec.semantic_head)
    codec.decoder.decoder.requires_grad_(False)  # the waveform stack
    reader, trainee = CropReader(clips), Trainee(codec, stage.schedule)
    trainee.resume(directory)
    codec.train()

    def losses(step: int) -> Losses:
        if step == stage.free_steps:
            samples, _ = reader.draw(Crops(_KMEANS_CROPS, stage.crops.frames), step, seed=stage.seed + 1)
            codec.initialise_codebooks(samples)
        samples, _ = reader.draw(stage.crops, step, seed=stage.seed)
        return codec.autoencoder_losses(samples, quantise=step >= stage.free_steps)

    def check() -> Figures:
        coded = trainee.step > stage.free_steps
        found = codec.autoencoder_losses(reader.held_out(stage.crops.frames), quantise=coded)
        return {name: float(value) for name, value in found.items()}

    train(trainee, directory, losses, _AUTOENCODER_WEIGHTS, check, "codec: autoencoder")
    codec.load_state_dict(trainee.averaged_state())
    codec.codebooks_to_checkpoint()


def train_encoder(codec: CodecTrainee, clips: ClipSet, directory: Path, stage: EncoderStage) -> None:
    """Run the second stage, or the rest of it. The encoder ends with averaged weights."""
    _train_only(codec, codec.encoder)
    reader, trainee = CropReader(clips), Trainee(codec, stage.schedule)
    trainee.resume(directory)
    codec.train()

    def losses(step: int) -> Losses:
        return codec.encoder_losses(reader.draw(stage.crops, step, seed=stage.seed)[0])

    def check() -> Figures:
        found = codec.encoder_losses(reader.held_out(stage.crops.frames))
        return {name: float(value) for name, value in found.items()}

    train(trainee, directory, losses, _ENCODER_WEIGHTS, check, "codec: encoder")
    codec.load_state_dict(trainee.averaged_state())


def train_waveform(codec: CodecTrainee, clips: ClipSet, directory: Path, stage: WaveformStage) -> None:
    """Run the third stage, or the rest of it. The decoder ends with averaged weights."""
    _train_only(codec, codec.decoder)
    codec.decoder.quantizer.requires_grad_(False)
    for module in codec.decoder.modules():
        if isinstance(module, SnakeBeta):
            module.compile(dynamic=True)  # fused into one kernel: their sines took half of a step's time
    reader, trainee = CropReader(clips), Trainee(codec, stage.schedule)
    trainee.resume(directory)
    codec.train()
    frames = stage.crops.frames
    held_out = [(index, 0) for index in range(reader.training, len(clips))]

    def losses(step: int) -> Losses:
        samples, places = reader.draw(stage.crops, step, seed=stage.seed, gain_db=(0.0, 0.0))
        number_here, processes = share()
        rng = np.random.default_rng([stage.seed, step, 1])
        starts = rng.integers(frames - stage.slice_frames, size=stage.crops.clips)[number_here::processes]
        return codec.waveform_losses(reader.codes(places, frames), samples, stage, torch.from_numpy(starts))

    def check() -> Figures:
        starts = torch.zeros(len(held_out), dtype=torch.int64)
        found = codec.waveform_losses(reader.codes(held_out, frames), reader.held_out(frames), stage, starts)
        return {name: float(value) for name, value in found.items()}

    train(trainee, directory, losses, _WAVEFORM_WEIGHTS, check, "codec: waveform")
    codec.load_state_dict(trainee.averaged_state())


def _train_only(codec: CodecTrainee, *parts: nn.Module) -> None:
    """Enable gradients for `parts` only. Codebooks are running sums and learn without gradients."""
    codec.requires_grad_(False)
    for part in parts:
        for name, parameter in part.named_parameters():
            parameter.requires_grad_("codebook" not in name)


def _miscomputed_in_bfloat16(layer: nn.Module) -> bool:
    """Whether oneDNN's bfloat16 AMX kernel gives wrong results: strided, with channels that are no multiple of 32
    (https://github.com/pytorch/pytorch/issues/169688; seen with torch 2.13.0)."""
    convolution = getattr(layer, "conv", None)
    return isinstance(convolution, nn.Conv1d) and convolution.stride[0] > 1 and convolution.in_channels % 32 != 0


def _mel_target(samples: Tensor, bands: int) -> Tensor:
    """[B, S] -> log mels [B, S / 480, bands]."""
    return log_mel(samples, _MEL_FFT, _MEL_HOP, bands)[:, :, :-1].transpose(1, 2)

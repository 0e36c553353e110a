"""The codec encoder: the encoder half of transformers' Mimi (arXiv:2410.00037), with the checkpoint's names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import MimiConfig, MimiModel

from qwen_tts.checkpoint import WEIGHTS_FILE, load_weights
from qwen_tts.config import CodecConfig, read_codec_config

# The config says sliding_window 250, but in the reference's transformers (4.57.3; sdpa, eager) every position sees the
# whole clip before it. Newer transformers apply the window and would encode audio after ten seconds differently.
_WHOLE_CLIP = 2**30


class CodecEncoder(nn.Module):
    """`encoder.*` of the codec: convolutions, a transformer, downsampling by two, a residual quantiser."""

    def __init__(self, config: Mapping[str, object]) -> None:
        super().__init__()
        mimi = MimiModel(MimiConfig.from_dict({**config, "sliding_window": _WHOLE_CLIP}))
        assert mimi.encoder is not None
        self.encoder = mimi.encoder.encoder_seanet
        self.encoder_transformer = mimi.encoder.encoder_transformer
        self.downsample = mimi.encoder.downsample
        self.quantizer = mimi.quantizer

    @torch.inference_mode()
    def encode(self, clips: Sequence[Tensor], groups: int) -> list[Tensor]:
        """Clips, samples [S] each at 24 kHz -> their codes [ceil(S / 1920), groups] int64, as if encoded one by one.

        Mimi pads a clip's end inside every convolution, so a padded batch of clips of different lengths would change
        their last frames. The convolutions therefore run clip by clip, which is also faster on a CPU (the activations
        stay in the cache). The transformer and the quantiser run for all clips together: the transformer is causal, so
        padding behind a shorter clip changes nothing, and the quantiser treats every frame separately.
        """
        features = [self.encoder(clip[None, None])[0].T for clip in clips]  # [T, D] each, 25 Hz
        rows = self.encoder_transformer(pad_sequence(features, batch_first=True), use_cache=False).last_hidden_state
        latents = [
            self.downsample(row[None, : len(feature)].transpose(1, 2))[0]  # [D, F]
            for row, feature in zip(rows, features, strict=True)
        ]
        codes = self.quantizer.encode(torch.cat(latents, dim=1)[None], groups)[:, 0].T  # [sum of F, groups]
        return list(torch.split(codes, [latent.shape[1] for latent in latents]))


def load_codec_encoder(directory: Path, device: torch.device) -> tuple[CodecEncoder, CodecConfig]:
    """Load the encoder of a codec directory (`speech_tokenizer/` of a checkpoint) in float32, and the codec's config.

    Raises CheckpointError.
    """
    config = read_codec_config(directory)
    # Not on the meta device: Mimi computes constants that no checkpoint stores from its kernel sizes.
    encoder = CodecEncoder(config.encoder_config)
    load_weights(
        encoder,
        directory / WEIGHTS_FILE,
        device=device,
        dtype=torch.float32,
        prefix="encoder.",
        ignore=("decoder.",),
    )
    return encoder.to(device), config

"""The codec decoder: 12.5 Hz codes -> 24 kHz samples, causally, at a constant cost per frame.

Any split of a stream into pieces gives the samples of the whole. (The reference decodes blocks of 300 frames with 25
frames of left context. Its samples are equal up to frame 300 and have seams after it.)
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from qwen_tts.checkpoint import WEIGHTS_FILE, load_weights
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.conv import CausalConv, CausalTransposedConv, ConvNeXt, SnakeBeta, UpsampleBlock
from qwen_tts.codec.quantizer import SplitQuantizer
from qwen_tts.codec.transformer import DecoderTransformer
from qwen_tts.config import CodecDecoderConfig, read_codec_config

# The most frames that the convolutions after the transformer look back: 3 + 1.5 in the two upsampling stages
# (kernel 7 at 25 and 50 Hz), 1.5 in the first convolution, and 0.28 + 2.44 + 0.49 + 0.12 + 0.04 in the four blocks
# (at 400, 2000, 8000 and 24000 Hz; three units of kernel 7, dilations 1, 3, 9).
_CONVOLUTION_FRAMES = 12
# The activations of 16 frames are small enough for malloc to reuse memory (glibc: 32 MB per block). With 64 frames the
# time per frame doubles.
_FRAMES_AT_ONCE = 16
# The transformer's time grows faster than the number of frames that it reads at once.
_PRIMED_AT_ONCE = 64


class CodecDecoder(nn.Module):
    """`decoder.*` of the codec."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.config = config
        latent, width = config.latent_dim, config.decoder_dim
        self.quantizer = SplitQuantizer(config)
        self.pre_conv = CausalConv(config.codebook_dim, latent, 3)
        self.pre_transformer = DecoderTransformer(config)
        self.upsample = nn.ModuleList(
            nn.ModuleList([CausalTransposedConv(latent, latent, ratio, ratio), ConvNeXt(latent)])
            for ratio in config.upsampling_ratios
        )
        blocks = [UpsampleBlock(width >> index, rate) for index, rate in enumerate(config.upsample_rates)]
        last = width >> len(config.upsample_rates)
        self.decoder = nn.ModuleList([CausalConv(latent, width, 7), *blocks, SnakeBeta(last), CausalConv(last, 1, 7)])

    def forward(self, codes: Tensor, carry: Carry) -> Tensor:
        """codes [B, F, G] int64 -> samples [B, F * 1920] in [-1, 1]; `carry` holds the state of the streams."""
        return self.waveform(self.upsampled(self.contextual(self.quantizer(codes), carry), carry), carry)

    def contextual(self, embedded: Tensor, carry: Carry) -> Tensor:
        """Sums of codebook entries [B, codebook_dim, F] -> the transformer's output [B, latent_dim, F]."""
        x = self.pre_conv(embedded, carry)
        out: Tensor = self.pre_transformer(x.transpose(1, 2), carry).transpose(1, 2)
        return out

    def upsampled(self, x: Tensor, carry: Carry) -> Tensor:
        """[B, latent_dim, F] -> [B, latent_dim, F * product(upsampling_ratios)]."""
        for stage in self.upsample:
            assert isinstance(stage, nn.ModuleList)
            for layer in stage:
                x = layer(x, carry)
        return x

    def waveform(self, x: Tensor, carry: Carry) -> Tensor:
        """The output of `upsampled` -> samples [B, F * 1920] in [-1, 1]."""
        first, *blocks, snake, last = self.decoder
        x = first(x, carry)
        for block in blocks:
            x = block(x, carry)
        return torch.clamp(last(snake(x), carry), -1.0, 1.0).squeeze(1)

    def decode_long(self, codes: Tensor, carry: Carry) -> Tensor:
        """codes [F, G] int64 of one stream -> samples [F * 1920]; decoded in pieces, which bound the memory."""
        samples = [torch.zeros(0, device=codes.device)]
        for frames in torch.split(codes, _FRAMES_AT_ONCE) if len(codes) else ():
            samples.append(self(frames[None], carry)[0].float())
            carry = Carry(carry.kept)
        return torch.cat(samples)

    def prime(self, codes: Tensor, carry: Carry) -> None:
        """Bring `carry`, of new streams, into the state that forward(codes) leaves, without computing the samples.

        The convolutions are nearly all of the cost, and their state depends on the last frames only.
        """
        for _ in self.priming(codes, carry):
            pass

    def priming(self, codes: Tensor, carry: Carry) -> Iterator[None]:
        """Do the same in pieces, and yield between them. `carry` is complete at the end."""
        context = Carry()
        first, *others = torch.split(codes, _PRIMED_AT_ONCE, dim=1)
        latents = self.contextual(self.quantizer(first), context)
        for piece in others:
            yield
            context = Carry(context.kept)
            later = self.contextual(self.quantizer(piece), context)
            latents = torch.cat((latents, later), dim=2)[:, :, -_CONVOLUTION_FRAMES:]
        convolutions = Carry()
        self.waveform(self.upsampled(latents[:, :, -_CONVOLUTION_FRAMES:], convolutions), convolutions)
        carry.kept = context.kept + convolutions.kept


def load_codec_decoder(directory: Path, device: torch.device, dtype: torch.dtype) -> CodecDecoder:
    """Load the decoder of a codec directory (`speech_tokenizer/` of a checkpoint). Raises CheckpointError."""
    with torch.device("meta"):
        decoder = CodecDecoder(read_codec_config(directory).decoder_config)
    load_weights(decoder, directory / WEIGHTS_FILE, device=device, dtype=dtype, prefix="decoder.", ignore=("encoder.",))
    return decoder

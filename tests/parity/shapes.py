"""The checkpoints on which we are compared with the reference: small, and without coincidences.

Inside each network (talker with code predictor, codec decoder) no width equals another: hidden, intermediate, text
hidden, heads x head_dim, key-value heads x head_dim. Head dims, head ratios and depths differ between talker and code
predictor. So a transposed weight or a size taken from the wrong config key cannot pass unseen. Shape A has
`small_to_mtp_projection`; in shape B the talker is as wide as the code predictor and there is none, and its size name
makes the reference drop instructions. The encoders are compared on the base checkpoints.
"""

from dataclasses import dataclass
from pathlib import Path

from qwen_tts.config import ModelType
from qwen_tts.seeded import Shape, write_checkpoint

SHAPES: dict[str, Shape] = {
    "A": Shape(
        size_name="1b7",
        hidden=160, intermediate=208, layers=3, heads=6, kv_heads=2, head_dim=28, text_hidden=96, text_vocab=832,
        groups=16, codebook=256, predictor_hidden=112, predictor_intermediate=176, predictor_layers=2,
        predictor_heads=4, predictor_kv_heads=2, predictor_head_dim=20, speaker_channels=40, codec_latent=72,
        codec_vq=48, codec_width=80, codec_hidden=56, codec_intermediate=104, codec_layers=3, codec_heads=5,
        codec_head_dim=12, encoder_filters=8, encoder_hidden=64, encoder_layers=2, encoder_heads=4,
        encoder_quantizers=20,
    ),
    "B": Shape(
        size_name="0b6",
        hidden=112, intermediate=240, layers=2, heads=4, kv_heads=1, head_dim=36, text_hidden=64, text_vocab=832,
        groups=8, codebook=512, predictor_hidden=112, predictor_intermediate=184, predictor_layers=3,
        predictor_heads=6, predictor_kv_heads=2, predictor_head_dim=22, speaker_channels=48, codec_latent=88,
        codec_vq=40, codec_width=64, codec_hidden=72, codec_intermediate=136, codec_layers=2, codec_heads=6,
        codec_head_dim=10, encoder_filters=6, encoder_hidden=60, encoder_layers=3, encoder_heads=3,
        encoder_quantizers=12,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ParityCheckpoint:
    """One seeded checkpoint; the goldens name it by its key in CHECKPOINTS."""

    shape: str
    model_type: ModelType
    seed: int

    def write(self, directory: Path) -> None:
        write_checkpoint(directory, SHAPES[self.shape], self.model_type, seed=self.seed)


CHECKPOINTS: dict[str, ParityCheckpoint] = {
    "A-custom_voice": ParityCheckpoint("A", "custom_voice", seed=1),
    "A-voice_design": ParityCheckpoint("A", "voice_design", seed=2),
    "B-custom_voice": ParityCheckpoint("B", "custom_voice", seed=3),
    "A-base": ParityCheckpoint("A", "base", seed=4),
    "B-base": ParityCheckpoint("B", "base", seed=5),
}

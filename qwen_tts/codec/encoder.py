"""The codec encoder: transformers' Mimi encoder half under the checkpoint's names (arXiv:2410.00037)."""

from collections.abc import Mapping

from torch import nn
from transformers import MimiConfig, MimiModel


class CodecEncoder(nn.Module):
    """`encoder.*` of the codec: convolutions, transformer, downsampling by two, residual quantiser."""

    def __init__(self, config: Mapping[str, object]) -> None:
        super().__init__()
        mimi = MimiModel(MimiConfig.from_dict(dict(config)))
        assert mimi.encoder is not None
        self.encoder = mimi.encoder.encoder_seanet
        self.encoder_transformer = mimi.encoder.encoder_transformer
        self.downsample = mimi.encoder.downsample
        self.quantizer = mimi.quantizer

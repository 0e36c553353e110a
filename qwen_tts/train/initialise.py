"""Initial weights for training.

With the released configs' initial values (layer scales of 0.01, ConvNeXt factors of 1e-6, framework defaults for
convolutions) the signal of a small codec has no variation for thousands of steps. These values keep its scale.
"""

import math

import torch
from torch import nn

from qwen_tts.codec.conv import CausalConv, ConvNeXt, ResidualUnit, SnakeBeta
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.encoder import CodecEncoder
from qwen_tts.codec.transformer import LayerScale
from qwen_tts.layers import Attention, GatedMLP, RMSNorm
from qwen_tts.models.talker import Talker

_LAYER_SCALE = 0.1
_LINEAR_GAIN = 0.8


@torch.no_grad()
def initialise_encoder(encoder: CodecEncoder) -> None:
    for name, parameter in encoder.named_parameters():
        if name.endswith("layer_scale.scale"):
            parameter.fill_(_LAYER_SCALE)
    for module in encoder.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def initialise_decoder(decoder: CodecDecoder) -> None:
    for module in decoder.modules():
        match module:
            case nn.ConvTranspose1d():
                inputs, _, kernel = module.weight.shape
                nn.init.normal_(module.weight, std=math.sqrt(module.stride[0] / (inputs * kernel)))
            case nn.Conv1d():
                nn.init.normal_(module.weight, std=1.0 / math.sqrt(math.prod(module.weight.shape[1:])))
            case nn.Linear():
                nn.init.normal_(module.weight, std=_LINEAR_GAIN / math.sqrt(module.in_features))
            case SnakeBeta():
                nn.init.zeros_(module.alpha)
                nn.init.zeros_(module.beta)
            case RMSNorm():
                nn.init.ones_(module.weight)
            case LayerScale():
                nn.init.constant_(module.scale, _LAYER_SCALE)
            case _:
                continue
        bias = getattr(module, "bias", None)
        if bias is not None:
            nn.init.zeros_(bias)
    for module in decoder.modules():
        match module:
            case ConvNeXt():
                nn.init.constant_(module.gamma, _LAYER_SCALE)
            case ResidualUnit():
                module.conv2.conv.weight.mul_(0.3)
    last = decoder.decoder[-1]
    assert isinstance(last, CausalConv)
    last.conv.weight.mul_(0.1)


@torch.no_grad()
def initialise_talker(talker: Talker) -> None:
    """Bring text and codes to the first layer at one scale; with the framework's 0.02 the text would be too weak."""
    for module in talker.modules():
        match module:
            case nn.Linear():
                nn.init.normal_(module.weight, std=0.7 / math.sqrt(module.in_features))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=0.3)
            case RMSNorm():
                nn.init.ones_(module.weight)
    for module in talker.modules():
        match module:
            case Attention():
                module.o_proj.weight.mul_(0.5)
            case GatedMLP():
                module.down_proj.weight.mul_(0.5)
    projection = talker.text_projection
    for linear in (projection.linear_fc1, projection.linear_fc2):
        nn.init.normal_(linear.weight, std=1.2 / math.sqrt(linear.in_features))
    nn.init.normal_(talker.model.text_embedding.weight)
    for head in (talker.codec_head, *talker.code_predictor.lm_head):
        nn.init.normal_(head.weight, std=0.02)

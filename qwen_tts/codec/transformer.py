"""The decoder's causal transformer with a sliding window. It carries the keys and values inside the window."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.codec.carry import Carry
from qwen_tts.config import CodecDecoderConfig
from qwen_tts.layers import GatedMLP, RMSNorm, rope_table, rotate


class LayerScale(nn.Module):
    """A learned factor per channel (arXiv:2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class WindowedAttention(nn.Module):
    """Attention over the current frame and the window - 1 frames before it, whose keys and values it carries."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.reach = config.sliding_window - 1
        width, kv_width = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, carry: Carry) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_dim)
        q = rotate(self.q_proj(x).view(heads), rope)
        k = rotate(self.k_proj(x).view(heads), rope)
        v = self.v_proj(x).view(heads)
        new = torch.stack((k, v), dim=1)  # [B, 2, F, K, d]
        old = carry.take((*new.shape[:2], self.reach, *new.shape[3:]), dtype=x.dtype, device=x.device)
        kv = torch.cat((old, new), dim=2)
        carry.keep(kv[:, :, -self.reach :])
        keys, values = kv.transpose(2, 3).unbind(1)
        out = F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=True)
        projected: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return projected


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP, with a LayerScale on each branch."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.self_attn = WindowedAttention(config)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn_layer_scale = LayerScale(config.hidden_size)
        self.mlp_layer_scale = LayerScale(config.hidden_size)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, carry: Carry) -> Tensor:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), rope, mask, carry))
        out: Tensor = x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))
        return out


class DecoderTransformer(nn.Module):
    """latent -> hidden -> latent. It carries the number of frames of each stream, and the window of every layer."""

    def __init__(self, config: CodecDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        """x [B, F, latent] -> [B, F, latent]."""
        rows, frames = x.shape[:2]
        seen = carry.take((rows,), dtype=torch.int64, device=x.device)
        carry.keep(seen + frames)
        positions = seen[:, None] + torch.arange(frames, device=x.device)  # [B, F]
        x = self.input_proj(x)
        rope = rope_table(positions, self.config.head_dim, self.config.rope_theta, x.dtype)
        mask = self._mask(positions)
        for layer in self.layers:
            x = layer(x, rope, mask, carry)
        out: Tensor = self.output_proj(self.norm(x))
        return out

    def _mask(self, positions: Tensor) -> Tensor:
        """Return which carried and new frames each new frame sees: [B, 1, F, window - 1 + F], True = visible."""
        window = self.config.sliding_window
        first, frames = positions[:, :1], positions.shape[1]
        keys = first - (window - 1) + torch.arange(window - 1 + frames, device=positions.device)  # [B, L]
        distance = positions[:, :, None] - keys[:, None, :]  # [B, F, L]
        visible = (distance >= 0) & (distance < window) & (keys[:, None, :] >= 0)
        return visible[:, None]

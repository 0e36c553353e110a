"""The transformer block that the talker and the code predictor share.

Letters: B rows, T positions of this pass, L positions of the cache, H heads, K key-value heads, D width, d head width.
"""

import importlib.util
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.config import TransformerConfig
from qwen_tts.errors import UnsupportedError

# Merges linear layers that read the same input into one, whose output is their outputs side by side.
Pack = Callable[[Sequence[nn.Module]], nn.Module]

# attend(q [B, T, H, d], kv [2, B, L, K, d], positions [B, T], mask [B, 1, T, L] or None) -> [B, T, H, d].
# The keys and values of this pass are already in kv. No mask: row t sees the cache up to position t (T == L),
# or all of it (T == 1).
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def write_cache(kv: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
    """Write keys and values [B, T, K, d] into kv [2, B, L, K, d] at positions [B, T]."""
    rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
    kv[0, rows, positions] = keys
    kv[1, rows, positions] = values


def sdpa(q: Tensor, kv: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
    assert mask is not None or q.shape[1] in (1, kv.shape[2]), (q.shape, kv.shape)
    keys, values = kv.transpose(2, 3)  # [B, K, L, d] each
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        keys,
        values,
        attn_mask=mask,
        is_causal=mask is None and q.shape[1] > 1,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


def flash_attention(q: Tensor, kv: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with flash-attn's cache kernel. It bounds every row by its own length, so it needs no mask."""
    from flash_attn import flash_attn_with_kvcache

    out: Tensor = flash_attn_with_kvcache(q, kv[0], kv[1], cache_seqlens=(positions[:, -1] + 1).int(), causal=True)
    return out


def select_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attend:
    """Return the attention function called `name`. Raises UnsupportedError where it cannot run."""
    match name:
        case "sdpa":
            return sdpa
        case "flash_attention_2":
            if device.type != "cuda":
                raise UnsupportedError(f"attn_implementation 'flash_attention_2' needs a CUDA device, not {device}")
            if dtype not in (torch.bfloat16, torch.float16):
                raise UnsupportedError(
                    f"attn_implementation 'flash_attention_2' needs bfloat16 or float16, not {dtype}"
                )
            if importlib.util.find_spec("flash_attn") is None:
                raise UnsupportedError("attn_implementation 'flash_attention_2' needs the package flash-attn")
            return flash_attention
        case _:
            raise UnsupportedError(f"attn_implementation {name!r} is unknown; choose 'sdpa' or 'flash_attention_2'")


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv:1910.07467), computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def rope_table(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cos and sin [B, T, 1, d] of positions [B, T] for rotary embedding (arXiv:2104.09864, rotate-half)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[..., None, None].float() * (1.0 / theta**exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Apply a rope_table to x [B, T, H, d]."""
    cos, sin = rope
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class GatedMLP(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

        self.gate_up_proj: nn.Module | None = None  # both in one, after pack()

    def pack(self, pack: Pack) -> None:
        self.gate_up_proj = pack([self.gate_proj, self.up_proj])
        self.down_proj = pack([self.down_proj])  # type: ignore[assignment]  # called alike
        del self.gate_proj, self.up_proj

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_up_proj is None:
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class Attention(nn.Module):
    """Grouped-query attention with a norm on every query and key head. It writes its keys and values into the cache."""

    def __init__(self, config: TransformerConfig, attend: Attend) -> None:
        super().__init__()
        heads, kv_heads, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.head_dim = d
        self.attend = attend
        self.write_cache = write_cache
        self.q_proj = nn.Linear(config.hidden_size, heads * d, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_heads * d, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_heads * d, bias=False)
        self.o_proj = nn.Linear(heads * d, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(d, config.rms_norm_eps)
        self.k_norm = RMSNorm(d, config.rms_norm_eps)
        self.qkv_proj: nn.Module | None = None  # the three in one, after pack()
        self.widths = (heads * d, kv_heads * d, kv_heads * d)

    def pack(self, pack: Pack) -> None:
        self.qkv_proj = pack([self.q_proj, self.k_proj, self.v_proj])
        self.o_proj = pack([self.o_proj])  # type: ignore[assignment]  # called alike
        del self.q_proj, self.k_proj, self.v_proj

    def forward(
        self, x: Tensor, positions: Tensor, rope: tuple[Tensor, Tensor], kv: Tensor, mask: Tensor | None
    ) -> Tensor:
        heads = (*x.shape[:2], -1, self.head_dim)
        if self.qkv_proj is None:
            projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        else:
            projected = self.qkv_proj(x).split(self.widths, dim=-1)
        q, k, v = (rows.view(heads) for rows in projected)
        q = rotate(self.q_norm(q), rope)
        self.write_cache(kv, positions, rotate(self.k_norm(k), rope), v)
        out: Tensor = self.o_proj(self.attend(q, kv, positions, mask).flatten(2))
        return out


class Block(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: TransformerConfig, attend: Attend) -> None:
        super().__init__()
        self.self_attn = Attention(config, attend)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: Tensor, positions: Tensor, rope: tuple[Tensor, Tensor], kv: Tensor, mask: Tensor | None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), positions, rope, kv, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


# read(x, positions, kv, mask) -> hidden [B, T, D], as Transformer.forward.
Read = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Transformer(nn.Module):
    """A stack of blocks over a KV cache, with the final norm. Subclasses add their embedding tables."""

    def __init__(self, config: TransformerConfig, attend: Attend) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Block(config, attend) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, kv: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, T, D], positions [B, T] int64, kv [layers, 2, B, L, K, d] (written in place) -> hidden [B, T, D]."""
        rope = rope_table(positions, self.config.head_dim, self.config.rope_theta, x.dtype)
        for layer, layer_kv in zip(self.layers, kv, strict=True):
            x = layer(x, positions, rope, layer_kv, mask)
        out: Tensor = self.norm(x)
        return out

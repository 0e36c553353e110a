"""The transformer block against formulas written out in float64, and its two attention paths against each other."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qwen_tts.config import TransformerConfig
from qwen_tts.errors import UnsupportedError
from qwen_tts.layers import (
    Attend,
    GatedMLP,
    RMSNorm,
    Transformer,
    flash_attention,
    rope_table,
    rotate,
    sdpa,
    select_attention,
)
from tests.qwen_tts.flash_double import flash_attn_module
from tests.qwen_tts.tiny import CPU, codes, custom, drain, tiny_engine

ROWS, LENGTH, HEADS, KV_HEADS, WIDTH = 3, 11, 6, 2, 8
CONFIG = TransformerConfig(
    hidden_size=20,
    intermediate_size=28,
    num_hidden_layers=3,
    num_attention_heads=HEADS,
    num_key_value_heads=KV_HEADS,
    head_dim=WIDTH,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
)
CUDA = torch.device("cuda")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def naive_attention(q: Tensor, kv: Tensor, visible: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) v in float64; visible [B, T, L]. Query head h reads key head h // (H / K)."""
    keys, values = kv.double().repeat_interleave(q.shape[2] // kv.shape[3], dim=3)
    scores = torch.einsum("bthd,blhd->bhtl", q.double(), keys) / math.sqrt(q.shape[3])
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(dim=-1)
    return torch.einsum("bhtl,blhd->bthd", weights, values)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), atol=1e-5, rtol=1e-5)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Attend:
    monkeypatch.setitem(sys.modules, "flash_attn", flash_attn_module())
    return flash_attention


def test_sdpa_without_mask_is_causal() -> None:
    q, kv = random(ROWS, LENGTH, HEADS, WIDTH), random(2, ROWS, LENGTH, KV_HEADS, WIDTH, seed=1)
    positions = torch.arange(LENGTH).expand(ROWS, -1)
    visible = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().expand(ROWS, -1, -1)
    assert_near(sdpa(q, kv, positions, None), naive_attention(q, kv, visible))


def test_sdpa_of_one_query_without_mask_sees_everything() -> None:
    q, kv = random(ROWS, 1, HEADS, WIDTH), random(2, ROWS, LENGTH, KV_HEADS, WIDTH, seed=1)
    positions = torch.full((ROWS, 1), LENGTH - 1)
    visible = torch.ones(ROWS, 1, LENGTH, dtype=torch.bool)
    assert_near(sdpa(q, kv, positions, None), naive_attention(q, kv, visible))


def test_sdpa_with_mask() -> None:
    q, kv = random(ROWS, LENGTH, HEADS, WIDTH), random(2, ROWS, LENGTH, KV_HEADS, WIDTH, seed=1)
    visible = random(ROWS, LENGTH, LENGTH, seed=2) > 0
    visible[..., 0] = True  # a row that sees nothing has no softmax
    actual = sdpa(q, kv, torch.zeros(ROWS, LENGTH), visible[:, None])
    assert_near(actual, naive_attention(q, kv, visible))


def test_flash_reads_a_prompt_as_sdpa_does(flash: Attend) -> None:
    q, kv = random(ROWS, LENGTH, HEADS, WIDTH), random(2, ROWS, LENGTH, KV_HEADS, WIDTH, seed=1)
    positions = torch.arange(LENGTH).expand(ROWS, -1)
    assert_near(flash(q, kv, positions, None), sdpa(q, kv, positions, None))


def test_flash_bounds_every_row_by_its_position(flash: Attend) -> None:
    """One decode step of rows of different lengths; what lies behind a row's end is garbage."""
    q, kv = random(ROWS, 1, HEADS, WIDTH), random(2, ROWS, LENGTH, KV_HEADS, WIDTH, seed=1)
    positions = torch.tensor([[0], [4], [LENGTH - 1]])
    visible = torch.arange(LENGTH) <= positions
    for row in range(ROWS):
        kv[:, row, ~visible[row]] = 1e4
    expected = sdpa(q, kv, positions, visible[:, None, None])
    assert_near(expected, naive_attention(q, kv, visible[:, None]))
    assert_near(flash(q, kv, positions, visible[:, None, None]), expected)


def test_an_engine_on_flash_gives_the_codes_of_one_on_sdpa(custom_voice: Path, flash: Attend) -> None:
    """Two rows of different lengths, so that prefill, decode and the code predictor all take the path."""
    plain, fast = tiny_engine(custom_voice, slots=2), tiny_engine(custom_voice, slots=2, attend=flash)
    sequences = [fast.add(custom("Hi", seed=1, max_frames=4)), fast.add(custom("Hello there", seed=2, max_frames=4))]
    drain(fast)
    assert [sequence.frames for sequence in sequences] == [codes(plain, sequence.request) for sequence in sequences]


def test_select_sdpa_anywhere() -> None:
    assert select_attention("sdpa", CPU, torch.float32) is sdpa


def test_select_flash_where_it_runs(flash: Attend) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert select_attention("flash_attention_2", CUDA, dtype) is flash


@pytest.mark.parametrize(
    ("name", "device", "dtype", "says"),
    [
        ("flash_attention_2", CPU, torch.bfloat16, "needs a CUDA device, not cpu"),
        ("flash_attention_2", CUDA, torch.float32, "needs bfloat16 or float16, not torch.float32"),
        ("flash_attention_2", CUDA, torch.bfloat16, "needs the package flash-attn"),
        ("eager", CPU, torch.float32, "'eager' is unknown; choose 'sdpa' or 'flash_attention_2'"),
    ],
)
def test_select_names_what_is_missing(
    name: str, device: torch.device, dtype: torch.dtype, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # not installed, even where it is
    with pytest.raises(UnsupportedError, match=says):
        select_attention(name, device, dtype)


def test_rope_table() -> None:
    positions = torch.tensor([[0, 1, 7], [3, 100, 8191]])
    cos, sin = rope_table(positions, WIDTH, 1e6, torch.float32)
    assert cos.shape == sin.shape == (2, 3, 1, WIDTH)
    for index, position in enumerate(positions.flatten().tolist()):
        angles = [position * 1e6 ** (-2 * (i % (WIDTH // 2)) / WIDTH) for i in range(WIDTH)]
        row = index // 3, index % 3, 0
        torch.testing.assert_close(cos[row], torch.tensor(angles).cos(), atol=1e-3, rtol=0)
        torch.testing.assert_close(sin[row], torch.tensor(angles).sin(), atol=1e-3, rtol=0)


def test_rotate_turns_the_pairs_of_the_two_halves() -> None:
    x = random(1, 5, 2, WIDTH)
    positions = torch.arange(5)[None]
    turned = rotate(x, rope_table(positions, WIDTH, 100.0, torch.float32))
    half = WIDTH // 2
    for position in range(5):
        for pair in range(half):
            turn = complex(math.cos(position * 100.0 ** (-pair / half)), math.sin(position * 100.0 ** (-pair / half)))
            before = torch.complex(x[0, position, :, pair], x[0, position, :, pair + half])
            after = torch.complex(turned[0, position, :, pair], turned[0, position, :, pair + half])
            torch.testing.assert_close(after, before * turn)


def test_rms_norm() -> None:
    norm = RMSNorm(WIDTH, 1e-3)
    norm.weight.data = random(WIDTH)
    x = random(4, WIDTH, seed=1) * 0.05  # small enough for eps to matter
    expected = x.double() / (x.double().square().mean(dim=-1, keepdim=True) + 1e-3).sqrt() * norm.weight.double()
    assert_near(norm(x), expected)


def test_gated_mlp() -> None:
    mlp = GatedMLP(6, 10).double()
    x = random(4, 6).double()
    gate, up = x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T
    assert_near(mlp(x), (gate / (1 + (-gate).exp()) * up) @ mlp.down_proj.weight.T)


@torch.inference_mode()
def test_reading_piece_by_piece_is_reading_at_once() -> None:
    """Rows read one position at a time, from a cache full of garbage, give the hidden states of one causal pass."""
    model = Transformer(CONFIG, sdpa)
    for parameter in model.parameters():
        parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    x, shape = random(ROWS, LENGTH, CONFIG.hidden_size), (3, 2, ROWS, LENGTH, KV_HEADS, WIDTH)
    positions = torch.arange(LENGTH).expand(ROWS, -1)
    whole = model(x, positions, torch.zeros(shape), None)

    kv = torch.full(shape, 1e4)
    for now in range(LENGTH):
        visible = (torch.arange(LENGTH) <= now).expand(ROWS, 1, 1, -1)
        hidden = model(x[:, now : now + 1], positions[:, now : now + 1], kv, visible)
        assert_near(hidden[:, 0], whole[:, now])

"""The codec decoder: any split of a stream gives the samples of the whole, and its parts are what they say."""

from pathlib import Path
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.codec.carry import Carry
from qwen_tts.codec.conv import CausalConv, CausalTransposedConv, SnakeBeta
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.quantizer import Codebook, SplitQuantizer
from qwen_tts.codec.transformer import DecoderTransformer, WindowedAttention
from qwen_tts.config import codec_config
from qwen_tts.layers import rope_table
from qwen_tts.seeded import codec_json
from tests.qwen_tts.engine.decoding import FRAME_SAMPLES, TOLERANCE, decode, load_decoder, random_codes
from tests.qwen_tts.tiny import TINY

M = TypeVar("M", bound=nn.Module)

FRAMES = 160  # the window of 72 frames has slid for more than half of them
CONFIG = codec_config(codec_json(TINY)).decoder_config


@pytest.fixture(scope="module")
def decoder(custom_voice: Path) -> CodecDecoder:
    return load_decoder(custom_voice)


@pytest.fixture(scope="module")
def whole(decoder: CodecDecoder) -> Tensor:
    return decode(decoder, random_codes(FRAMES))


def randomised(module: M, seed: int = 0) -> M:
    """`module` with every parameter drawn anew: those made with torch.empty hold anything."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(0.0, 0.4, generator=generator)
    module.requires_grad_(False)
    return module


@pytest.mark.parametrize(
    "sizes", [[1], [2], [3], [7], [1, 2, 4, 8], [71, 1, 73, 15], [100]], ids=lambda sizes: "-".join(map(str, sizes))
)
def test_streamed_is_whole(decoder: CodecDecoder, whole: Tensor, sizes: list[int]) -> None:
    streamed = decode(decoder, random_codes(FRAMES), sizes)
    torch.testing.assert_close(streamed, whole, atol=TOLERANCE, rtol=0)


def test_length_and_range(decoder: CodecDecoder, whole: Tensor) -> None:
    assert whole.shape == (1, FRAMES * FRAME_SAMPLES)
    assert 0.01 < whole.abs().max() <= 1.0, "silence would agree with anything"
    assert decode(decoder, random_codes(1)).shape == (1, FRAME_SAMPLES)


def test_loud_output_is_clamped(custom_voice: Path) -> None:
    decoder = load_decoder(custom_voice)
    last = decoder.decoder[-1]
    assert isinstance(last, CausalConv)
    last.conv.weight.mul_(1e3)
    samples = decode(decoder, random_codes(4))
    assert (samples.min().item(), samples.max().item()) == (-1.0, 1.0)


def test_a_batch_is_its_rows(decoder: CodecDecoder) -> None:
    codes = random_codes(20, streams=3)
    rows = torch.cat([decode(decoder, row[None]) for row in codes])
    torch.testing.assert_close(decode(decoder, codes), rows, atol=TOLERANCE, rtol=0)


def test_no_sample_depends_on_a_later_frame(decoder: CodecDecoder, whole: Tensor) -> None:
    codes = random_codes(FRAMES)
    codes[:, 100] = (codes[:, 100] + 1) % TINY.codebook
    changed = decode(decoder, codes) != whole
    assert not changed[:, : 100 * FRAME_SAMPLES].any()
    assert changed[:, 100 * FRAME_SAMPLES : 101 * FRAME_SAMPLES].any()


@pytest.mark.parametrize("group", range(TINY.groups))
def test_every_code_group_is_heard(decoder: CodecDecoder, group: int) -> None:
    codes = random_codes(2)
    before = decode(decoder, codes)
    codes[:, 1, group] = (codes[:, 1, group] + 1) % TINY.codebook
    assert not torch.equal(decode(decoder, codes), before)


def test_one_attention_layer_sees_its_window_and_no_further() -> None:
    """Input 0 is the oldest that frame 71 sees; frame 72 sees inputs 1 to 72."""
    transformer = randomised(DecoderTransformer(CONFIG))
    transformer.layers = transformer.layers[:1]
    x = torch.randn((1, 80, CONFIG.latent_dim), generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, 0] += 1.0
    changed = (transformer(x, Carry()) != transformer(other, Carry())).any(dim=-1)[0]
    assert changed[: CONFIG.sliding_window].all()
    assert not changed[CONFIG.sliding_window :].any()


def test_the_first_frame_attends_to_itself_alone() -> None:
    """What a stream carries at its start is zero, and a key of zero would still take its share of the weight."""
    transformer = randomised(DecoderTransformer(CONFIG))
    attention = transformer.layers[0].self_attn
    assert isinstance(attention, WindowedAttention)
    x = torch.randn((2, 1, CONFIG.hidden_size))
    positions = torch.zeros((2, 1), dtype=torch.int64)
    rope = rope_table(positions, CONFIG.head_dim, CONFIG.rope_theta, x.dtype)
    actual = attention(x, rope, transformer._mask(positions), Carry())
    torch.testing.assert_close(actual, attention.o_proj(attention.v_proj(x)))


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (7, 9)])
def test_causal_conv_pads_on_the_left(kernel: int, dilation: int) -> None:
    conv = randomised(CausalConv(4, 6, kernel, dilation=dilation))
    x = torch.randn((2, 4, 30))
    padded = F.pad(x, ((kernel - 1) * dilation, 0))
    expected = F.conv1d(padded, conv.conv.weight, conv.conv.bias, dilation=dilation)
    torch.testing.assert_close(conv(x, Carry()), expected)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (16, 8), (6, 3), (5, 3)])
def test_transposed_conv_drops_its_tail(kernel: int, stride: int) -> None:
    conv = randomised(CausalTransposedConv(4, 6, kernel, stride))
    x = torch.randn((2, 4, 9))
    expected = conv.conv(x)[:, :, : 9 * stride]
    torch.testing.assert_close(conv(x, Carry()), expected)


def test_snake() -> None:
    snake = randomised(SnakeBeta(3))
    x = torch.randn((2, 3, 5))
    alpha, beta = snake.alpha.double().exp()[:, None], snake.beta.double().exp()[:, None]
    expected = x.double() + torch.sin(alpha * x.double()) ** 2 / (beta + 1e-9)
    torch.testing.assert_close(snake(x).double(), expected, atol=1e-6, rtol=1e-5)


def test_codebook_entry_is_the_mean_of_its_sum() -> None:
    codebook = Codebook(3, 2)
    codebook.embedding_sum.data = torch.tensor([[2.0, 4.0], [1.0, 3.0], [5e-5, 0.0]])
    codebook.cluster_usage.data = torch.tensor([2.0, 1.0, 0.0])  # the last was never used: its count is 1e-5
    entries = codebook(torch.tensor([[2, 0, 1]]))
    torch.testing.assert_close(entries, torch.tensor([[[5.0, 0.0], [1.0, 2.0], [1.0, 3.0]]]))


def test_quantizer_adds_its_semantic_and_acoustic_halves() -> None:
    quantizer = randomised(SplitQuantizer(CONFIG))
    codes = random_codes(5)
    halves = [quantizer.rvq_first, *[quantizer.rvq_rest] * (TINY.groups - 1)]
    total = torch.zeros((1, CONFIG.codebook_dim, 5))
    for group, half in enumerate(halves):
        layer = half.vq.layers[max(group - 1, 0)]
        total += half.output_proj(layer(codes[..., group]).transpose(1, 2))
    torch.testing.assert_close(quantizer(codes), total, atol=1e-4, rtol=1e-4)

"""The fast ways to decode on a CPU against the plain one."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qwen_tts.config import read_model_config
from qwen_tts.engine.cpu import check_cpu_options, prepare_for_cpu
from qwen_tts.engine.engine import Engine
from qwen_tts.errors import UnsupportedError
from qwen_tts.fused_decode import FusedDecode
from qwen_tts.layers import Block, Transformer, sdpa
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.packed_linear import Weights, packer
from qwen_tts.text import TextTokenizer
from tests.unit.tiny import CPU, NEVER, custom, set_eos_bias, speak

# torch.compile's own modules.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

CLOSE: dict[Weights, float] = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.06}  # parts of the output's norm


@pytest.fixture(autouse=True)
def _nothing_compiled_yet() -> None:
    torch._dynamo.reset()


with_vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="int8 sums are exact with VNNI only")


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("weights", CLOSE)
def test_packed_layers_multiply_as_linear_layers_do(weights: Weights) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(48, outputs) for outputs in (64, 16)]
    x = torch.randn(3, 5, 48)
    with torch.inference_mode():
        wanted = torch.cat([layer(x) for layer in layers], dim=-1)
        packed = packer(weights)(layers)
        assert packed(x).shape == (3, 5, 80)
        assert distance(packed(x), wanted) < CLOSE[weights]
        assert packed(x.bfloat16()).dtype == torch.bfloat16


@with_vnni
def test_an_int8_row_is_multiplied_as_if_alone() -> None:
    torch.manual_seed(0)
    layer = packer("int8")([nn.Linear(64, 96)])
    x = torch.randn(7, 64) * torch.logspace(-3, 3, 7)[:, None]
    with torch.inference_mode():
        assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


@pytest.fixture(scope="module")
def transformer(custom_voice: Path) -> Transformer:
    model = load_talker(custom_voice, read_model_config(custom_voice), sdpa, CPU, torch.float32).model
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.mul_(8)  # so that attention is not nearly even
    return model


@pytest.mark.parametrize("weights", CLOSE)
def test_compiled_decoding_is_the_forward_pass_of_one_row(transformer: Transformer, weights: Weights) -> None:
    config, fast = transformer.config, copy.deepcopy(transformer)
    for block in fast.layers:
        assert isinstance(block, Block)
        block.self_attn.pack(packer(weights))
        block.mlp.pack(packer(weights))
    fast.decode = FusedDecode(fast)
    generator = torch.Generator().manual_seed(0)
    for rows, length in ((3, 7), (1, 5), (5, 40), (3, 12)):
        shape = (config.num_hidden_layers, 2, 6, 64, config.num_key_value_heads, config.head_dim)
        cache = torch.randn(shape, generator=generator)
        other_cache = cache.clone()
        at = torch.randint(1, length, (rows, 1), generator=generator)
        x = torch.randn((rows, 1, config.hidden_size), generator=generator)
        visible = (torch.arange(length) <= at)[:, None, None]
        with torch.inference_mode():
            wanted = transformer(x, at, cache[:, :, :rows, :length], visible)
            found = fast(x, at, other_cache[:, :, :rows, :length], visible)
        assert distance(found, wanted) < CLOSE[weights], (rows, length)
        assert distance(other_cache, cache) < CLOSE[weights]


def fast_engine(checkpoint: Path, *, int8: bool, compiled: bool, slots: int = 4) -> Engine:
    config = read_model_config(checkpoint)
    dtype = torch.bfloat16 if int8 else torch.float32
    talker = load_talker(checkpoint, config, sdpa, CPU, dtype)
    prepare_for_cpu(talker, dtype, int8=int8, compiled=compiled)
    set_eos_bias(talker, NEVER)
    tokenizer = TextTokenizer(checkpoint, config)
    return Engine(config, tokenizer, talker, slots=slots, positions=256, max_waiting=8, max_frames=64)


def test_a_compiled_engine_says_what_the_plain_one_says(custom_voice: Path) -> None:
    requests = [custom(f"Number {seed}.", seed=seed, max_frames=6) for seed in range(3)]
    plain, compiled = (fast_engine(custom_voice, int8=False, compiled=how) for how in (False, True))
    assert [s.frames for s in speak(compiled, *requests)] == [s.frames for s in speak(plain, *requests)]


def test_two_hundred_mixed_steps_compile_nothing_new(custom_voice: Path) -> None:
    """After streams alone and several at once have been seen, lengths and numbers of rows come as they like."""
    engine = fast_engine(custom_voice, int8=True, compiled=True)
    speak(engine, custom("Alone.", max_frames=5))
    speak(engine, *(custom(f"Together {n}.", max_frames=5 + n) for n in range(3)))
    with torch._dynamo.config.patch(error_on_recompile=True):
        steps, number = 0, 0
        while steps < 200:
            if engine.running + engine.waiting < 4 and steps % 7 == number % 3:
                number += 1
                engine.add(custom(f"Text {number}. " * (1 + number % 5), seed=number, max_frames=9 + number % 23))
            engine.step()
            steps += 1
    assert number > 10


@with_vnni
def test_an_int8_request_says_the_same_in_any_company(custom_voice: Path) -> None:
    engine = fast_engine(custom_voice, int8=True, compiled=False)
    requests = [custom(f"Number {seed}.", seed=seed, max_frames=8) for seed in range(4)]
    alone = [speak(engine, request)[0].frames for request in requests]
    assert [sequence.frames for sequence in speak(engine, *requests)] == alone


def test_options_that_a_device_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"int8": True, "compiled": False}, {"int8": False, "compiled": True}):
        with pytest.raises(UnsupportedError, match="is for the CPU, not for cuda"):
            check_cpu_options(torch.device("cuda"), **options)
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: True)
    check_cpu_options(CPU, int8=True, compiled=True)
    no_compiler = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with no_compiler, pytest.raises(UnsupportedError, match="needs a C\\+\\+ compiler"):
        check_cpu_options(CPU, int8=False, compiled=True)


def test_int8_where_the_processor_would_add_up_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: False)
    with pytest.raises(UnsupportedError, match="AVX-512 VNNI"):
        check_cpu_options(CPU, int8=True, compiled=False)


def test_a_prompt_half_read_below_a_running_row_is_kept(custom_voice: Path) -> None:
    """The rows of idle slots are computed along and write somewhere."""
    engine = fast_engine(custom_voice, int8=False, compiled=False)
    short, long = custom("Short.", seed=6, max_frames=40), custom("A long text, " * 6, seed=5, max_frames=6)
    wanted = speak(engine, long)[0].frames
    leaving, staying = engine.add(short), engine.add(short)
    while not staying.frames:
        engine.step()
    engine.cancel(leaving)
    newcomer = engine.add(long)
    while not newcomer.finished:
        engine.step()
        assert newcomer.finished or newcomer.slot == 0
        assert staying.slot == 1
    assert newcomer.frames == wanted


def test_prompts_are_read_in_pieces(custom_voice: Path) -> None:
    """Other streams go on meanwhile, and the words are those of a prompt read at once."""
    config = read_model_config(custom_voice)

    def engine(prefill_rows: int) -> Engine:
        talker = load_talker(custom_voice, config, sdpa, CPU, torch.float32)
        set_eos_bias(talker, NEVER)
        tokenizer = TextTokenizer(custom_voice, config)
        return Engine(
            config, tokenizer, talker, slots=3, positions=256, max_waiting=8, max_frames=64, prefill_rows=prefill_rows
        )

    long = custom("A long text, " * 6, instructions="Speak slowly. " * 4, seed=5, max_frames=10)
    short = custom("Short.", seed=6, max_frames=30)
    wanted = [sequence.frames for sequence in speak(engine(1000), short, long)]
    small = engine(7)
    first = small.add(short)
    while not first.frames:
        small.step()
    second = small.add(long)
    before = len(first.frames)
    steps = 0
    while not second.frames:
        small.step()
        steps += 1
    assert steps == -(-len(second.layout) // 7)
    assert len(first.frames) == before + steps, "a frame each step"
    while not small.idle:
        small.step()
    assert [first.frames, second.frames] == wanted

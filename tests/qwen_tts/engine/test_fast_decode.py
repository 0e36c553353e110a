"""The fast ways to decode on a CPU against the plain one."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from qwen_tts.config import read_model_config
from qwen_tts.engine.choose_passes import can_compile, choose_passes
from qwen_tts.engine.engine import Engine
from qwen_tts.errors import UnsupportedError
from qwen_tts.layers import Transformer, sdpa
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.native.build import find_compiler
from qwen_tts.native.transformer import Native, NativeLinear, NativeTransformer
from qwen_tts.packed_linear import Weights, packer
from qwen_tts.text import TextTokenizer
from tests.qwen_tts.tiny import CPU, NEVER, custom, set_eos_bias, speak

CLOSE: dict[Weights, float] = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.06}  # parts of the output's norm


def has_native() -> bool:
    try:
        find_compiler()
    except UnsupportedError:
        return False
    return True


with_native = pytest.mark.skipif(not has_native(), reason="no C++ compiler, or no AVX-512 with VNNI and BF16")
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


@pytest.fixture(scope="module")
def native() -> Native:
    return Native(threads=2, kinds=get_args(Weights))


def cache_of(transformer: Transformer, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    config = transformer.config
    shape = (config.num_hidden_layers, 2, 18, 64, config.num_key_value_heads, config.head_dim)
    return torch.randn(shape, generator=generator).to(dtype)


@with_native
@pytest.mark.parametrize("weights", CLOSE)
def test_native_layers_are_the_forward_pass(transformer: Transformer, native: Native, weights: Weights) -> None:
    """Of one row each of any number of streams, and of a piece of a prompt."""
    fast = NativeTransformer(native, transformer, weights)
    generator = torch.Generator().manual_seed(0)
    for rows, read, length in ((3, 1, 7), (1, 1, 5), (17, 1, 40), (1, 13, 13), (1, 7, 30), (3, 2, 9)):
        cache = cache_of(transformer, torch.float32 if weights == "float32" else torch.bfloat16, generator)
        plain_cache = cache.float()
        newest = torch.randint(read, length + 1, (rows, 1), generator=generator)
        at = newest - read + torch.arange(read)
        x = torch.randn((rows, read, transformer.config.hidden_size), generator=generator)
        visible = (torch.arange(length) <= at[..., None])[:, None]
        with torch.inference_mode():
            wanted = transformer(x, at, plain_cache[:, :, :rows, :length], visible)
            found = fast(x, at, cache[:, :, :rows, :length], visible)
        assert distance(found, wanted) < CLOSE[weights], (rows, read, length)
        assert distance(cache.float(), plain_cache) < CLOSE[weights]


@with_native
@pytest.mark.parametrize("weights", CLOSE)
def test_a_native_row_is_computed_as_if_alone(transformer: Transformer, native: Native, weights: Weights) -> None:
    fast = NativeTransformer(native, transformer, weights)
    generator = torch.Generator().manual_seed(1)
    cache = cache_of(transformer, torch.float32 if weights == "float32" else torch.bfloat16, generator)
    other = cache.clone()
    x = torch.randn((15, 1, transformer.config.hidden_size), generator=generator)
    at = torch.randint(0, 40, (15, 1), generator=generator)
    with torch.inference_mode():
        together = fast(x, at, cache[:, :, :15, :40], None)
        alone = [fast(x[n : n + 1], at[n : n + 1], other[:, :, n : n + 1, :40], None) for n in range(15)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(cache, other)


@with_native
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_a_native_linear_layer(native: Native, weights: Weights) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(50, 90)
    x = torch.randn(2, 9, 50)
    with torch.inference_mode():
        fast = NativeLinear(native, layer, weights)
        assert fast(x).shape == (2, 9, 90)
        assert distance(fast(x), layer(x)) < CLOSE[weights]
        assert torch.equal(fast(x)[1, 8], fast(x[1, 8]))
        assert fast(x.bfloat16()).dtype == torch.bfloat16


def fast_engine(
    checkpoint: Path, *, int8: bool, compiled: bool, slots: int = 4, dtype: torch.dtype = torch.float32
) -> Engine:
    config = read_model_config(checkpoint)
    dtype = torch.bfloat16 if int8 else dtype
    talker = load_talker(checkpoint, config, sdpa, CPU, dtype)
    set_eos_bias(talker, NEVER)
    return Engine(
        config,
        TextTokenizer(checkpoint, config),
        talker,
        slots=slots,
        positions=256,
        max_waiting=8,
        max_frames=64,
        make_passes=choose_passes(CPU, dtype, int8=int8, compiled=compiled),
    )


@with_native
def test_a_compiled_engine_says_what_the_plain_one_says(custom_voice: Path) -> None:
    requests = [custom(f"Number {seed}.", seed=seed, max_frames=6) for seed in range(3)]
    plain, compiled = (fast_engine(custom_voice, int8=False, compiled=how) for how in (False, True))
    assert [s.frames for s in speak(compiled, *requests)] == [s.frames for s in speak(plain, *requests)]


@pytest.mark.parametrize(
    ("int8", "compiled", "dtype"),
    [
        pytest.param(True, False, torch.bfloat16, marks=with_vnni),
        pytest.param(True, True, torch.bfloat16, marks=with_native),
        pytest.param(False, True, torch.bfloat16, marks=with_native),
    ],
)
def test_a_request_says_the_same_in_any_company(
    custom_voice: Path, int8: bool, compiled: bool, dtype: torch.dtype
) -> None:
    engine = fast_engine(custom_voice, int8=int8, compiled=compiled, dtype=dtype)
    requests = [custom(f"Number {seed}.", seed=seed, max_frames=8) for seed in range(4)]
    alone = [speak(engine, request)[0].frames for request in requests]
    assert [sequence.frames for sequence in speak(engine, *requests)] == alone


def test_options_that_a_device_has_not() -> None:
    for options in ({"int8": True, "compiled": False}, {"int8": False, "compiled": True}):
        with pytest.raises(UnsupportedError, match="only, not on mps"):
            choose_passes(torch.device("mps"), torch.bfloat16, **options)


@with_native
def test_compile_is_possible_on_a_cpu_in_dtypes_of_native_code() -> None:
    cases = [("cpu", torch.float32), ("cpu", torch.bfloat16), ("cpu", torch.float16), ("cuda", torch.bfloat16)]
    assert [can_compile(torch.device(device), dtype) for device, dtype in cases] == [True, True, False, False]


def test_native_code_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(UnsupportedError, match=r"not torch\.float16"):
        choose_passes(CPU, torch.float16, int8=False, compiled=True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"needs a C\+\+ compiler; install g\+\+ or clang\+\+"):
        choose_passes(CPU, torch.float32, int8=False, compiled=True)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    with pytest.raises(UnsupportedError, match="AVX-512"):
        choose_passes(CPU, torch.float32, int8=False, compiled=True)


def test_arm_runs_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)  # the architecture decides
    assert not can_compile(CPU, torch.float32)


def test_int8_where_the_processor_would_add_up_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: False)
    with pytest.raises(UnsupportedError, match="AVX-512 VNNI"):
        choose_passes(CPU, torch.bfloat16, int8=True, compiled=False)


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

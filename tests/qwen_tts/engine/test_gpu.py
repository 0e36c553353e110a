"""What decodes on a GPU, as far as a CPU can run it: compiled, and replayed from a double of CUDA graphs."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from qwen_tts.engine.choose_passes import choose_passes
from qwen_tts.engine.engine import Engine
from qwen_tts.engine.gpu import GraphPasses, buckets, flash_attention_whole, sdpa_of_groups
from qwen_tts.engine.passes import MakePasses, PlainPasses
from qwen_tts.engine.sampling import SamplingRows, keep_likely, keep_likely_unseen
from qwen_tts.engine.sequence import Frame, Sequence
from qwen_tts.errors import UnsupportedError
from qwen_tts.layers import Attend, flash_attention, sdpa
from qwen_tts.request import SamplingParams
from qwen_tts.seeded import write_checkpoint
from tests.qwen_tts.engine.graph_double import capture
from tests.qwen_tts.flash_double import flash_attn_module
from tests.qwen_tts.tiny import CPU, GREEDY, TINY, custom, speak, tiny_engine

# torch.compile's own modules.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

SLOTS = 6
SAMPLINGS = (
    None, GREEDY, SamplingParams(top_k=0), SamplingParams(top_k=0, top_p=0.7), SamplingParams(top_k=9, top_p=0.9),
)  # fmt: skip


def spoken(engine: Engine, steps: int) -> list[list[Frame]]:
    """What streams say that join and leave in `steps` steps and after, some of them with long prompts."""
    streams: list[Sequence] = []
    for step in range(steps):
        if engine.running + engine.waiting < SLOTS and step % 5 == len(streams) % 3:
            number = len(streams)
            text = f"Text {number}. " * (40 if number % 7 == 3 else 1 + number % 4)
            sampling = SAMPLINGS[number % len(SAMPLINGS)]
            streams.append(engine.add(custom(text, sampling=sampling, seed=number, max_frames=9 + number * 7 % 40)))
        if step % 31 == 30:
            engine.cancel(streams[-2])
        engine.step()
    while not engine.idle:
        engine.step()
    assert len({len(stream.frames) for stream in streams}) > 5
    return [stream.frames for stream in streams]


def engine_of(checkpoint: Path, attend: Attend = sdpa, make_passes: MakePasses = PlainPasses) -> Engine:
    return tiny_engine(checkpoint, slots=SLOTS, positions=700, attend=attend, make_passes=make_passes)


def replayed_engine(checkpoint: Path) -> Engine:
    with torch.compiler.set_stance("force_eager"):
        return engine_of(checkpoint, make_passes=partial(GraphPasses, capture=capture))


def test_graphs_say_what_the_plain_passes_say(custom_voice: Path) -> None:
    assert spoken(replayed_engine(custom_voice), 120) == spoken(engine_of(custom_voice), 120)


def test_flash_attention_in_graphs(custom_voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", flash_attn_module())
    q, kv, positions = torch.randn(2, 1, 4, 8), torch.randn(2, 2, 16, 2, 8), torch.tensor([[3], [9]])
    compiled = torch.compile(flash_attention_whole, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, kv, positions, None), flash_attention(q, kv, positions, None))
    # The double reads lengths on the host, which a recording would not allow.
    with torch.compiler.set_stance("force_eager"):
        engine = engine_of(custom_voice, flash_attention, GraphPasses)
        assert spoken(engine, 30) == spoken(engine_of(custom_voice), 30)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As little as has every pass in it: compiling takes its time."""
    directory = tmp_path_factory.mktemp("seeded") / "small"
    write_checkpoint(directory, replace(TINY, layers=1, groups=3, predictor_layers=1), "custom_voice")
    return directory


def test_two_hundred_mixed_steps_compiled(small: Path) -> None:
    """Whole functions, without a break, compiled for one row and for several; nothing copies the pool."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    engine = engine_of(small, make_passes=GraphPasses)
    assert counters["stats"]["unique_graphs"] == 4
    assert not counters["graph_break"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert spoken(engine, 200) == spoken(engine_of(small), 200)
    assert counters["stats"]["unique_graphs"] == 4
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        engine.add(custom(max_frames=3))
        while not engine.idle:
            engine.step()
    most = max(event.cpu_memory_usage for event in profiled.events())
    assert 0 < most < engine._runner.pools.kv.nbytes / 4


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_few_slots(small: Path, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, not compiled: every number of rows is one that tracing could take for a constant."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    engine, plain = (
        tiny_engine(small, slots=slots, positions=300, make_passes=make) for make in (GraphPasses, PlainPasses)
    )
    requests = [custom(f"Number {seed}.", seed=seed) for seed in range(4)]
    assert [s.frames for s in speak(engine, *requests)] == [s.frames for s in speak(plain, *requests)]


def test_graphs_are_few(custom_voice: Path) -> None:
    captured: list[Callable[[], None]] = []

    def count(work: Callable[[], None]) -> Callable[[], None]:
        captured.append(work)
        return work

    engine_of(custom_voice, make_passes=partial(GraphPasses, capture=count))
    assert len(captured) == 4 * (3 + 1), "1, 2, 4 and 6 rows, of 256, 512 and 700 positions, and without"
    assert buckets(1, 64) == (1, 2, 4, 8, 16, 32, 64)
    assert buckets(256, 8192) == (256, 512, 1024, 2048, 4096, 8192)
    assert buckets(256, 100) == (100,)
    assert buckets(1, 1) == (1,)


def test_unseen_parameters_keep_the_same_codes() -> None:
    params = [
        SamplingParams(top_k=k, top_p=p) for k in (0, 1, 2, 7, 39, 40, 1000) for p in (1.0, 0.999, 0.9, 0.5, 0.1, 0.01)
    ]
    rows = SamplingRows.allocate(len(params), CPU)
    for slot, one in enumerate(params):
        rows.set(slot, one)
    generator = torch.Generator().manual_seed(0)
    for spread in (0.3, 2.0, 10.0):
        scores = spread * torch.randn((len(params), 40), generator=generator)
        for some in (scores, scores.round(), scores.masked_fill(scores < 0, -torch.inf)):
            kept = keep_likely(some, rows)
            assert torch.equal(keep_likely_unseen(some, rows), kept)
            assert kept.isinf().any()


def test_attention_of_grouped_queries() -> None:
    torch.manual_seed(0)
    kv = torch.randn(2, 3, 16, 2, 8)
    at = torch.tensor([[2], [15], [7]])
    visible = (torch.arange(16) <= at)[:, None, None]
    for rows, mask in ((1, visible), (1, None), (16, None)):
        q = torch.randn(3, rows, 6, 8)
        torch.testing.assert_close(sdpa_of_groups(q, kv, at, mask), sdpa(q, kv, at, mask))


def test_options_that_a_gpu_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    with pytest.raises(UnsupportedError, match="dtype int8 is supported on a CPU only, not on cuda"):
        choose_passes(cuda, torch.bfloat16, int8=True, compiled=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="needs the package triton"):
        choose_passes(cuda, torch.bfloat16, int8=False, compiled=True)
    assert choose_passes(cuda, torch.bfloat16, int8=False, compiled=False) is PlainPasses
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert choose_passes(cuda, torch.bfloat16, int8=False, compiled=True) is GraphPasses

"""Decoding on a GPU: the passes over all running rows compiled, and replayed as CUDA graphs.

A graph is for one number of rows and one length of the cache. Both are rounded up to a bucket, so that all graphs there
will ever be are captured before the first request; the rows beyond are those of idle slots, which compute along and are
not read. A step then is two copies to the device, two replays, and one reading of the codes.

On a CPU the same functions run compiled and nothing is captured, which is how they are tested.

Letters: B rows, L cache positions, T rows of a prompt or 1, H heads, K key-value heads, d head width, G code groups.
"""

import importlib.util
import itertools
import logging
import time
from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType
from typing import ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_tts.engine.runner import TalkerRunner
from qwen_tts.engine.sampling import keep_likely_unseen, uniforms
from qwen_tts.errors import UnsupportedError
from qwen_tts.layers import Attend, Attention, flash_attention, sdpa, write_cache

log = logging.getLogger(__name__)

# Makes of work that puts all its results into tensors that were there before what does it again.
Work = Callable[[], None]
Capture = Callable[[Work], Work]

_SHORTEST = 256  # cache positions of the smallest graph
_COPIES = itertools.count()
_P = ParamSpec("_P")
_R = TypeVar("_R")


def check_gpu_options(*, int8: bool, compiled: bool) -> None:
    """Raises UnsupportedError where `int8` or `compiled` cannot be had on a CUDA device."""
    if int8:
        raise UnsupportedError("dtype int8 is for the CPU, not for cuda")
    if compiled and importlib.util.find_spec("triton") is None:
        raise UnsupportedError("compile on cuda needs the package triton, which a build of torch for CUDA brings")


def buckets(smallest: int, largest: int) -> tuple[int, ...]:
    """`smallest` doubled until it would pass `largest`, then `largest`."""
    sizes = [min(smallest, largest)]
    while sizes[-1] < largest:
        sizes.append(min(2 * sizes[-1], largest))
    return tuple(sizes)


def use_graphs(runner: TalkerRunner, capture: Capture | None = None) -> None:
    """Let `runner` run its passes compiled, on a CUDA device from graphs. Takes minutes."""
    if capture is None:
        capture = _cuda_graphs() if runner.device.type == "cuda" else _as_it_is
    passes = _Passes(runner)
    passes.warm_up(capture)
    runner.decode, runner.next_frame = passes.decode, passes.next_frame


def _as_it_is(work: Work) -> Work:
    work()
    return work


def _cuda_graphs() -> Capture:
    pool = torch.cuda.graph_pool_handle()  # the graphs share the memory of what lies between

    def capture(work: Work) -> Work:
        work()  # compiles, and loads what is loaded at the first call
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        return graph.replay

    return capture


class _Passes:
    def __init__(self, runner: TalkerRunner) -> None:
        self._runner = runner
        self._rows = buckets(1, runner.slots)
        self._lengths = buckets(_SHORTEST, runner.positions)
        # What the host says in a step, a number per slot each: positions, text steps, frame numbers. Pinned, so that
        # the copy is queued like any other work; the codes read at the end of a step say that it has been made.
        pinned = runner.device.type == "cuda"
        self._said = torch.zeros((3, runner.slots), dtype=torch.int64, pin_memory=pinned)
        self._inputs = torch.zeros((3, runner.slots), dtype=torch.int64, device=runner.device)
        self._places = torch.arange(runner.positions, device=runner.device)
        self._drawn = torch.zeros((runner.slots, 1 + runner.groups), dtype=torch.int64, device=runner.device)
        self._decodes: dict[tuple[int, int], Work] = {}
        self._draws: dict[int, Work] = {}
        for module in runner.talker.modules():
            if isinstance(module, Attention):
                module.attend = _COMPILABLE[module.attend]
                module.write_cache = torch.ops.qwen_tts.write_cache
        self._read_frames = torch.compile(MethodType(_own_copy(TalkerRunner.read_frames), runner), fullgraph=True)
        self._draw_frames = torch.compile(MethodType(_own_copy(TalkerRunner.draw_frames), runner), fullgraph=True)

    @torch.inference_mode()
    def warm_up(self, capture: Capture) -> None:
        """Largest first: the others find room in the memory that leaves."""
        started, count = time.monotonic(), len(self._rows) * (len(self._lengths) + 1)
        for rows in reversed(self._rows):
            self._draws[rows] = capture(partial(self._draw, rows))
            for length in reversed(self._lengths):
                self._decodes[rows, length] = capture(partial(self._read, rows, length))
            done = len(self._decodes) + len(self._draws)
            log.info("%s of %s graphs ready after %.0f s", done, count, time.monotonic() - started)

    def decode(self, rows: int, positions: list[int], steps: list[int]) -> None:
        """As TalkerRunner._decode_rows."""
        rows = _bucket(self._rows, rows)
        length = _bucket(self._lengths, max(positions[:rows]) + 1)
        self._say(slice(0, 2), [positions, steps])
        self._decodes[rows, length]()

    def next_frame(self, rows: int, frames: list[int]) -> Tensor:
        """As TalkerRunner._next_frame_rows; overwritten by the next call."""
        self._say(slice(2, 3), [frames])
        self._draws[_bucket(self._rows, rows)]()
        return self._drawn[:rows]

    def _say(self, which: slice, numbers: list[list[int]]) -> None:
        self._said[which] = torch.tensor(numbers)
        self._inputs[which].copy_(self._said[which], non_blocking=True)

    def _read(self, rows: int, length: int) -> None:
        at, steps = (_varying(numbers[:rows]) for numbers in self._inputs[:2])
        self._runner.hidden[:rows] = self._read_frames(at, steps, _varying(self._places[:length]))

    def _draw(self, rows: int) -> None:
        runner, frame = self._runner, _varying(self._inputs[2, :rows])
        # Not compiled: its integers are meant to overflow.
        uniform = _varying(uniforms(runner.seeds[:rows], frame, runner.groups))
        self._drawn[:rows] = runner.book(self._draw_frames(frame, uniform, keep_likely_unseen))


def _bucket(sizes: tuple[int, ...], wanted: int) -> int:
    return next(size for size in sizes if size >= wanted)


def _own_copy(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """torch.compile counts the variants of a piece of code; every engine has its own."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_COPIES)}")
    return cast("Callable[_P, _R]", FunctionType(code, function.__globals__))


def _varying(tensor: Tensor) -> Tensor:
    """Compiled for any first size; 1 is a case of its own, and so is 2 where there are no more slots."""
    if len(tensor) > 1:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return tensor


def sdpa_of_groups(q: Tensor, kv: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
    """`sdpa`, for one row each with the query heads of a key head as if they were rows: with grouped queries and a mask
    torch has no fused kernel on CUDA."""
    if q.shape[1] > 1:
        return sdpa(q, kv, positions, mask)
    keys, values = kv.transpose(2, 3)  # [B, K, L, d] each
    grouped = q.view(q.shape[0], keys.shape[1], -1, q.shape[3])  # [B, K, H / K, d]
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).reshape(q.shape)


def flash_attention_whole(q: Tensor, kv: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
    """`flash_attention`, which torch.compile cannot look into, as one operation."""
    out: Tensor = torch.ops.qwen_tts.flash_attention(q, kv, positions)
    return out


_COMPILABLE: dict[Attend, Attend] = {sdpa: sdpa_of_groups, flash_attention: flash_attention_whole}


def _flash_attention(q: Tensor, kv: Tensor, positions: Tensor) -> Tensor:
    return flash_attention(q, kv, positions, None)


def _shape_of_queries(q: Tensor, kv: Tensor, positions: Tensor) -> Tensor:
    return q.new_empty(q.shape)


def _nothing(kv: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None: ...


# Writing the cache is an operation too: torch.compile copies a tensor whose parts it sees written.
_LIBRARY = torch.library.Library("qwen_tts", "FRAGMENT")  # type: ignore[no-untyped-call]  # no types in torch
for _schema, _function, _shape in (
    ("write_cache(Tensor(a!) kv, Tensor positions, Tensor keys, Tensor values) -> ()", write_cache, _nothing),
    ("flash_attention(Tensor q, Tensor kv, Tensor positions) -> Tensor", _flash_attention, _shape_of_queries),
):
    _LIBRARY.define(_schema)  # type: ignore[no-untyped-call]  # no types in torch
    _name = f"qwen_tts::{_schema.split('(')[0]}"
    _LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]  # no types in torch
    torch.library.register_fake(_name, _shape, lib=_LIBRARY)

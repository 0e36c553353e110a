"""Decoding on a GPU: the passes over all running rows compiled, and replayed as CUDA graphs.

Never run on a GPU so far: everything here is tested on a CPU, where the same functions run compiled and a double of
CUDA graphs replays them.

A graph is for one number of rows and one length of the cache. Both are rounded up to a bucket, so all graphs that will
ever be needed are captured before the first request. Rows beyond the running ones belong to idle slots: they are
computed too, and nobody reads them. A step then is two copies to the device, two replays, and one reading of the codes.

Letters: B rows, L cache positions, T rows of a prompt or 1, H heads, K key-value heads, d head width, G code groups.
"""

import importlib.util
import itertools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import FunctionType, MethodType
from typing import ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_tts.engine.passes import PlainPasses
from qwen_tts.engine.pools import Pools
from qwen_tts.engine.sampling import keep_likely_unseen, uniforms
from qwen_tts.errors import UnsupportedError
from qwen_tts.layers import Attend, Attention, flash_attention, sdpa, write_cache
from qwen_tts.models.talker import Talker

log = logging.getLogger(__name__)

# A function that reads and writes only preallocated tensors.
Work = Callable[[], None]
# Turns such a function into one that replays it on the same tensors.
Capture = Callable[[Work], Work]

_SHORTEST = 256  # cache positions of the smallest graph
_COPIES = itertools.count()
_P = ParamSpec("_P")
_R = TypeVar("_R")


def check_triton() -> None:
    """Raises UnsupportedError where torch.compile cannot compile for a GPU."""
    if importlib.util.find_spec("triton") is None:
        raise UnsupportedError("compile on cuda needs the package triton; install a build of torch for CUDA")


def buckets(smallest: int, largest: int) -> tuple[int, ...]:
    """Return `smallest` doubled until it would pass `largest`, then `largest`."""
    sizes = [min(smallest, largest)]
    while sizes[-1] < largest:
        sizes.append(min(2 * sizes[-1], largest))
    return tuple(sizes)


def run_once(work: Work) -> Work:
    """The Capture of a device without graphs."""
    work()
    return work


def cuda_graphs() -> Capture:
    """Return a Capture that makes CUDA graphs which share one memory pool for their intermediate results."""
    pool = torch.cuda.graph_pool_handle()

    def capture(work: Work) -> Work:
        work()  # compiles, and loads what is loaded at the first call
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may use the device during the capture.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        return graph.replay

    return capture


class GraphPasses:
    """The passes of PlainPasses, compiled and captured. The constructor takes minutes.

    Takes over the talker: its attention layers compute with functions that torch.compile can handle.
    """

    def __init__(self, talker: Talker, pools: Pools, capture: Capture | None = None) -> None:
        """capture: graphs on a CUDA device and `run_once` elsewhere, if None."""
        self._plain = PlainPasses(talker, pools)
        self._pools = pools
        self._rows = buckets(1, pools.slots)
        self._lengths = buckets(_SHORTEST, pools.positions)
        # The numbers that the host sends in a step, one per slot each: positions, text steps, frame numbers. The source
        # is pinned, so that the copy is queued like any other work. It may be written again once the codes at the end
        # of the step have been read, because the copy has been made by then.
        cuda = pools.device.type == "cuda"
        self._host_inputs = torch.zeros((3, pools.slots), dtype=torch.int64, pin_memory=cuda)
        self._inputs = torch.zeros((3, pools.slots), dtype=torch.int64, device=pools.device)
        self._places = torch.arange(pools.positions, device=pools.device)
        self._drawn = torch.zeros((pools.slots, 1 + self._plain.groups), dtype=torch.int64, device=pools.device)
        self._decodes: dict[tuple[int, int], Work] = {}
        self._draws: dict[int, Work] = {}
        for module in talker.modules():
            if isinstance(module, Attention):
                module.attend = _COMPILABLE[module.attend]
                module.write_cache = write_cache_op
        self._read_frames = torch.compile(MethodType(_own_copy(PlainPasses.read_frames), self._plain), fullgraph=True)
        self._draw_frames = torch.compile(MethodType(_own_copy(PlainPasses.draw_frames), self._plain), fullgraph=True)
        self._capture_all(capture or (cuda_graphs() if cuda else run_once))

    def step(self) -> AbstractContextManager[None]:
        return self._plain.step()

    def read_prompt(self, slot: int, rows: Tensor, first: int) -> Tensor:
        return self._plain.read_prompt(slot, rows, first)

    def decode(self, rows: int, positions: list[int], steps: list[int]) -> None:
        rows = _bucket(self._rows, rows)
        length = _bucket(self._lengths, max(positions[:rows]) + 1)
        self._send(slice(0, 2), [positions, steps])
        self._decodes[rows, length]()

    def next_frame(self, rows: int, frames: list[int]) -> Tensor:
        """As Passes.next_frame. The next call overwrites the result."""
        self._send(slice(2, 3), [frames])
        self._draws[_bucket(self._rows, rows)]()
        return self._drawn[:rows]

    @torch.inference_mode()
    def _capture_all(self, capture: Capture) -> None:
        """Capture every graph, the largest first: the others fit into the memory that it leaves."""
        started, count = time.monotonic(), len(self._rows) * (len(self._lengths) + 1)
        for rows in reversed(self._rows):
            self._draws[rows] = capture(partial(self._draw, rows))
            for length in reversed(self._lengths):
                self._decodes[rows, length] = capture(partial(self._read, rows, length))
            done = len(self._decodes) + len(self._draws)
            log.info("capturing graphs: %s of %s after %.0f s", done, count, time.monotonic() - started)

    def _send(self, which: slice, numbers: list[list[int]]) -> None:
        self._host_inputs[which] = torch.tensor(numbers)
        self._inputs[which].copy_(self._host_inputs[which], non_blocking=True)

    def _read(self, rows: int, length: int) -> None:
        at, steps = (_varying(numbers[:rows]) for numbers in self._inputs[:2])
        self._pools.hidden[:rows] = self._read_frames(at, steps, _varying(self._places[:length]))

    def _draw(self, rows: int) -> None:
        frame = _varying(self._inputs[2, :rows])
        # Not compiled: its integers are meant to overflow.
        uniform = _varying(uniforms(self._pools.seeds[:rows], frame, self._plain.groups))
        self._drawn[:rows] = self._plain.book(self._draw_frames(frame, uniform, keep_likely_unseen))


def _bucket(sizes: tuple[int, ...], wanted: int) -> int:
    return next(size for size in sizes if size >= wanted)


def _own_copy(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return the function with a code object of its own.

    torch.compile keeps compiled variants by code object and refuses to compile more than eight (`recompile_limit` in
    torch._dynamo.config). Each engine needs variants of its own, because they are tied to its talker and its pools, so
    a process that makes a few engines would reach the limit. torch 2.13 has `isolate_recompiles` for this purpose; the
    project supports older versions too.
    """
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_COPIES)}")
    return cast("Callable[_P, _R]", FunctionType(code, function.__globals__))


def _varying(tensor: Tensor) -> Tensor:
    """Mark the first size as variable, so that torch.compile compiles for all sizes at once.

    A size of 1 is compiled apart, and so is 2 where there are no more slots.
    """
    if len(tensor) > 1:
        torch._dynamo.maybe_mark_dynamic(tensor, 0)
    return tensor


def sdpa_of_groups(q: Tensor, kv: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
    """Compute `sdpa`; for one row each, with the query heads of a key head as if they were rows.

    With grouped queries and a mask torch has no fused kernel on CUDA.
    """
    if q.shape[1] > 1:
        return sdpa(q, kv, positions, mask)
    keys, values = kv.transpose(2, 3)  # [B, K, L, d] each
    grouped = q.view(q.shape[0], keys.shape[1], -1, q.shape[3])  # [B, K, H / K, d]
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask).reshape(q.shape)


@torch.library.custom_op("qwen_tts::write_cache", mutates_args=("kv",))
def write_cache_op(kv: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None:
    """`write_cache` as one operation: torch.compile copies a tensor of which it sees parts written."""
    write_cache(kv, positions, keys, values)


@torch.library.custom_op("qwen_tts::flash_attention", mutates_args=())
def flash_attention_op(q: Tensor, kv: Tensor, positions: Tensor) -> Tensor:
    """`flash_attention` as one operation: torch.compile cannot trace its kernel."""
    return flash_attention(q, kv, positions, None)


@write_cache_op.register_fake
def _(kv: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> None: ...


@flash_attention_op.register_fake
def _(q: Tensor, kv: Tensor, positions: Tensor) -> Tensor:
    return q.new_empty(q.shape)


def flash_attention_whole(q: Tensor, kv: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
    """`flash_attention` by `flash_attention_op`. The kernel needs no mask."""
    attended: Tensor = flash_attention_op(q, kv, positions)
    return attended


_COMPILABLE: dict[Attend, Attend] = {sdpa: sdpa_of_groups, flash_attention: flash_attention_whole}

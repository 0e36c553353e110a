"""Decoding on a CPU: a talker's weights packed for torch, or passes computed by compiled code of our own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qwen_tts.cpus import usable_cpus
from qwen_tts.engine.passes import PlainPasses
from qwen_tts.engine.pools import Pools
from qwen_tts.errors import UnsupportedError
from qwen_tts.models.talker import Talker
from qwen_tts.native.build import find_compiler
from qwen_tts.native.transformer import Native, NativeLinear, NativeTransformer
from qwen_tts.packed_linear import Weights

NATIVE_WEIGHTS: dict[torch.dtype, Weights] = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def check_int8() -> None:
    """Raises UnsupportedError where the processor or torch cannot multiply int8 exactly."""
    # Without these instructions oneDNN adds products up in 16 bits, which can overflow.
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # no types in torch
    if not (onednn and torch.cpu._is_vnni_supported()):
        raise UnsupportedError("dtype int8 needs a CPU with AVX-512 VNNI and a build of torch with oneDNN")


def check_native(dtype: torch.dtype) -> None:
    """Raises UnsupportedError where native code cannot compute in `dtype` or cannot be compiled."""
    if dtype not in NATIVE_WEIGHTS:
        raise UnsupportedError(f"compile supports dtype float32, bfloat16 and int8 on a CPU, not {dtype}")
    find_compiler()


def multiplies_bfloat16() -> bool:
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


def make_packed_passes(talker: Talker, pools: Pools, weights: Weights, heads: Weights) -> PlainPasses:
    """Pack the talker's weights as the CPU's matrix kernels read them; return plain passes over them."""
    talker.pack(weights, heads)
    return PlainPasses(talker, pools)


class NativePasses(PlainPasses):
    """Passes whose layers and heads are computed by native code, with as many threads as torch has at construction,
    but no more than the CPUs that this process may use.

    Takes over the talker: its heads are replaced, and its layers are dropped once native code has a copy.
    """

    def __init__(self, talker: Talker, pools: Pools, weights: Weights, heads: Weights) -> None:
        native = Native(min(torch.get_num_threads(), usable_cpus()), (weights, heads))
        transformers = (talker.model, talker.code_predictor.model)
        super().__init__(talker, pools, *(NativeTransformer(native, one, weights) for one in transformers))
        for transformer in transformers:
            del transformer.layers
        talker.replace_heads(lambda head: NativeLinear(native, head, heads))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let torch compute with one thread. Its threads wait actively for their next work, longer than a step takes,
        and so hinder the native ones. The work that remains for torch is too small to divide."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

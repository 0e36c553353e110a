"""Chooses how a talker computes on a device. The only module that knows every kind of passes."""

from functools import partial

import torch

from qwen_tts.engine.cpu import (
    NATIVE_WEIGHTS,
    NativePasses,
    check_int8,
    check_native,
    make_packed_passes,
    multiplies_bfloat16,
)
from qwen_tts.engine.gpu import GraphPasses, check_triton
from qwen_tts.engine.passes import MakePasses, PlainPasses
from qwen_tts.errors import UnsupportedError
from qwen_tts.packed_linear import Weights


def choose_passes(device: torch.device, dtype: torch.dtype, *, int8: bool, compiled: bool) -> MakePasses:
    """Return what makes the fastest passes for these options. Raises UnsupportedError where they are not supported.

    int8: the products of the layers are of int8, the rest is `dtype`; on a CPU only. compiled: native code on a CPU,
    CUDA graphs on a GPU.
    """
    if int8 and device.type != "cpu":
        raise UnsupportedError(f"dtype int8 is supported on a CPU only, not on {device}")
    match device.type:
        case "cpu":
            return _choose_on_cpu(dtype, int8=int8, compiled=compiled)
        case "cuda" if compiled:
            check_triton()
            return GraphPasses
        case _ if compiled:
            raise UnsupportedError(f"compile is supported on a CPU and on cuda only, not on {device}")
    return PlainPasses


def can_compile(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether native code is supported here: on a CPU that has the instructions, with a compiler."""
    if device.type != "cpu":
        return False
    try:
        check_native(dtype)
    except UnsupportedError:
        return False
    return True


def _choose_on_cpu(dtype: torch.dtype, *, int8: bool, compiled: bool) -> MakePasses:
    if int8:
        check_int8()
    if compiled:
        check_native(dtype)
        heads = NATIVE_WEIGHTS[dtype]
        return partial(NativePasses, weights="int8" if int8 else heads, heads=heads)
    if int8:
        # Codes are drawn from what the heads compute, so these stay 16 bits at least.
        packed_heads: Weights = "bfloat16" if multiplies_bfloat16() else "float32"
        return partial(make_packed_passes, weights="int8", heads=packed_heads)
    if dtype == torch.bfloat16 and multiplies_bfloat16():
        return partial(make_packed_passes, weights="bfloat16", heads="bfloat16")
    return PlainPasses

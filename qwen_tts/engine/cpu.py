"""How a talker decodes on a CPU: with its weights as they were loaded, packed, or by compiled code of our own."""

import torch
from torch import nn

from qwen_tts.errors import UnsupportedError
from qwen_tts.models.talker import Talker
from qwen_tts.native.transformer import Native, NativeLinear, NativeTransformer, find_compiler
from qwen_tts.packed_linear import Weights

_NATIVE: dict[torch.dtype, Weights] = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def check_cpu_options(device: torch.device, dtype: torch.dtype, *, int8: bool, compiled: bool) -> None:
    """Raises UnsupportedError where `int8` or `compiled` cannot be had."""
    for option, wanted in (("dtype int8", int8), ("compile", compiled)):
        if wanted and device.type != "cpu":
            raise UnsupportedError(f"{option} is for the CPU, not for {device}")
    # Without these instructions oneDNN adds products up in 16 bits, which can overflow.
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # no types in torch
    if int8 and not (onednn and torch.cpu._is_vnni_supported()):
        raise UnsupportedError("dtype int8 needs a CPU with AVX-512 VNNI and a build of torch with oneDNN")
    if compiled:
        if dtype not in _NATIVE:
            raise UnsupportedError(f"compile is for dtype float32, bfloat16 and int8 on a CPU, not for {dtype}")
        find_compiler()


def can_compile(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether native code can be had: on a CPU that has the instructions, and a compiler."""
    if device.type != "cpu" or dtype not in _NATIVE:
        return False
    try:
        find_compiler()
    except UnsupportedError:
        return False
    return True


def prepare_for_cpu(talker: Talker, dtype: torch.dtype, *, int8: bool, compiled: bool) -> None:
    """`compiled` uses as many threads as torch does now."""
    if compiled:
        _compile(talker, "int8" if int8 else _NATIVE[dtype], heads=_NATIVE[dtype])
    elif int8:
        # The heads, whose numbers codes are drawn from, stay 16 bits at least.
        talker.pack("int8", "bfloat16" if _multiplies_bfloat16() else "float32")
    elif dtype == torch.bfloat16 and _multiplies_bfloat16():
        talker.pack("bfloat16", "bfloat16")


def _compile(talker: Talker, weights: Weights, heads: Weights) -> None:
    native = Native(torch.get_num_threads(), (weights, heads))
    for transformer in (talker.model, talker.code_predictor.model):
        transformer.read = NativeTransformer(native, transformer, weights)
        transformer.layers = nn.ModuleList()
    talker.replace_heads(lambda head: NativeLinear(native, head, heads))


def _multiplies_bfloat16() -> bool:
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported

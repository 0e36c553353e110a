"""How a talker decodes on a CPU: with its weights as they were loaded, packed, or packed and compiled."""

import torch

from qwen_tts.errors import UnsupportedError
from qwen_tts.fused_decode import FusedDecode
from qwen_tts.models.talker import Talker
from qwen_tts.packed_linear import Weights


def check_cpu_options(device: torch.device, *, int8: bool, compiled: bool) -> None:
    """Raises UnsupportedError where `int8` or `compiled` cannot be had."""
    for option, wanted in (("dtype int8", int8), ("compile", compiled)):
        if wanted and device.type != "cpu":
            raise UnsupportedError(f"{option} is for the CPU, not for {device}")
    # Without these instructions oneDNN adds products up in 16 bits, which can overflow.
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # no types in torch
    if int8 and not (onednn and torch.cpu._is_vnni_supported()):
        raise UnsupportedError("dtype int8 needs a CPU with AVX-512 VNNI and a build of torch with oneDNN")
    if compiled:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise UnsupportedError("compile needs a C++ compiler, such as g++") from None


def prepare_for_cpu(talker: Talker, dtype: torch.dtype, *, int8: bool, compiled: bool) -> None:
    weights: Weights | None = None
    if int8:
        weights = "int8"
    elif dtype == torch.bfloat16 and _multiplies_bfloat16():
        weights = "bfloat16"
    elif compiled:
        weights = "float32"
    if weights is not None:
        # The heads, whose numbers codes are drawn from, stay 16 bits at least.
        heads: Weights = "bfloat16" if weights != "float32" and _multiplies_bfloat16() else "float32"
        talker.pack(weights, heads)
    if compiled:
        for transformer in (talker.model, talker.code_predictor.model):
            transformer.decode = FusedDecode(transformer)


def _multiplies_bfloat16() -> bool:
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported

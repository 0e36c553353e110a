"""Convert the forms in which callers may write an argument into one form."""

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from qwen_tts.checkpoint import DTYPES
from qwen_tts.errors import InvalidRequest, UnsupportedError

T = TypeVar("T")


def to_device(device_map: str | int | torch.device | None) -> torch.device:
    if device_map == "auto":
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    elif isinstance(device_map, int):
        device_map = f"cuda:{device_map}"
    device: torch.device | None
    try:
        device = torch.device("cpu" if device_map is None else device_map)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UnsupportedError(f"device_map {device_map!r} is not supported; choose 'cpu', 'cuda', 'cuda:N' or 'auto'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError(f"device_map {device_map!r}: this machine has no CUDA device")
    return device


def to_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if found not in DTYPES.values():
        raise UnsupportedError(f"dtype {dtype!r} is not supported; choose {', '.join(DTYPES)}")
    assert found is not None
    return found


def as_list(text: str | list[str]) -> list[str]:
    if not isinstance(text, str | list | tuple):
        raise InvalidRequest(f"text must be a string or a list of strings, not {text!r}", "text", "invalid_value")
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise InvalidRequest("text is an empty list", "text")
    return texts


def plain(value: T) -> T:
    """Convert a NumPy number to a Python number; return any other value unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def as_tensor(name: str, value: object) -> Tensor:
    """Return a tensor on the CPU from a tensor, an array or nested lists. Raises InvalidRequest."""
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InvalidRequest(f"{name} must be a tensor, not {type(value).__name__}", name, "invalid_value") from None


def broadcast(name: str, value: T | list[T], count: int) -> list[T]:
    """Repeat `value` for `count` texts or recordings. Raises InvalidRequest when a list has another length."""
    return spread(name, list(value) if isinstance(value, list | tuple | np.ndarray) else [value], count)


def spread(name: str, values: list[T], count: int) -> list[T]:
    """Return `count` values from a list of that length or of length one. Raises InvalidRequest for another length."""
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise InvalidRequest(f"{name} has {len(values)} entries; give {count}, or one for all", name)
    return values

"""A CUDA graph in plain torch: it notes the operations of some work and does them again on the same memory.

What the work read from the host it reads no more, and what it allocated stays where it was, as in a graph. Operations
that make the host wait for the device are errors.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READ_BY_THE_HOST = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "unique", "masked_select")


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # no types in torch
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Callable[[], None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        assert name not in _READ_BY_THE_HOST, f"{name} during capture"
        result = func(*args, **kwargs)
        places = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        made = [tensor.untyped_storage().data_ptr() not in places for tensor in _tensors(result)]

        def again() -> None:
            for old, new, is_made in zip(_tensors(result), _tensors(func(*args, **kwargs)), made, strict=True):
                if is_made:
                    old.copy_(new)

        self.operations.append(again)
        return result


def capture(work: Callable[[], None]) -> Callable[[], None]:
    work()
    recorder = _Recorder()
    with recorder:
        work()

    def replay() -> None:
        for operation in recorder.operations:
            operation()

    return replay


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

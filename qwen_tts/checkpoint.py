"""Find checkpoint directories in the released layout, and load modules from them strictly.

    config.json  generation_config.json  vocab.json  merges.txt  tokenizer_config.json  model.safetensors
    speech_tokenizer/{config.json, model.safetensors}

Module attribute names follow the tensor names, so no mapping is needed. Only safetensors is read: nothing is unpickled.
"""

from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import nn

from qwen_tts.errors import CheckpointError

CODEC_DIRECTORY = "speech_tokenizer"
WEIGHTS_FILE = "model.safetensors"
_LAYOUT_FILES = ["*.json", "merges.txt", WEIGHTS_FILE]
_MAX_NAMED = 5  # tensors named in an error before "and n more"

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_checkpoint(name_or_path: str, files: list[str] | None = None) -> Path:
    """Return a checkpoint directory: `name_or_path` itself, or the download of the hub repository of that name.

    `files` limits a download to these patterns. Raises CheckpointError when neither exists.
    """
    try:
        directory = Path(name_or_path).expanduser()
    except RuntimeError as error:  # "~somebody", where this machine has no such user
        raise CheckpointError(f"checkpoint directory {name_or_path}: {error}") from None
    if directory.is_dir():
        return directory
    # A hub id is "name" or "owner/name"; anything else must be a path.
    if directory.is_absolute() or name_or_path.startswith((".", "~")) or name_or_path.count("/") > 1:
        raise CheckpointError(f"checkpoint directory {name_or_path} does not exist")
    patterns = files or [*_LAYOUT_FILES, *(f"{CODEC_DIRECTORY}/{name}" for name in _LAYOUT_FILES)]
    try:
        return Path(snapshot_download(name_or_path, allow_patterns=patterns))
    except Exception as error:  # the hub's client, its transport and the disk raise unrelated exceptions
        raise CheckpointError(
            f"{name_or_path!r} is not a directory, and downloading it as a hub repository failed: {error}"
        ) from None


def load_weights(
    module: nn.Module,
    file: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prefix: str = "",
    ignore: tuple[str, ...] = (),
) -> None:
    """Fill `module` (built on the meta device) from the tensors of `file` whose names begin with `prefix`.

    Floating-point tensors are cast to `dtype`. Tensors whose names begin with a prefix in `ignore` belong to another
    module. Raises CheckpointError that names the tensors that are missing, extra or of another shape.
    """
    wanted = module.state_dict()
    try:
        with safe_open(file, framework="pt", device=str(device)) as stored:
            names = [name for name in stored.keys() if not name.startswith(ignore or "\0")]  # noqa: SIM118 (not a dict)
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in names}
            _compare(file, {prefix + name: tuple(t.shape) for name, t in wanted.items()}, shapes)
            loaded = {name: stored.get_tensor(prefix + name) for name in wanted}
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a safetensors file: {error}") from None
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in loaded.items()}
    module.load_state_dict(cast, assign=True)
    module.requires_grad_(False)
    module.eval()


def _compare(file: Path, wanted: dict[str, tuple[int, ...]], stored: dict[str, tuple[int, ...]]) -> None:
    faults = [
        *(f"missing {name} {list(wanted[name])}" for name in sorted(wanted.keys() - stored.keys())),
        *(f"extra {name} {list(stored[name])}" for name in sorted(stored.keys() - wanted.keys())),
        *(
            f"shape of {name} is {list(stored[name])}, config.json says {list(wanted[name])}"
            for name in sorted(wanted.keys() & stored.keys())
            if wanted[name] != stored[name]
        ),
    ]
    if faults:
        more = f"; and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
        raise CheckpointError(f"{file} does not fit its config: " + "; ".join(faults[:_MAX_NAMED]) + more)

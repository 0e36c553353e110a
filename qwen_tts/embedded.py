"""The checkpoints in the package, as directories in the released layout.

They share one talker, one codec and one tokenizer; the speaker encoder belongs to the base model alone. The package
therefore holds the base checkpoint whole and, of the others, only the files that differ:

    checkpoints/demo-base/          everything
    checkpoints/demo-custom-voice/  config.json README.md
    checkpoints/demo-voice-design/  config.json README.md

The others are assembled on first use in the user's cache directory, or in the temporary directory where the cache
cannot be written: symbolic links to the package, and the base model's weights without its speaker encoder (23 MB).
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qwen_tts.checkpoint import WEIGHTS_FILE
from qwen_tts.config import ModelType
from qwen_tts.errors import CheckpointError
from qwen_tts.models.speaker_encoder import SPEAKER_ENCODER_PREFIX

DIRECTORIES: dict[ModelType, str] = {
    "custom_voice": "demo-custom-voice",
    "voice_design": "demo-voice-design",
    "base": "demo-base",
}
_STORED = Path(__file__).with_name("checkpoints")


def embedded_checkpoint(model_type: ModelType) -> Path:
    """Return the directory of the package's checkpoint of this type. Raises CheckpointError."""
    return assembled_checkpoint(_STORED, model_type)


def assembled_checkpoint(stored: Path, model_type: ModelType) -> Path:
    """Return a checkpoint directory in the released layout, from what `stored` holds (see above).

    Processes that start together may call this at once. Raises CheckpointError where no directory can be written.
    """
    if model_type == "base":
        return stored / DIRECTORIES["base"]
    faults = []
    for place in _places():
        try:
            return _assembled_in(place, stored.resolve()) / DIRECTORIES[model_type]
        except (OSError, SafetensorError) as error:
            faults.append(f"{place}: {error}")
    raise CheckpointError("the embedded checkpoint cannot be assembled: " + "; ".join(faults))


def _places() -> Iterator[Path]:
    with suppress(RuntimeError):  # an account without a home directory
        yield Path.home() / ".cache" / "qwen-tts"
    yield Path(tempfile.gettempdir()) / f"qwen-tts-{os.getuid()}"


def _assembled_in(place: Path, stored: Path) -> Path:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.lstat().st_uid != os.getuid():  # anybody may create a directory of this name in /tmp
        raise PermissionError("the directory belongs to another user")
    whole = place / _digest(stored)
    if not whole.exists():
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            made = Path(scratch) / "made"
            _assemble(made, stored)
            try:
                made.rename(whole)
            except OSError:
                if not whole.exists():
                    raise
                # Another process was faster; its directory holds the same files.
    return whole


def _digest(stored: Path) -> str:
    """Return a name that changes with the place of the files, their content, and this module."""
    digest = hashlib.sha256(str(stored).encode())
    for file in (Path(__file__), *sorted(path for path in stored.rglob("*") if path.is_file())):
        digest.update(f"\0{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _assemble(directory: Path, stored: Path) -> None:
    base = stored / DIRECTORIES["base"]
    tensors = load_file(base / WEIGHTS_FILE)
    assert any(name.startswith(SPEAKER_ENCODER_PREFIX) for name in tensors), "the base checkpoint has a speaker encoder"
    directory.mkdir()
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(SPEAKER_ENCODER_PREFIX)}
    save_file(own, directory / WEIGHTS_FILE)
    for name in (name for model_type, name in DIRECTORIES.items() if model_type != "base"):
        files = {file.name: file for file in (*base.iterdir(), *(stored / name).iterdir())}
        files[WEIGHTS_FILE] = Path("..") / WEIGHTS_FILE
        (directory / name).mkdir()
        for file_name, file in files.items():
            (directory / name / file_name).symlink_to(file)

"""The model a fresh installation starts with: a small checkpoint of random weights, written once. It makes noise."""

import fcntl
import logging
from pathlib import Path

from deployments.settings import EMBEDDED, ModelArgs
from qwen_tts.seeded import SHAPES, write_checkpoint

log = logging.getLogger("ray.serve")


def checkpoint_of(model: ModelArgs, cache_dir: Path) -> str:
    """Directory or hub id of `model`; writes the embedded checkpoint where it is not there yet."""
    if model.checkpoint != EMBEDDED:
        return model.checkpoint
    assert model.type is not None, "settings see to it"
    directory = cache_dir.expanduser() / f"seeded-{model.type.replace('_', '-')}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several replicas of one node start at once
        if not directory.exists():
            log.info("writing the embedded checkpoint to %s", directory)
            write_checkpoint(directory, SHAPES["small"], model.type)
    log.warning("model %s has random weights: it makes noise, not speech", model.name)
    return str(directory)

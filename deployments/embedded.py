"""The models a fresh installation speaks with: small checkpoints in the package, trained on synthetic voices."""

import logging
from pathlib import Path

import qwen_tts
from deployments.settings import EMBEDDED, ModelArgs

log = logging.getLogger("ray.serve")

_CHECKPOINTS = Path(qwen_tts.__file__).parent / "checkpoints"


def checkpoint_of(model: ModelArgs) -> str:
    """Directory or hub id of `model`."""
    if model.checkpoint != EMBEDDED:
        return model.checkpoint
    assert model.type is not None, "settings see to it"
    log.warning("model %s is the embedded demo: a small English voice, not Qwen's", model.name)
    return str(_CHECKPOINTS / f"demo-{model.type.replace('_', '-')}")

"""The checkpoint of a model, as its settings name it."""

import logging

from deployments.settings import EMBEDDED, ModelArgs
from qwen_tts.embedded import embedded_checkpoint

log = logging.getLogger("ray.serve")


def checkpoint_of(model: ModelArgs) -> str:
    """Return the directory or hub id of `model`. Raises CheckpointError."""
    if model.checkpoint != EMBEDDED:
        return model.checkpoint
    assert model.type is not None, "ModelArgs refuses an embedded model without a type"
    log.warning("model %s is the embedded demo: a small English voice, not Qwen's", model.name)
    return str(embedded_checkpoint(model.type))

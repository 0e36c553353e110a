"""The checkpoint of a model, as its settings name it, and the facts in it."""

import logging
from pathlib import Path

from deployments.settings import EMBEDDED, ModelArgs
from deployments.wire.messages import ModelCard
from qwen_tts.checkpoint import CODEC_DIRECTORY
from qwen_tts.config import read_codec_config, read_generation_defaults, read_model_config
from qwen_tts.embedded import embedded_checkpoint

log = logging.getLogger("ray.serve")


def checkpoint_of(model: ModelArgs) -> str:
    """Return the directory or hub id of `model`. Raises CheckpointError."""
    if model.checkpoint != EMBEDDED:
        return model.checkpoint
    assert model.type is not None, "ModelArgs refuses an embedded model without a type"
    log.warning("model %s is the embedded demo: a small English voice, not Qwen's", model.name)
    return str(embedded_checkpoint(model.type))


def card_of(model: ModelArgs, directory: Path) -> ModelCard:
    """Return the card of `model` from its checkpoint in `directory`. Raises CheckpointError."""
    config = read_model_config(directory)
    return ModelCard(
        name=model.name,
        model_type=config.tts_model_type,
        speakers=config.speakers,
        languages=config.languages,
        defaults=read_generation_defaults(directory),
        sample_rate_hz=read_codec_config(directory / CODEC_DIRECTORY).output_sample_rate,
        utterance_characters=model.utterance_characters,
    )

"""Which model speaks a request: the one it names, or the one whose type its voice needs."""

from collections.abc import Mapping

from deployments.errors import HttpError
from deployments.wire.messages import ModelCard
from qwen_tts.config import ModelType

# "Choose for me": ours, and the names that OpenAI's clients send.
AUTO_MODELS = frozenset(
    {"auto", "tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-03-20", "gpt-4o-mini-tts-2025-12-15"}
)

_KINDS: dict[ModelType, str] = {
    "base": "cloning a voice",
    "custom_voice": "a built-in voice",
    "voice_design": "a voice made from its description",
}


def is_auto(model: str | None, cards: Mapping[str, ModelCard]) -> bool:
    """A model loaded under one of these names, or of ElevenLabs' ones, is meant by its name."""
    return model is None or ((model in AUTO_MODELS or model.startswith("eleven_")) and model not in cards)


def named_model(model: str, cards: Mapping[str, ModelCard]) -> ModelCard:
    """Raises HttpError 404."""
    if model not in cards:
        message = f"model {model!r} does not exist; models: {', '.join(cards)}, or auto"
        raise HttpError(404, message, param="model", code="model_not_found")
    return cards[model]


def models_of(kind: ModelType, cards: Mapping[str, ModelCard]) -> list[ModelCard]:
    return [card for card in cards.values() if card.model_type == kind]


def model_of(kind: ModelType, cards: Mapping[str, ModelCard]) -> ModelCard:
    """The first model of that type. Raises HttpError saying which one would be needed."""
    if found := models_of(kind, cards):
        return found[0]
    message = f"{_KINDS[kind]} needs a model of type {kind!r}, and none is loaded; loaded: " + ", ".join(
        f"{card.name} ({card.model_type})" for card in cards.values()
    )
    raise HttpError(400, message, param="model", code="model_type_not_loaded")


def require(card: ModelCard, kind: ModelType, cards: Mapping[str, ModelCard], param: str) -> ModelCard:
    """`card`, if it is of that type. Raises HttpError naming the models that are."""
    if card.model_type == kind:
        return card
    able = ", ".join(other.name for other in models_of(kind, cards)) or "none is loaded"
    message = (
        f"model {card.name} is of type {card.model_type!r}; {_KINDS[kind]} needs one of type {kind!r} ({able}), "
        "or leave model out"
    )
    raise HttpError(400, message, param=param, code="voice_not_supported")

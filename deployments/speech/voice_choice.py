"""Whose voice a speech request asks for, and which model speaks it.

a reference (ref_audio or speaker_embedding) -> a Base model; a built-in speaker's name -> a CustomVoice model; a stored
voice's name -> a Base model; a description in `instructions` and no voice -> a VoiceDesign model. A model that the
request names must be of that type.
"""

from collections.abc import Mapping

import numpy as np

from deployments.access.caller import Caller
from deployments.errors import HttpError
from deployments.speech.utterance import TASK_TYPES, Utterance
from deployments.voices.library import VoiceLibrary
from deployments.voices.store import VoiceNotFound
from deployments.wire.messages import ModelCard
from deployments.wire.models import is_auto, model_of, models_of, named_model, require
from qwen_tts.config import ModelType
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import ClonedVoice, CustomVoice, DesignedVoice, Voice
from qwen_tts.voice import VoicePrompt

_NAMES_LISTED = 30

_NEEDED: tuple[tuple[ModelType, str], ...] = (("custom_voice", "built-in"), ("base", "stored"))

Cards = Mapping[str, ModelCard]


async def choose_voice(caller: Caller, body: Utterance, cards: Cards, library: VoiceLibrary) -> tuple[ModelCard, Voice]:
    """Raises HttpError, InvalidRequest or VoiceNotFound, naming what could be asked for."""
    card, voice = await _choose(caller, body, cards, library)
    if body.task_type is not None and TASK_TYPES[body.task_type] != card.model_type:
        meant = next(task for task, kind in TASK_TYPES.items() if kind == card.model_type)
        message = (
            f"task_type is {body.task_type}, and what is asked for is {meant} (model {card.name}); or leave it out"
        )
        raise HttpError(400, message, param="task_type", code="conflicting_fields")
    return card, voice


async def _choose(caller: Caller, body: Utterance, cards: Cards, library: VoiceLibrary) -> tuple[ModelCard, Voice]:
    named = None if is_auto(body.model, cards) else named_model(str(body.model), cards)
    _check_fields(body)
    if body.ref_audio is not None or body.speaker_embedding is not None:
        card = _base(named, cards, "ref_audio" if body.ref_audio is not None else "speaker_embedding")
        _refuse_instructions(body)
        return card, ClonedVoice(await _reference(body, card, library))
    if body.voice_name is not None:
        name = library.aliases.get(body.voice_name.lower(), body.voice_name)
        return await _voice_of_name(caller, name, body, named, cards, library)
    if named is not None and named.model_type != "voice_design":
        raise _voice_missing(named, await _names(caller, cards, library))
    if not (body.instructions or "").strip():
        if named is not None:
            message = f"model {named.name} designs a voice from its description: give one in instructions"
            raise InvalidRequest(message, "instructions", "missing_field")
        names = await _names(caller, cards, library)
        message = f"voice is missing: name one ({names}), describe one in instructions, or send ref_audio"
        raise InvalidRequest(message, "voice", "missing_field")
    return named or model_of("voice_design", cards), DesignedVoice(body.instructions or "")


async def _voice_of_name(
    caller: Caller, name: str, body: Utterance, named: ModelCard | None, cards: Cards, library: VoiceLibrary
) -> tuple[ModelCard, Voice]:
    if named is not None and named.model_type == "voice_design":
        message = f"model {named.name} has no voices by name; leave voice out and describe one in instructions"
        raise InvalidRequest(message, "voice", "voice_not_supported")
    owners = [card for card in models_of("custom_voice", cards) if name.lower() in map(str.lower, card.speakers)]
    if named in owners or (named is None and owners):
        return named or owners[0], CustomVoice(name, body.instructions or "")
    try:
        if not models_of("base", cards if named is None else {named.name: named}):
            await library.get(caller, name)  # a voice nobody has is unknown, whatever is loaded
        card = _base(named, cards, "voice")
        prompt = await library.stored_prompt(caller, name, card.name)
    except VoiceNotFound:
        if owners and named is not None:
            message = f"{name!r} is a built-in voice of model {owners[0].name}, not of {named.name}; or leave model out"
            raise InvalidRequest(message, "voice", "voice_not_supported") from None
        message = f"voice {name!r} is unknown; voices: {await _names(caller, cards, library)}"
        for kind, voices in _NEEDED:
            if not models_of(kind, cards):
                message += f"; {voices} voices need a model of type {kind!r}, and none is loaded"
        raise InvalidRequest(message, "voice", "unknown_voice") from None
    _refuse_instructions(body)
    return card, ClonedVoice(prompt)


async def _reference(body: Utterance, card: ModelCard, library: VoiceLibrary) -> VoicePrompt:
    if body.ref_audio is None:
        return VoicePrompt(np.array(body.speaker_embedding, dtype=np.float32))
    if not body.x_vector_only_mode and not (body.ref_text or "").strip():
        message = "ref_text is missing: give the words spoken in ref_audio, or set x_vector_only_mode to clone without"
        raise InvalidRequest(message, "ref_text", "missing_field")
    return await library.inline_prompt(body.ref_audio, None if body.x_vector_only_mode else body.ref_text, card.name)


def _base(named: ModelCard | None, cards: Cards, param: str) -> ModelCard:
    return model_of("base", cards) if named is None else require(named, "base", cards, param)


def _check_fields(body: Utterance) -> None:
    """Fields that contradict each other, or that would be passed over in silence."""
    given = [name for name in ("voice", "ref_audio", "speaker_embedding") if getattr(body, name) is not None]
    if len(given) > 1:
        raise HttpError(400, f"{' and '.join(given)} exclude each other", param=given[1], code="conflicting_fields")
    if body.ref_audio is None:
        unused = {"ref_text": body.ref_text, "x_vector_only_mode": body.x_vector_only_mode}
        if body.speaker_embedding is not None:  # which is one
            del unused["x_vector_only_mode"]
        for name, value in unused.items():
            if value:
                raise HttpError(400, f"{name} belongs to ref_audio, which is missing", param=name, code="missing_field")
    elif body.x_vector_only_mode and body.ref_text is not None:
        message = "ref_text is not used with x_vector_only_mode; leave one of them out"
        raise HttpError(400, message, param="ref_text", code="conflicting_fields")


def _refuse_instructions(body: Utterance) -> None:
    if body.instructions:
        message = "a cloned voice follows no instructions; leave them out, or use a built-in voice"
        raise HttpError(400, message, param="instructions", code="instructions_not_supported")


def _voice_missing(card: ModelCard, names: str) -> InvalidRequest:
    if card.model_type == "base":
        message = (
            f"model {card.name} clones a voice: send voice (a stored one of {names}), ref_audio or speaker_embedding"
        )
        return InvalidRequest(message, "voice", "missing_field")
    message = f"voice is missing; voices of model {card.name}: {', '.join(card.speakers)}"
    return InvalidRequest(message, "voice", "missing_field")


async def _names(caller: Caller, cards: Cards, library: VoiceLibrary) -> str:
    """What a caller may write as voice, for a message."""
    built_in = sorted({speaker for card in cards.values() for speaker in card.speakers})
    names = [*built_in, *library.aliases, *await library.names(caller)]
    more = f" and {len(names) - _NAMES_LISTED} more" if len(names) > _NAMES_LISTED else ""
    return ", ".join(names[:_NAMES_LISTED]) + more or "none yet"

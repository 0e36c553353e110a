"""The voice that a request asks for, and the model that speaks it.

    a reference (ref_audio or speaker_embedding)      a Base model
    the name of a built-in speaker                    a CustomVoice model
    the name of a stored voice                        a Base model
    a description in `instructions`, and no voice     a VoiceDesign model

A model that the request names must be of that type.
"""

import numpy as np

from deployments.access.caller import Caller
from deployments.errors import NotFound
from deployments.speech.fields import SpeechFields
from deployments.voices.library import VoiceLibrary
from deployments.voices.record import VoiceName
from deployments.wire.messages import ModelCard
from deployments.wire.models import Models
from qwen_tts.config import ModelType
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import ClonedVoice, CustomVoice, DesignedVoice, Voice
from qwen_tts.voice import VoicePrompt

_NAMES_LISTED = 30

_NEEDED: tuple[tuple[ModelType, str], ...] = (("custom_voice", "built-in"), ("base", "stored"))


class VoiceChoice:
    """The choice of one ingress replica among the loaded models and the voices of its library."""

    def __init__(self, models: Models, library: VoiceLibrary) -> None:
        self._models = models
        self._library = library

    async def choose(self, caller: Caller, fields: SpeechFields) -> tuple[ModelCard, Voice]:
        """Return the model that speaks and the voice. Raises InvalidRequest naming the field and the valid choices."""
        models = self._models
        named = None if models.is_auto(fields.model) else models.named(str(fields.model))
        _check_conflicts(fields)
        if fields.ref_audio is not None or fields.speaker_embedding is not None:
            card = self._base(named, "ref_audio" if fields.ref_audio is not None else "speaker_embedding")
            _refuse_instructions(fields)
            return card, ClonedVoice(await self._reference(fields, card))
        if fields.voice is not None:
            return await self._of_name(caller, self._library.named(fields.voice), fields, named)
        if named is not None and named.model_type != "voice_design":
            raise _voice_missing(named, await self._names(caller))
        if not (fields.instructions or "").strip():
            if named is not None:
                message = f"model {named.name} designs a voice from its description: give one in instructions"
                raise InvalidRequest(message, "instructions", "missing_field")
            names = await self._names(caller)
            message = f"voice is missing: name one ({names}), describe one in instructions, or send ref_audio"
            raise InvalidRequest(message, "voice", "missing_field")
        return named or models.first("voice_design"), DesignedVoice(fields.instructions or "")

    async def _of_name(
        self, caller: Caller, name: VoiceName, fields: SpeechFields, named: ModelCard | None
    ) -> tuple[ModelCard, Voice]:
        if named is not None and named.model_type == "voice_design":
            message = f"model {named.name} has no voices by name; omit voice and describe one in instructions"
            raise InvalidRequest(message, "voice", "voice_not_supported")
        models = self._models
        owners = [card for card in models.of("custom_voice") if name in map(VoiceName, card.speakers)]
        if named in owners or (named is None and owners):
            return named or owners[0], CustomVoice(name.text, fields.instructions or "")
        try:
            if not (models.of("base") if named is None else named.model_type == "base"):
                await self._library.get(caller, name.text)  # a voice that does not exist is unknown, whatever is loaded
            card = self._base(named, "voice")
            prompt = await self._library.stored_prompt(caller, name.text, card.name)
        except NotFound:
            if owners and named is not None:
                message = (
                    f"{name.text!r} is a built-in voice of model {owners[0].name}, not of {named.name}; name that "
                    "model or omit model"
                )
                raise InvalidRequest(message, "voice", "voice_not_supported") from None
            message = f"voice {name.text!r} is unknown; voices: {await self._names(caller)}"
            for kind, voices in _NEEDED:
                if not models.of(kind):
                    message += f"; {voices} voices need a model of type {kind!r}, and none is loaded"
            raise InvalidRequest(message, "voice", "unknown_voice") from None
        _refuse_instructions(fields)
        return card, ClonedVoice(prompt)

    async def _reference(self, fields: SpeechFields, card: ModelCard) -> VoicePrompt:
        if fields.ref_audio is None:
            return VoicePrompt(np.array(fields.speaker_embedding, dtype=np.float32))
        if not fields.x_vector_only_mode and not (fields.ref_text or "").strip():
            message = "ref_text is missing: send the words spoken in ref_audio, or set x_vector_only_mode to true"
            raise InvalidRequest(message, "ref_text", "missing_field")
        words = None if fields.x_vector_only_mode else fields.ref_text
        return await self._library.inline_prompt(fields.ref_audio, words, card.name)

    def _base(self, named: ModelCard | None, param: str) -> ModelCard:
        return self._models.first("base") if named is None else self._models.require(named, "base", param)

    async def _names(self, caller: Caller) -> str:
        """Return the names that a caller may send as voice, for a message."""
        built_in = sorted({speaker for card in self._models for speaker in card.speakers})
        names = [*built_in, *self._library.aliases, *await self._library.names(caller)]
        more = f" and {len(names) - _NAMES_LISTED} more" if len(names) > _NAMES_LISTED else ""
        return ", ".join(names[:_NAMES_LISTED]) + more or "none yet"


def _check_conflicts(fields: SpeechFields) -> None:
    """Refuse fields that contradict each other, and fields that would have no effect."""
    given = [name for name in ("voice", "ref_audio", "speaker_embedding") if getattr(fields, name) is not None]
    if len(given) > 1:
        raise InvalidRequest(f"{' and '.join(given)} exclude each other", given[1], "conflicting_fields")
    if fields.ref_audio is None:
        unused = {"ref_text": fields.ref_text, "x_vector_only_mode": fields.x_vector_only_mode}
        if fields.speaker_embedding is not None:  # it is an x-vector
            del unused["x_vector_only_mode"]
        for name, value in unused.items():
            if value:
                raise InvalidRequest(f"{name} belongs to ref_audio, which is missing", name, "missing_field")
    elif fields.x_vector_only_mode and fields.ref_text is not None:
        message = "ref_text is not used with x_vector_only_mode; omit one of them"
        raise InvalidRequest(message, "ref_text", "conflicting_fields")


def _refuse_instructions(fields: SpeechFields) -> None:
    if fields.instructions:
        message = "instructions are not supported for a cloned voice; omit instructions, or use a built-in voice"
        raise InvalidRequest(message, "instructions", "instructions_not_supported")


def _voice_missing(card: ModelCard, names: str) -> InvalidRequest:
    if card.model_type == "base":
        message = (
            f"model {card.name} clones a voice: send voice (a stored one of {names}), ref_audio or speaker_embedding"
        )
        return InvalidRequest(message, "voice", "missing_field")
    message = f"voice is missing; voices of model {card.name}: {', '.join(card.speakers)}"
    return InvalidRequest(message, "voice", "missing_field")

"""POST /v1/audio/voices and /v1/audio/voice_consents: recordings in multipart forms, with their fields."""

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.http.forms import form_fault, parse_form

# Fields of the form: OpenAI's (type, name, audio_sample, consent) and vLLM-Omni's, and overwrite.
_TEXTS = ("name", "consent", "ref_text", "speaker_description", "x_vector_only_mode", "overwrite", "type")
_CONSENT_TEXTS = ("name", "language")
_MAX_CONSENT_CHARACTERS = 1000
_MAX_LABEL_CHARACTERS = 256


@dataclass(frozen=True)
class Upload:
    """A voice to store. Without `ref_text` it is cloned from the speaker embedding alone."""

    name: str
    audio: bytes
    consent: str
    ref_text: str | None
    description: str | None
    overwrite: bool


@dataclass(frozen=True)
class ConsentUpload:
    """A recorded consent to store. `language` is a BCP 47 tag, which is not checked."""

    name: str
    language: str
    audio: bytes


async def parse_upload(content_type: str, body: bytes, max_audio_bytes: int) -> Upload:
    """Return the voice in a form. Raises InvalidRequest naming the field at fault."""
    form = await parse_form(content_type, body, texts=_TEXTS, audio="audio_sample", max_audio_bytes=max_audio_bytes)
    texts = form.texts
    if (kind := texts.get("type", "audio_sample")) != "audio_sample":
        message = f"type {kind!r} is not supported; send audio_sample, or use POST /v1/audio/voices/design"
        raise form_fault("type", message)
    for name in ("name", "consent"):
        if not texts.get(name, "").strip():
            what = "the speaker's consent to being cloned, or its id" if name == "consent" else "a name for the voice"
            raise form_fault(name, f"{name} is missing: send {what}", "missing_field")
    if len(texts["consent"]) > _MAX_CONSENT_CHARACTERS:
        raise form_fault("consent", f"consent is longer than {_MAX_CONSENT_CHARACTERS} characters")
    ref_text = texts.get("ref_text") or None
    if ref_text is not None and not ref_text.strip():
        raise form_fault("ref_text", "ref_text is blank: send the words spoken in audio_sample, or omit it")
    if ref_text is not None and _flag(texts, "x_vector_only_mode"):
        message = "ref_text is not used with x_vector_only_mode; omit one of them"
        raise form_fault("ref_text", message, "conflicting_fields")
    return Upload(
        name=texts["name"],
        audio=form.audio,
        consent=texts["consent"],
        ref_text=ref_text,
        description=texts.get("speaker_description") or None,
        overwrite=_flag(texts, "overwrite"),
    )


async def parse_consent(content_type: str, body: bytes, max_audio_bytes: int) -> ConsentUpload:
    """Return the consent in a form. Raises InvalidRequest naming the field at fault."""
    form = await parse_form(
        content_type, body, texts=_CONSENT_TEXTS, audio="recording", max_audio_bytes=max_audio_bytes
    )
    for name in _CONSENT_TEXTS:
        check_label(name, form.texts.get(name, ""))
    return ConsentUpload(form.texts["name"], form.texts["language"], form.audio)


def check_label(name: str, text: str) -> None:
    """Raise InvalidRequest if the text of the field `name` is blank or too long."""
    if not text.strip():
        raise form_fault(name, f"{name} is missing", "missing_field")
    if len(text) > _MAX_LABEL_CHARACTERS:
        raise form_fault(name, f"{name} is longer than {_MAX_LABEL_CHARACTERS} characters")


def _flag(texts: Mapping[str, str], name: str) -> bool:
    value = texts.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise form_fault(name, f"{name} is {value!r}; it must be true or false")
    return value in ("true", "1")

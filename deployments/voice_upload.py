"""POST /v1/audio/voices: a recording in a multipart form, checked field by field."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from deployments.http_errors import HttpError

# Fields of the form: OpenAI's (type, name, audio_sample, consent) and vLLM-Omni's, and overwrite.
_TEXTS = ("name", "consent", "ref_text", "speaker_description", "x_vector_only_mode", "overwrite", "type")
_AUDIO = "audio_sample"
_MAX_TEXT_BYTES = 16_384
_MAX_CONSENT_CHARACTERS = 1000


@dataclass(frozen=True)
class Upload:
    """A voice to store. Without `ref_text` it is cloned from the speaker embedding alone."""

    name: str
    audio: bytes
    consent: str
    ref_text: str | None
    description: str | None
    overwrite: bool


async def parse_upload(content_type: str, body: bytes, max_audio_bytes: int) -> Upload:
    """Raises HttpError naming the field at fault."""
    texts, audio = await _fields(content_type, body)
    if (kind := texts.get("type", "audio_sample")) != "audio_sample":
        raise _fault("type", f"type {kind!r} is not offered here; send audio_sample, or POST /v1/audio/voices/design")
    for name in ("name", "consent"):
        if not texts.get(name, "").strip():
            what = "the speaker's consent to being cloned, or its id" if name == "consent" else "what to call the voice"
            raise _fault(name, f"{name} is missing: give {what}", "missing_field")
    if len(texts["consent"]) > _MAX_CONSENT_CHARACTERS:
        raise _fault("consent", f"consent is longer than {_MAX_CONSENT_CHARACTERS} characters")
    if audio is None:
        raise _fault(_AUDIO, "audio_sample is missing: send the recording as a file", "missing_field")
    content = await audio.read()
    if not content:
        raise _fault(_AUDIO, "audio_sample is empty", "invalid_audio")
    if len(content) > max_audio_bytes:
        message = f"audio_sample has {len(content)} bytes; the limit is {max_audio_bytes}"
        raise HttpError(413, message, param=_AUDIO, code="audio_too_large")
    ref_text = texts.get("ref_text") or None
    if ref_text is not None and not ref_text.strip():
        raise _fault("ref_text", "ref_text is blank: give the words spoken in audio_sample, or leave it out")
    if ref_text is not None and _flag(texts, "x_vector_only_mode"):
        message = "ref_text is not used with x_vector_only_mode; leave one of them out"
        raise _fault("ref_text", message, "conflicting_fields")
    return Upload(
        name=texts["name"],
        audio=content,
        consent=texts["consent"],
        ref_text=ref_text,
        description=texts.get("speaker_description") or None,
        overwrite=_flag(texts, "overwrite"),
    )


async def _fields(content_type: str, body: bytes) -> tuple[dict[str, str], UploadFile | None]:
    if b"charset" in parse_options_header(content_type)[1]:
        raise HttpError(400, "the form's charset must be left out: it is UTF-8", code="invalid_form")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers({"content-type": content_type}),
        stream(),
        max_files=1,
        max_fields=len(_TEXTS),
        max_part_size=_MAX_TEXT_BYTES,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it is malformed"
        raise HttpError(400, f"the form cannot be read: {reason}", code="invalid_form") from None
    texts: dict[str, str] = {}
    audio: UploadFile | None = None
    for name, value in form.multi_items():
        if name == _AUDIO and isinstance(value, UploadFile):
            audio = value
        elif name in _TEXTS and isinstance(value, str) and name not in texts:
            texts[name] = value
        elif name in (_AUDIO, *_TEXTS):
            raise _fault(name, f"{name} must be sent once, {'as a file' if name == _AUDIO else 'as text'}")
        else:
            names = ", ".join((_AUDIO, *_TEXTS))
            raise HttpError(400, f"unknown field {name!r}; known fields: {names}", param=name, code="unknown_field")
    return texts, audio


def _flag(texts: dict[str, str], name: str) -> bool:
    value = texts.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise _fault(name, f"{name} is {value!r}; it must be true or false")
    return value in ("true", "1")


def _fault(param: str, message: str, code: str = "invalid_value") -> HttpError:
    return HttpError(400, message, param=param, code=code)

"""A multipart form with one recording in it, checked field by field."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from qwen_tts.errors import InvalidRequest

_MAX_TEXT_BYTES = 16_384


@dataclass(frozen=True)
class UploadForm:
    """The texts that were sent, by name, and the recording."""

    texts: Mapping[str, str]
    audio: bytes


async def parse_form(
    content_type: str, body: bytes, *, texts: tuple[str, ...], audio: str, max_audio_bytes: int
) -> UploadForm:
    """Parse a form that may have the fields `texts` and must have the file `audio`. Raises InvalidRequest."""
    found, file = await _fields(content_type, body, texts, audio)
    if file is None:
        raise form_fault(audio, f"{audio} is missing: send the recording as a file", "missing_field")
    content = await file.read()
    if not content:
        raise form_fault(audio, f"{audio} is empty", "invalid_audio")
    if len(content) > max_audio_bytes:
        message = f"{audio} has {len(content)} bytes; the limit is {max_audio_bytes}"
        raise InvalidRequest(message, audio, "audio_too_large")
    return UploadForm(found, content)


def form_fault(param: str, message: str, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(message, param, code)


async def _fields(
    content_type: str, body: bytes, known: tuple[str, ...], audio: str
) -> tuple[dict[str, str], UploadFile | None]:
    if b"charset" in parse_options_header(content_type)[1]:
        raise InvalidRequest("a charset of the form is not supported; omit it and send UTF-8", None, "invalid_form")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers({"content-type": content_type}),
        stream(),
        max_files=1,
        max_fields=len(known),
        max_part_size=_MAX_TEXT_BYTES,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it is malformed"
        raise InvalidRequest(f"the form cannot be read: {reason}", None, "invalid_form") from None
    texts: dict[str, str] = {}
    file: UploadFile | None = None
    for name, value in form.multi_items():
        if name == audio and isinstance(value, UploadFile):
            file = value
        elif name in known and isinstance(value, str) and name not in texts:
            texts[name] = value
        elif name in (audio, *known):
            raise form_fault(name, f"{name} must be sent once, {'as a file' if name == audio else 'as text'}")
        else:
            names = ", ".join((audio, *known))
            raise InvalidRequest(f"unknown field {name!r}; known fields: {names}", name, "unknown_field")
    return texts, file

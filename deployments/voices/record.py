"""What is known of a cloned voice, and how one may be named."""

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from qwen_tts.errors import InvalidRequest

Source = Literal["upload", "design"]
VOICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HEX = re.compile(r"[0-9a-f]{1,64}")


def check_voice_name(name: str) -> None:
    """Raises InvalidRequest naming the rule. A name that passes is safe as part of a path, also in lower case."""
    if not VOICE_NAME.fullmatch(name):
        rule = "1 to 64 ASCII letters, digits, '_', '.' or '-', beginning with a letter or digit"
        raise InvalidRequest(f"a voice's name must be {rule}", "name", "invalid_name")
    if name.lower().startswith("preview_"):
        raise InvalidRequest("a voice's name must not begin with 'preview_'", "name", "invalid_name")


def check_hex(part: str) -> None:
    """Upload ids and model fingerprints, which name files. Raises ValueError."""
    if not HEX.fullmatch(part):
        raise ValueError(f"not lowercase hex: {part!r}")


@dataclass(frozen=True)
class VoiceRecord:
    """What is known of a voice. Raises InvalidRequest for a bad name, ValueError for a bad upload id.

    `created_at` is in unix seconds, `audio_bytes` the size of the upload. Without `ref_text` the voice is a speaker
    embedding only. `owner` is the name of the API key that stored it, None where there was none.
    """

    name: str
    created_at: int
    upload_id: str
    mime_type: str
    audio_bytes: int
    consent: str
    ref_text: str | None
    description: str | None
    source: Source
    owner: str | None = None

    def __post_init__(self) -> None:
        check_voice_name(self.name)
        check_hex(self.upload_id)

    def to_json(self) -> bytes:
        return _RECORD.dump_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> "VoiceRecord":
        """Raises ValueError when malformed. Unknown keys are ignored: a newer release may write into this library."""
        return _RECORD.validate_json(data, strict=True)


_RECORD = TypeAdapter(VoiceRecord)

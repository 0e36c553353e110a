"""The record of a stored voice, and the rules of its name."""

import re
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter

from qwen_tts.errors import InvalidRequest

Source = Literal["upload", "design"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HEX = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True)
class VoiceName:
    """The name of a voice, as a caller wrote it. Names that differ only in the case of their letters are equal.

    `key` is the folded name: records, aliases and built-in speakers are compared and stored by it.
    """

    text: str = field(compare=False)
    key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.text.lower())

    @property
    def may_be_stored(self) -> bool:
        """Return whether a stored voice can have this name. `key` is then safe as part of a path."""
        return _NAME.fullmatch(self.text) is not None and not self.key.startswith("preview_")

    def check(self) -> None:
        """Raise InvalidRequest with the rule unless a stored voice can have this name."""
        if not _NAME.fullmatch(self.text):
            rule = "1 to 64 ASCII letters, digits, '_', '.' or '-', beginning with a letter or digit"
            raise InvalidRequest(f"a voice's name must be {rule}", "name", "invalid_name")
        if not self.may_be_stored:
            raise InvalidRequest("a voice's name must not begin with 'preview_'", "name", "invalid_name")


def check_hex(part: str) -> None:
    """Raise ValueError unless `part`, an upload id or a model fingerprint, is safe as part of a path."""
    if not HEX.fullmatch(part):
        raise ValueError(f"not lowercase hex: {part!r}")


@dataclass(frozen=True)
class VoiceRecord:
    """The facts about a stored voice. Raises InvalidRequest for a bad name, ValueError for a bad upload id.

    `created_at` is in unix seconds, `audio_bytes` the size of the upload. Without `ref_text` the voice is a speaker
    embedding only. `owner` is the name of the API key that stored the voice, or None if it was stored without a key.
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
        VoiceName(self.name).check()
        check_hex(self.upload_id)

    def to_json(self) -> bytes:
        return _RECORD.dump_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> "VoiceRecord":
        """Return the record in `data`. Raises ValueError if it is malformed.

        Unknown keys are ignored: a newer release may write into this library.
        """
        return _RECORD.validate_json(data, strict=True)


_RECORD = TypeAdapter(VoiceRecord)

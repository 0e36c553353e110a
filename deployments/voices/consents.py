"""Recordings in which speakers consent to being cloned, on the storage of the voices.

consents/{id}.audio is the recording; consents/{id}.json, written last, what is known of it.
"""

import re
import secrets
import time
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from deployments.access.caller import Caller
from deployments.errors import Full, NotFound
from deployments.voices.files import SharedFiles

# What begins like this in a voice's `consent` is an id; anything else is the consent in words.
CONSENT_PREFIX = "cons_"
# The first 8 digits are the time of creation in unix seconds, so that ids in order are consents in order.
_CONSENT_ID = re.compile(rf"{CONSENT_PREFIX}[0-9a-f]{{32}}")


@dataclass(frozen=True)
class ConsentRecord:
    """`language` is the tag the caller gave; `created_at` is in unix seconds. `owner` is the name of the API key that
    stored it, None where there was none."""

    id: str
    name: str
    language: str
    created_at: int
    mime_type: str
    audio_bytes: int
    owner: str | None = None


class ConsentStore:
    """A replica's view of the consents at `url`, at most `limit` of them. Blocks on storage; threads may call.

    A consent that a caller does not see is not there.
    """

    def __init__(self, url: str, *, limit: int) -> None:
        self._files = SharedFiles(url)
        self._limit = limit

    def add(self, caller: Caller, name: str, language: str, audio: bytes, mime_type: str) -> ConsentRecord:
        """Raises Full."""
        if len(self._ids()) >= self._limit:
            raise Full("consent", self._limit)
        created_at = int(time.time())
        record = ConsentRecord(
            f"{CONSENT_PREFIX}{created_at:08x}{secrets.token_hex(12)}",
            name,
            language,
            created_at,
            mime_type,
            len(audio),
            caller.name,
        )
        self._files.put(_path(record.id, "audio"), audio)
        self._files.put(_path(record.id, "json"), _RECORD.dump_json(record))
        return record

    def get(self, caller: Caller, consent_id: str) -> ConsentRecord:
        """Raises NotFound."""
        if not _CONSENT_ID.fullmatch(consent_id):
            raise NotFound("consent", consent_id)
        try:
            record = _RECORD.validate_json(self._files.read(_path(consent_id, "json")))
        except FileNotFoundError:
            raise NotFound("consent", consent_id) from None
        if not caller.sees(record.owner):
            raise NotFound("consent", consent_id)
        return record

    def page(self, caller: Caller, after: str | None, limit: int) -> tuple[list[ConsentRecord], bool]:
        """The latest ones, or those before `after`; and whether there are more."""
        ids = [id_ for id_ in self._ids() if after is None or id_ < after]
        if caller.all_voices:  # without reading every record
            return self._read(ids[:limit]), len(ids) > limit
        seen = [record for record in self._read(ids) if caller.sees(record.owner)]
        return seen[:limit], len(seen) > limit

    def rename(self, caller: Caller, consent_id: str, name: str) -> ConsentRecord:
        """Raises NotFound."""
        record = replace(self.get(caller, consent_id), name=name)
        self._files.put(_path(consent_id, "json"), _RECORD.dump_json(record))
        return record

    def delete(self, caller: Caller, consent_id: str) -> None:
        """Raises NotFound. Voices that name it stay."""
        self.get(caller, consent_id)
        self._files.discard(_path(consent_id, "json"))
        self._files.discard(_path(consent_id, "audio"))

    def _read(self, ids: list[str]) -> list[ConsentRecord]:
        """Those of these that are still there."""
        found = self._files.read_all([_path(id_, "json") for id_ in ids])
        return [_RECORD.validate_json(data) for data in found if data is not None]

    def _ids(self) -> list[str]:
        """Latest first."""
        stems = (leaf.removesuffix(".json") for leaf in self._files.names("consents") if leaf.endswith(".json"))
        return sorted((stem for stem in stems if _CONSENT_ID.fullmatch(stem)), reverse=True)


_RECORD = TypeAdapter(ConsentRecord)


def _path(consent_id: str, kind: str) -> str:
    return f"consents/{consent_id}.{kind}"

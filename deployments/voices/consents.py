"""Recordings in which speakers consent to being cloned, on the storage of the voices."""

import time
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from deployments.access.caller import Caller
from deployments.errors import Full, NotFound
from deployments.voices.files import SharedFiles
from deployments.voices.timed_records import TimedRecords

# A voice's `consent` that begins with this is an id. Any other is the consent in words.
CONSENT_PREFIX = "cons_"


@dataclass(frozen=True)
class ConsentRecord:
    """The facts about a recorded consent. `language` is the caller's tag, `created_at` is in unix seconds.

    `owner` is the name of the API key that stored the consent, or None if it was stored without a key.
    """

    id: str
    name: str
    language: str
    created_at: int
    mime_type: str
    audio_bytes: int
    owner: str | None = None


class ConsentStore:
    """The consents stored at `url`, at most `limit` of them. Methods block on storage and may be called in any thread.

    A consent that a caller does not see does not exist for that caller.
    """

    def __init__(self, url: str, *, limit: int) -> None:
        self._consents = TimedRecords(SharedFiles(url), what="consent", prefix=CONSENT_PREFIX, blob_kind="audio")
        self.limit = limit

    def add(self, caller: Caller, name: str, language: str, audio: bytes, mime_type: str) -> ConsentRecord:
        """Store a consent. Raises Full."""
        if len(self._consents.ids()) >= self.limit:
            raise Full("consent", self.limit)
        created_at = int(time.time())
        consent_id = self._consents.new_id(created_at)
        record = ConsentRecord(consent_id, name, language, created_at, mime_type, len(audio), caller.name)
        self._consents.add(consent_id, _RECORD.dump_json(record), audio)
        return record

    def get(self, caller: Caller, consent_id: str) -> ConsentRecord:
        """Return a consent. Raises NotFound."""
        record = _RECORD.validate_json(self._consents.record(consent_id))
        if not caller.sees(record.owner):
            raise NotFound("consent", consent_id)
        return record

    def page(self, caller: Caller, after: str | None, limit: int) -> tuple[list[ConsentRecord], bool]:
        """Return up to `limit` consents, latest first and older than `after`, and whether there are more."""
        ids = [consent_id for consent_id in self._consents.ids() if after is None or consent_id < after]
        if caller.all_voices:  # without reading every record
            return self._read(ids[:limit]), len(ids) > limit
        seen = [record for record in self._read(ids) if caller.sees(record.owner)]
        return seen[:limit], len(seen) > limit

    def rename(self, caller: Caller, consent_id: str, name: str) -> ConsentRecord:
        """Change the label of a consent. Raises NotFound."""
        record = replace(self.get(caller, consent_id), name=name)
        self._consents.put(consent_id, _RECORD.dump_json(record))
        return record

    def delete(self, caller: Caller, consent_id: str) -> None:
        """Delete a consent. Voices that name it stay. Raises NotFound."""
        self.get(caller, consent_id)
        self._consents.delete(consent_id)

    def _read(self, ids: list[str]) -> list[ConsentRecord]:
        return [_RECORD.validate_json(data) for data in self._consents.records(ids)]


_RECORD = TypeAdapter(ConsentRecord)

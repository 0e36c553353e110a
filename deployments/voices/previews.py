"""Designed voices that wait to be stored: the audio of each, and the fields that a stored voice gets."""

import json
import time
from collections.abc import Mapping
from typing import Any

from deployments.errors import NotFound
from deployments.voices.files import SharedFiles
from deployments.voices.timed_records import TimedRecords


class PreviewStore:
    """The previews stored at `url`: the latest `limit` of them, each kept for `ttl_s` seconds.

    Methods block on storage and may be called in any thread.
    """

    def __init__(self, url: str, *, ttl_s: float = 3600, limit: int = 200) -> None:
        self._previews = TimedRecords(SharedFiles(url), what="preview", prefix="preview_", blob_kind="wav")
        self._ttl_s = ttl_s
        self._limit = limit

    def add(self, meta: Mapping[str, object], wav: bytes) -> str:
        """Store a preview and return its id. Remove expired and surplus ones. `meta` must be JSON (TypeError)."""
        data = json.dumps(dict(meta)).encode()
        self._previews.prune(self._limit - 1, self._ttl_s)
        preview_id = self._previews.new_id(int(time.time()))
        self._previews.add(preview_id, data, wav)
        return preview_id

    def get(self, preview_id: str) -> tuple[dict[str, Any], bytes]:
        """Return the meta and the WAV of a preview. Raises NotFound, also for an expired preview."""
        if self._previews.age_s(preview_id) > self._ttl_s:
            raise NotFound("preview", preview_id)
        meta, wav = self._previews.record(preview_id), self._previews.blob(preview_id)
        return json.loads(meta), wav

    def delete(self, preview_id: str) -> None:
        """Remove a preview if it exists. Raises NotFound for a text that is not an id."""
        self._previews.delete(preview_id)

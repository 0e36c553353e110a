"""Designed voices waiting to be saved, on the storage of the voices.

previews/{preview_id}.wav is how one sounds; previews/{preview_id}.json, written last, what the caller says of it.
"""

import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from deployments.errors import NotFound
from deployments.voices.files import SharedFiles

# The first 8 digits are the time of creation in unix seconds, so the name of a file tells whether it has expired, also
# of one that a crash left alone or unfinished.
PREVIEW_ID = re.compile(r"preview_([0-9a-f]{8})[0-9a-f]{24}")


class PreviewStore:
    """A replica's view of the previews at `url`, the latest `limit` of them, each kept for `ttl_s` seconds.

    Blocks on storage; threads may call.
    """

    def __init__(self, url: str, *, ttl_s: float = 3600, limit: int = 200) -> None:
        self._files = SharedFiles(url)
        self._ttl_s = ttl_s
        self._limit = limit

    def add(self, meta: Mapping[str, object], wav: bytes) -> str:
        """Keep a preview, and remove expired and surplus ones. Returns its id. TypeError if `meta` is not for JSON."""
        data = json.dumps(dict(meta)).encode()
        leaves = {leaf: found for leaf in self._files.names("previews") if (found := PREVIEW_ID.search(leaf))}
        latest = sorted({found[0] for found in leaves.values()}, reverse=True)[: self._limit - 1]
        for leaf, found in leaves.items():
            if self._expired(found) or found[0] not in latest:
                self._files.discard(f"previews/{leaf}")
        preview_id = f"preview_{int(time.time()):08x}{secrets.token_hex(12)}"
        self._files.put(_path(preview_id, "wav"), wav)
        self._files.put(_path(preview_id, "json"), data)
        return preview_id

    def get(self, preview_id: str) -> tuple[dict[str, Any], bytes]:
        """Its meta and its WAV. Raises NotFound, also when it has expired."""
        found = PREVIEW_ID.fullmatch(preview_id)
        if found is None or self._expired(found):
            raise NotFound("preview", preview_id)
        try:
            meta, wav = self._files.read(_path(preview_id, "json")), self._files.read(_path(preview_id, "wav"))
        except FileNotFoundError:
            raise NotFound("preview", preview_id) from None
        return json.loads(meta), wav

    def delete(self, preview_id: str) -> None:
        """Remove it if it is there. Raises NotFound for what cannot be an id."""
        if not PREVIEW_ID.fullmatch(preview_id):
            raise NotFound("preview", preview_id)
        self._files.discard(_path(preview_id, "json"))
        self._files.discard(_path(preview_id, "wav"))

    def _expired(self, found: re.Match[str]) -> bool:
        return time.time() - int(found[1], 16) > self._ttl_s


def _path(preview_id: str, kind: str) -> str:
    return f"previews/{preview_id}.{kind}"

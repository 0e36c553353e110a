"""JSON records, each with a blob beside it, named by the time of their creation and a random number.

    {folder}/{id}.{blob kind}   the blob
    {folder}/{id}.json          the record, written last

Sorted ids are records in order of creation, to the second. The name alone shows the age of a file, also of a file that
a crash left unfinished or without its record.
"""

import re
import secrets
import time
from collections.abc import Sequence

from deployments.errors import Kept, NotFound
from deployments.voices.files import SharedFiles


class TimedRecords:
    """The records of one kind. Methods block on storage and may be called in any thread."""

    def __init__(self, files: SharedFiles, *, what: Kept, prefix: str, blob_kind: str) -> None:
        """`prefix` begins every id; `what` names the kind in NotFound and, in the plural, the folder."""
        self._files = files
        self._what: Kept = what
        self._prefix = prefix
        self._blob_kind = blob_kind
        # 8 hexadecimal digits of unix seconds, 24 random ones.
        self._id = re.compile(rf"{re.escape(prefix)}([0-9a-f]{{8}})[0-9a-f]{{24}}")

    def new_id(self, created_at: int) -> str:
        return f"{self._prefix}{created_at:08x}{secrets.token_hex(12)}"

    def add(self, record_id: str, record: bytes, blob: bytes) -> None:
        assert self._id.fullmatch(record_id), f"{record_id!r} was not made by new_id"
        self._files.put(self._path(record_id, self._blob_kind), blob)
        self.put(record_id, record)

    def put(self, record_id: str, record: bytes) -> None:
        """Write a record, whose blob stays as it is."""
        self._files.put(self._path(record_id, "json"), record)

    def record(self, record_id: str) -> bytes:
        """Return a record. Raises NotFound, also for a text that is not an id."""
        return self._read(record_id, "json")

    def blob(self, record_id: str) -> bytes:
        """Return the blob of a record. Raises NotFound, also for a text that is not an id."""
        return self._read(record_id, self._blob_kind)

    def records(self, record_ids: Sequence[str]) -> list[bytes]:
        """Return those of the records that still exist."""
        found = self._files.read_all([self._path(record_id, "json") for record_id in record_ids])
        return [data for data in found if data is not None]

    def delete(self, record_id: str) -> None:
        """Remove a record and its blob if they exist. Raises NotFound for a text that is not an id."""
        if not self._id.fullmatch(record_id):
            raise NotFound(self._what, record_id)
        self._files.discard(self._path(record_id, "json"))
        self._files.discard(self._path(record_id, self._blob_kind))

    def ids(self) -> list[str]:
        """Return the ids of all records, latest first."""
        stems = (leaf.removesuffix(".json") for leaf in self._files.names(self._folder) if leaf.endswith(".json"))
        return sorted((stem for stem in stems if self._id.fullmatch(stem)), reverse=True)

    def age_s(self, record_id: str) -> float:
        """Return the age of a record by its id. Raises NotFound for a text that is not an id."""
        if (found := self._id.fullmatch(record_id)) is None:
            raise NotFound(self._what, record_id)
        return time.time() - int(found[1], 16)

    def prune(self, most: int, oldest_s: float) -> None:
        """Remove everything but the latest `most` that are not older than `oldest_s`, temporary files included."""
        leaves = {leaf: found for leaf in self._files.names(self._folder) if (found := self._id.search(leaf))}
        latest = sorted({found[0] for found in leaves.values()}, reverse=True)[:most]
        for leaf, found in leaves.items():
            if found[0] not in latest or self.age_s(found[0]) > oldest_s:
                self._files.discard(f"{self._folder}/{leaf}")

    @property
    def _folder(self) -> str:
        return f"{self._what}s"

    def _read(self, record_id: str, kind: str) -> bytes:
        if not self._id.fullmatch(record_id):
            raise NotFound(self._what, record_id)
        try:
            return self._files.read(self._path(record_id, kind))
        except FileNotFoundError:
            raise NotFound(self._what, record_id) from None

    def _path(self, record_id: str, kind: str) -> str:
        return f"{self._folder}/{record_id}.{kind}"

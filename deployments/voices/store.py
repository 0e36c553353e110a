"""The cluster's library of cloned voices.

    voices/{key}.json                               one small record per voice; key: the name in lower case
    content/{upload_id}/audio                       the reference audio as it was uploaded
    content/{upload_id}/{fingerprint}.safetensors   a prompt computed from it, per model; opaque here

Content never changes. An upload id is the time of the upload and random digits. The record is the only file that is
replaced. It is written last and atomically. So every replica sees a voice once `add` has returned, and never a part of
a voice, wherever a writer stops. A crash, or two overwrites at the same moment, can leave content that no record names.
`add` and `delete` remove such content once it is older than any upload takes.
"""

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias, TypeVar

from deployments.access.caller import EVERYONE, Caller
from deployments.errors import Exists, Full, NotFound
from deployments.voices.files import SharedFiles
from deployments.voices.record import HEX, Source, VoiceName, VoiceRecord, check_hex
from qwen_tts.recently_used import RecentlyUsed

log = logging.getLogger("ray.serve")

_ORPHAN_S = 3600.0  # content of this age that no record names belongs to no upload in progress
_SWEEP_S = 600.0  # the time between two sweeps of one replica

T = TypeVar("T")
VoiceRecords: TypeAlias = list[VoiceRecord]  # within VoiceStore, `list` is its method


class VoiceStore:
    """The voices stored at `url`. Methods block on storage and pass its errors through. Any thread may call.

    Only prompts are cached in memory, up to `cache_bytes`, so the next `get` sees a delete by any replica. `max_voices`
    holds for adds one after another: several adds at the same time may each use the last place.
    """

    def __init__(self, url: str, *, cache_bytes: int, max_voices: int = 1000) -> None:
        self._files = SharedFiles(url)
        self.max_voices = max_voices
        self._prompts = RecentlyUsed[bytes](cache_bytes)
        self._next_sweep = 0.0  # monotonic seconds

    def add(
        self,
        name: str,
        *,
        audio: bytes,
        mime_type: str,
        consent: str,
        ref_text: str | None,
        description: str | None,
        source: Source,
        prompts: Mapping[str, bytes],
        overwrite: bool,
        caller: Caller = EVERYONE,
    ) -> VoiceRecord:
        """Store a voice of `caller` with its prompts by model fingerprint. A voice that the caller does not see is not
        replaced. Raises InvalidRequest, Exists, Full."""
        created_at = int(time.time())
        upload_id = f"{created_at:08x}{secrets.token_hex(12)}"
        record = VoiceRecord(
            name, created_at, upload_id, mime_type, len(audio), consent, ref_text, description, source, caller.name
        )
        content = {_prompt_path(record, fingerprint): prompt for fingerprint, prompt in prompts.items()}
        content[_audio_path(record)] = audio
        self._make_way(name, overwrite, caller)
        try:
            for path, data in content.items():
                self._files.put(path, data)
            replaced = self._find(name) if overwrite else None
        except Exception:
            self._files.discard(_content_path(record))
            raise
        self._publish(record, overwrite)
        if replaced is not None:
            self._files.discard(_content_path(replaced))
        self._sweep()
        return record

    def get(self, name: str) -> VoiceRecord:
        """Return the record as it is in storage now. Raises NotFound, also for a name that no voice can have."""
        if VoiceName(name).may_be_stored and (record := self._find(name)) is not None:
            return record
        raise NotFound("voice", name)

    def read(self, name: str, use: Callable[[VoiceRecord], T]) -> T:
        """Return `use(record)`. Repeat it with the new record if the voice was replaced before `use` had read it.

        So one call of `use` reads content of one upload only. Raises NotFound and the errors of `use`.
        """
        record = self.get(name)
        while True:
            try:
                return use(record)
            except NotFound:
                current = self.get(name)
                if current.upload_id == record.upload_id:
                    raise
                record = current

    def delete(self, name: str) -> None:
        """Delete a voice and its content. Raises NotFound."""
        record = self.get(name)
        try:
            self._files.delete(_record_path(name))
        except FileNotFoundError:
            raise NotFound("voice", name) from None
        self._files.discard(_content_path(record))
        self._sweep()

    def audio(self, record: VoiceRecord) -> bytes:
        """Return the reference audio of this upload. Raises NotFound if the upload is gone (see `read`)."""
        try:
            return self._files.read(_audio_path(record))
        except FileNotFoundError:
            raise NotFound("voice", record.name) from None

    def prompt(self, record: VoiceRecord, fingerprint: str) -> bytes | None:
        """Return the prompt of this upload, or None if the model has none yet. Raises NotFound (see `read`)."""
        path = _prompt_path(record, fingerprint)
        prompt = self._prompts.get(path)
        if prompt is None:
            try:
                prompt = self._files.read(path)
            except FileNotFoundError:
                self._check_current(record)
                return None
            self._prompts.put(path, prompt, len(prompt))
        return prompt

    def add_prompt(self, record: VoiceRecord, fingerprint: str, data: bytes) -> None:
        """Store a prompt that was computed later. Raises NotFound, and stores nothing, if the upload is gone."""
        path = _prompt_path(record, fingerprint)
        with suppress(FileNotFoundError):  # the folder was removed at this moment; the check below finds out
            self._files.put(path, data)
        # A replacement or a delete changes the record first. If the record is unchanged now, a later delete removes
        # this file too.
        try:
            self._check_current(record)
        except NotFound:
            self._files.discard(_content_path(record))
            raise
        self._prompts.put(path, data, len(data))

    def list(self) -> VoiceRecords:
        """Return the records of all voices, sorted by name."""
        keys = self._keys()
        records = []
        for key, data in zip(keys, self._files.read_all([_record_path(key) for key in keys]), strict=True):
            try:
                record = None if data is None else _parse(key, data)
            except _Malformed:
                record = self._find(key)
            if record is not None:
                records.append(record)
        return sorted(records, key=lambda record: record.name)

    def names(self) -> "tuple[str, ...]":
        """Return the names of all voices, in lower case and sorted, from one listing of the folder."""
        return tuple(sorted(self._keys()))

    def _sweep(self) -> None:
        """Remove old content that no record names, at most every `_SWEEP_S`. Errors are logged, not raised."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + _SWEEP_S
        try:
            old = [leaf for leaf in self._files.names("content") if _age_s(leaf) > _ORPHAN_S]
            if not old:
                return
            keys, records = self._keys(), self.list()
            if len(records) != len(keys):
                return  # a record that cannot be read may name any of the content
            for leaf in set(old) - {record.upload_id for record in records}:
                log.warning("removing content/%s, which belongs to no voice", leaf)
                self._files.discard(f"content/{leaf}")
        except Exception:
            log.exception("the voice library could not be swept")

    def _make_way(self, name: str, overwrite: bool, caller: Caller) -> None:
        """Raise Exists or Full before anything is written. Remove a malformed record, which would block its name."""
        try:
            existing = self._load(name)
        except _Malformed:
            self._files.discard(_record_path(name))
            existing = None
        if existing is not None and not (overwrite and caller.sees(existing.owner)):
            raise Exists(name)
        if existing is None and len(self._keys()) >= self.max_voices:
            raise Full("voice", self.max_voices)

    def _publish(self, record: VoiceRecord, overwrite: bool) -> None:
        """Write the record, which makes the voice visible. If that fails, remove the content. Raises Exists."""
        try:
            self._files.put(_record_path(record.name), record.to_json(), exclusive=not overwrite)
        except Exception as error:
            # The record may have been written, and only the answer was lost: the storage client's retry of an exclusive
            # put is then refused because of its own file. Content with a visible record must stay, so the content also
            # stays if `_find` fails.
            found = self._find(record.name)
            if found is not None and found.upload_id == record.upload_id:
                log.warning("voice %s was stored in spite of %r", record.name, error)
                return
            self._files.discard(_content_path(record))
            if not overwrite and (found is not None or isinstance(error, FileExistsError)):
                raise Exists(record.name) from error
            raise

    def _check_current(self, record: VoiceRecord) -> None:
        found = self._find(record.name)
        if found is None or found.upload_id != record.upload_id:
            raise NotFound("voice", record.name)

    def _find(self, name: str) -> VoiceRecord | None:
        try:
            return self._load(name)
        except _Malformed as fault:
            log.warning("passing over the record of voice %s: %s", name, fault)
            return None

    def _load(self, name: str) -> VoiceRecord | None:
        """Return the record of a voice, or None if there is none. Raises _Malformed."""
        try:
            with suppress(_Malformed):
                return _parse(name, self._files.read(_record_path(name)))
            # gcsfs requests the size and then that number of bytes. A record replaced in between arrives cut short.
            return _parse(name, self._files.read(_record_path(name)))
        except FileNotFoundError:
            return None

    def _keys(self) -> tuple[str, ...]:
        """Return the keys of all records, malformed ones too. Temporary files have names that no voice can have."""
        stems = (leaf.removesuffix(".json") for leaf in self._files.names("voices") if leaf.endswith(".json"))
        return tuple(stem for stem in stems if (name := VoiceName(stem)).may_be_stored and stem == name.key)


class _Malformed(Exception):
    """A file in the place of a record is not a record of that name."""


def _parse(name: str, data: bytes) -> VoiceRecord:
    """Return the record in `data`. Raises _Malformed. (Not ValueError, which file systems raise too.)"""
    try:
        record = VoiceRecord.from_json(data)
    except ValueError:
        raise _Malformed("it is malformed") from None  # the details would put users' texts into the log
    if VoiceName(record.name) != VoiceName(name):
        raise _Malformed(f"it is that of {record.name}")
    return record


def _age_s(upload_id: str) -> float:
    """Return the age of an upload, or 0 for a name that is not an upload id."""
    return time.time() - int(upload_id[:8], 16) if HEX.fullmatch(upload_id) and len(upload_id) == 32 else 0.0


def _record_path(name: str) -> str:
    return f"voices/{VoiceName(name).key}.json"


def _content_path(record: VoiceRecord) -> str:
    return f"content/{record.upload_id}"


def _audio_path(record: VoiceRecord) -> str:
    return f"{_content_path(record)}/audio"


def _prompt_path(record: VoiceRecord, fingerprint: str) -> str:
    """Return the path of a prompt. Raises ValueError unless `fingerprint` is lowercase hex."""
    check_hex(fingerprint)
    return f"{_content_path(record)}/{fingerprint}.safetensors"

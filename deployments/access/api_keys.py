"""API keys: the keys of the file, and the check of the key that a connection carries."""

import hmac
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from deployments.access.caller import EVERYONE, Caller
from deployments.access.key_file import KeyFileError, hash_key, read_keys
from qwen_tts.errors import InvalidRequest

log = logging.getLogger("ray.serve")

_LOOK_EVERY_S = 0.5

_Stamp = tuple[int, int, int] | None


class ApiKeys:
    """The keys of a file. Without a file every caller is accepted. The constructor raises KeyFileError.

    `watch` follows the file in its own thread, so that no request waits for the file's storage. A changed file is read
    when two looks in a row find it the same: a file that is still being written is not read half. A file that cannot be
    used is logged, and the keys read before remain in force.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._stamp = None if file is None else _stamp(file)  # of the file whose keys are in force
        self._seen = self._stamp  # at the latest look
        self._keys = () if file is None else read_keys(file)

    def describe(self) -> str:
        """Return one line about the keys, for the log and for the terminal at the start."""
        if self._file is None:
            return "No API keys are configured: the service is open to everyone who can reach it"
        return f"Requests need an API key; {self._file} has {len(self._keys)}"

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Return the caller with the key in `headers`, whose names are in lower case.

        Raises InvalidRequest `invalid_api_key`.
        """
        if self._file is None:
            return EVERYONE
        presented = _presented(headers)
        if not presented:
            message = "an API key is missing: send it as 'Authorization: Bearer ...' or 'xi-api-key: ...'"
            raise InvalidRequest(message, None, "invalid_api_key")
        digest = hash_key(presented)
        found = [key for key in self._keys if hmac.compare_digest(key.hash, digest)]  # all of them, in constant time
        if not found:
            raise InvalidRequest("the API key is not known", None, "invalid_api_key")
        assert len(found) == 1, "two keys of one file have the same hash"
        key = found[0]
        return Caller(key.name, key.voices == "all", key.max_concurrent, key.requests_per_minute)

    def watch(self) -> None:
        """Start the thread that looks at the file until the process ends."""
        if self._file is not None:
            threading.Thread(target=self._look_for_ever, name="api-keys", daemon=True).start()

    def _look_for_ever(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LOOK_EVERY_S):
            try:
                self.look()
            except Exception:  # of whatever kind: keys that change later must still be read
                log.exception("%s could not be read; the keys read before remain in force", self._file)

    def look(self) -> None:
        """Look at the file once. Read it if it has changed and was the same at the previous look."""
        assert self._file is not None, "without a file there is nothing to look at"
        stamp, before = _stamp(self._file), self._seen
        self._seen = stamp
        if stamp == self._stamp or stamp != before:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._file)
        except KeyFileError as error:
            log.error("%s; the keys read before remain in force", error)
        else:
            log.info("read again: %s", self.describe())


def _stamp(file: Path) -> _Stamp:
    """Return values that change with a file's content, or None if there is no file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _presented(headers: Mapping[str, str]) -> str:
    """Return the key in the header of OpenAI and DashScope, else in that of ElevenLabs, or "" without either."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("xi-api-key", "").strip()

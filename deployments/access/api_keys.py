"""Whose key a connection carries."""

import hmac
import logging
from collections.abc import Mapping
from pathlib import Path

from deployments.access.caller import EVERYONE, Caller
from deployments.access.key_file import KeyFileError, hash_key, read_keys
from qwen_tts.errors import InvalidRequest

log = logging.getLogger("ray.serve")


class ApiKeys:
    """The keys of a file, as they are in it now; None lets everyone in. Raises KeyFileError.

    The file is read again when it has changed (one stat per request; a mounted Secret is replaced as a whole). A file
    that has become unusable changes nothing and is complained of in the log.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._stamp = None if file is None else _stamp(file)
        self._keys = () if file is None else read_keys(file)

    def describe(self) -> str:
        """For the log and the terminal at the start."""
        if self._file is None:
            return "No API keys are configured: the service is open to everyone who can reach it"
        return f"Requests need an API key; {self._file} has {len(self._keys)}"

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Return the caller who sent these headers, their names in lower case. Raises InvalidRequest."""
        if self._file is None:
            return EVERYONE
        self._refresh(self._file)
        presented = _presented(headers)
        if not presented:
            message = "an API key is missing: send it as 'Authorization: Bearer ...' or 'xi-api-key: ...'"
            raise InvalidRequest(message, None, "invalid_api_key")
        digest = hash_key(presented)
        found = [key for key in self._keys if hmac.compare_digest(key.hash, digest)]  # all of them, in constant time
        if not found:
            raise InvalidRequest("the API key is not known", None, "invalid_api_key")
        key = found[0]
        return Caller(key.name, key.voices == "all", key.max_concurrent, key.requests_per_minute)

    def _refresh(self, file: Path) -> None:
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(file)
        except KeyFileError as error:
            log.error("%s; the keys read before remain in force", error)
        else:
            log.info("read again: %s", self.describe())


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes with a file's content."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _presented(headers: Mapping[str, str]) -> str:
    """OpenAI's and DashScope's header before ElevenLabs's; "" without either."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("xi-api-key", "").strip()

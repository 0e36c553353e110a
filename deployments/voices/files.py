"""Files below a URL that many processes on many nodes read and write: a directory, s3://, gs://, memory:// (in tests).

A directory that several nodes share must allow hard links. Mount NFS with `lookupcache=positive`. Otherwise a node that
looked for a file before it was written does not see the file for a while.
"""

import logging
import os
import secrets
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

log = logging.getLogger("ray.serve")


class SharedFiles:
    """Whole files, named by their path below `url` ("~" is expanded). Nothing is cached. Any thread may call.

    Errors of the storage (OSError, or an error of the file system's client) pass through except where stated.
    """

    def __init__(self, url: str) -> None:
        # With a cache of listings, the client of an object store would not see files that other nodes have added.
        self._fs, self._root = url_to_fs(url, use_listings_cache=False)

    def put(self, path: str, data: bytes, *, exclusive: bool = False) -> None:
        """Write a file atomically: readers see all of `data` or the previous content, also after a crash.

        With `exclusive`, raises FileExistsError if the file exists. Of two writers at the same time one succeeds.
        (memory:// looks before it writes, so there both may succeed.)
        """
        if isinstance(self._fs, LocalFileSystem):
            _put_local(Path(self._at(path)), data, exclusive)
        else:
            self._fs.pipe_file(self._at(path), data, mode="create" if exclusive else "overwrite")

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self._at(path)))

    def read_all(self, paths: list[str]) -> list[bytes | None]:
        """Return the contents in order, None for a missing file. Clients of object stores read concurrently."""
        if not paths:
            return []
        # Ranges of None are whole files. (`cat` would treat a path as a pattern.)
        found = self._fs.cat_ranges([self._at(path) for path in paths], None, None, on_error="return")
        for outcome in found:
            if isinstance(outcome, Exception) and not isinstance(outcome, FileNotFoundError):
                raise outcome
        return [None if isinstance(outcome, Exception) else bytes(outcome) for outcome in found]

    def names(self, folder: str) -> list[str]:
        """Return the names in `folder`, in any order and with temporary files. A missing folder has none."""
        try:
            return [str(path).rsplit("/", 1)[-1] for path in self._fs.ls(self._at(folder), detail=False)]
        except FileNotFoundError:
            return []

    def delete(self, path: str) -> None:
        """Remove a file. Raises FileNotFoundError, but some object stores do not report a missing file."""
        self._fs.rm_file(self._at(path))

    def discard(self, path: str) -> None:
        """Remove a file or folder that is no longer needed. A failure is logged, not raised."""
        try:
            self._fs.rm(self._at(path), recursive=True)
        except FileNotFoundError:
            pass
        except Exception as error:
            log.warning("%s could not be removed and stays: %r", path, error)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def _put_local(target: Path, data: bytes, exclusive: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, target)
        else:
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    # Names must survive a power cut too: a record must not come back without its content. The second folder holds the
    # name of the first one, which may be new.
    for folder in (target.parent, target.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

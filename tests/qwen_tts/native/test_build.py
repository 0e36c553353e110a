"""Native code is compiled once, and only a library that nobody else may have written is loaded."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen_tts.errors import UnsupportedError
from qwen_tts.native import build
from qwen_tts.packed_linear import Weights

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")

SOURCE = """
extern "C" int answer() {
#ifdef WITH_INT8
  return 8;
#else
  return 42;
#endif
}
"""


class Compiler:
    """The compiler, which counts its calls."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.paths: list[Path] = []
        self._compile = build._compile

    def __call__(self, command: list[str], path: Path) -> None:
        self.paths.append(path)
        self._compile(command, path)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """A small source, which any processor can run."""
    source = tmp_path / "small.cpp"
    source.write_text(SOURCE)
    compiler = Compiler(source)
    monkeypatch.setattr(build, "_SOURCE", source)
    monkeypatch.setattr(build, "find_compiler", lambda: "g++")
    monkeypatch.setattr(build, "_compile", compiler)
    return compiler


def answer(cache: Path, *kinds: Weights) -> int:
    found: int = build.load_library(kinds or ("float32",), cache).answer()
    return found


def libraries(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.so"))


def test_a_library_is_compiled_once(compiler: Compiler, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "cache"
    assert [answer(cache), answer(cache)] == [42, 42]
    assert len(compiler.paths) == 1
    assert cache.stat().st_mode & 0o777 == 0o700
    assert [path.suffix for path in sorted(cache.iterdir())] == [".lock", ".so"]


def test_all_that_the_code_depends_on_is_in_the_name(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    assert answer(cache) == 42
    assert answer(cache, "int8") == 8
    compiler.source.write_text(SOURCE.replace("42", "43"))
    assert answer(cache) == 43
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-g"))
    assert answer(cache) == 43
    processor = tmp_path / "cpuinfo"
    processor.write_text("model name: another\nflags: fpu\n")
    monkeypatch.setattr(build, "_PROCESSOR", processor)
    assert answer(cache) == 43
    assert len(libraries(cache)) == len(compiler.paths) == 5
    processor.write_text("model name: another\nflags: fpu\nMHz: 1\n\nflags: of another core\n")
    assert answer(cache) == 43
    assert len(compiler.paths) == 5, "a clock's frequency makes a machine another one"


def test_processes_that_start_together_compile_once(compiler: Compiler, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as starts:
        assert list(starts.map(answer, [tmp_path / "cache"] * 4)) == [42] * 4
    assert len(compiler.paths) == 1


def test_where_nothing_can_be_kept_each_start_compiles(compiler: Compiler, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert [answer(file), answer(file)] == [42, 42]
    assert len(compiler.paths) == 2
    assert not any(path.exists() for path in compiler.paths)


def test_a_disk_that_is_full_is_no_error(compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"

    def full(command: list[str], path: Path) -> None:
        if path.is_relative_to(cache):
            path.write_bytes(b"half a library")
            raise UnsupportedError("No space left on device")
        compiler(command, path)

    monkeypatch.setattr(build, "_compile", full)
    assert answer(cache) == 42
    assert libraries(cache) == []
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_others_may_have_written_is_not_loaded(compiler: Compiler, tmp_path: Path, what: str) -> None:
    cache = tmp_path / "cache"
    assert answer(cache) == 42
    (kept,) = libraries(cache)
    if what == "file":
        kept.chmod(0o666)
    elif what == "directory":
        cache.chmod(0o777)
    else:
        kept.rename(tmp_path / "elsewhere")
        kept.symlink_to(tmp_path / "elsewhere")
    assert answer(cache) == 42
    assert len(compiler.paths) == 2, "it was loaded"


def test_a_library_that_is_damaged_is_not_used(compiler: Compiler, tmp_path: Path) -> None:
    answer(tmp_path / "other")
    (kept,) = libraries(tmp_path / "other")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    (cache / kept.name).write_bytes(b"no library")
    assert answer(cache) == 42
    assert len(compiler.paths) == 2


def test_a_source_that_cannot_be_compiled_is_refused(compiler: Compiler, tmp_path: Path) -> None:
    compiler.source.write_text("no C++")
    with pytest.raises(UnsupportedError, match=r"compile: g\+\+ failed"):
        answer(tmp_path / "cache")
    assert libraries(tmp_path / "cache") == []

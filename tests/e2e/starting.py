"""`qwen-tts serve` as a terminal runs it: in a process group of its own, with an empty home directory."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[str]
    port: int
    output: list[str]


@contextmanager
def start(home: Path, *words: str) -> Iterator[Running]:
    """Start `qwen-tts serve` with the arguments `words` and wait until it is ready.

    At the end the command and its children are killed, if they still run.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        ["qwen-tts", "serve", "--port", str(port), *words],
        env={**os.environ, "PATH": PATH, "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if "Stop with Ctrl-C" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert ready.wait(240), "".join(output)
        assert process.poll() is None, f"{''.join(output)}\n{_end_of_log(home)}"
        yield Running(process, port, output)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


def _end_of_log(home: Path) -> str:
    files = sorted((home / ".local/state/qwen-tts").glob("*.log"))
    return "".join(file.read_text(encoding="utf-8")[-3000:] for file in files)

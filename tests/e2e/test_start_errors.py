"""A service that cannot start prints the reason in one line and ends with code 1."""

import os
import socket
import subprocess
from pathlib import Path

from qwen_tts.seeded import SHAPES, write_checkpoint
from tests.e2e.starting import PATH


def error(home: Path, talker: str) -> str:
    """Return the line of the error of `qwen-tts serve` with these settings of the talker."""
    write_checkpoint(home / "tiny", SHAPES["small"], "custom_voice")
    settings = home / "settings.yaml"
    settings.write_text(f"models: [{{name: tiny, checkpoint: {home / 'tiny'}}}]\ntalker: {talker}\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    ended = subprocess.run(
        ["qwen-tts", "serve", "--port", str(port), "--config", str(settings)],
        env={**os.environ, "PATH": PATH, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout
    assert "Starting Ray" in ended.stdout
    (line,) = ended.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_settings_that_a_replica_refuses(tmp_path: Path) -> None:
    line = error(tmp_path, "{compile: false, attn_implementation: flash_attention_2}")
    assert line.startswith("Error: tiny: ")
    assert "flash_attention_2" in line

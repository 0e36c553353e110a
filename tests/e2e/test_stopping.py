"""A service that is stopped ends in order and leaves no process behind, for each way to stop it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from qwen_tts.seeded import SHAPES, write_checkpoint
from tests.e2e.starting import start


@pytest.mark.parametrize(
    ("send", "number"),
    [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)],
    ids=["Ctrl-C in a terminal", "kill, systemd and Docker"],
)
def test_a_stopped_service_leaves_no_process(
    tmp_path: Path, send: Callable[[int, int], None], number: signal.Signals
) -> None:
    write_checkpoint(tmp_path / "tiny", SHAPES["small"], "custom_voice")
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"models: [{{name: tiny, checkpoint: {tmp_path / 'tiny'}}}]\ntalker: {{compile: false}}\n")
    with start(tmp_path, "--config", str(settings)) as serving:
        family = [psutil.Process(serving.process.pid), *psutil.Process(serving.process.pid).children(recursive=True)]
        assert len(family) > 5, "Ray and the replicas do not run as children"
        assert {process.nice() for process in family} == {os.nice(0)}, "the workers run at Ray's niceness of 15"
        send(serving.process.pid, number)
        assert serving.process.wait() == 0
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
        assert "Stopping ...\n" in serving.output

"""What a new user does: start the command and run every snippet of the README."""

import os
import re
import subprocess
import sys
import wave
from pathlib import Path
from types import FunctionType

import pytest
import yaml

from deployments.access.key_file import read_keys
from deployments.settings import AppArgs
from tests.e2e.starting import PATH, Running
from tests.recordings import wav

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_ready_says_where_and_whose_voice_it_is(serving: Running) -> None:
    text = "".join(serving.output)
    assert f"Ready at http://127.0.0.1:{serving.port}" in text
    assert "curl -s" in text
    assert "not Qwen's" in text
    assert "No API keys are configured: the service is open to everyone" in text


def test_every_snippet_of_the_readme_runs(serving: Running, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": PATH}
    (tmp_path / "reference.wav").write_bytes(wav("high"))
    shell = [block.replace("127.0.0.1:8000", f"127.0.0.1:{serving.port}") for block in blocks("bash")]
    assert len(shell) == 7
    for block in shell:
        subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=environment, check=True, timeout=120)
    for block in blocks("python"):
        served = block.replace("127.0.0.1:8000", f"127.0.0.1:{serving.port}")
        command = [sys.executable, "-W", "error", "-c", served]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    names = ("speech", "openai", "dashscope", "sentence-0", "sentence-1", "elevenlabs", "anna", "warm", "hi")
    for name in names:
        with wave.open(str(tmp_path / f"{name}.wav")) as file:
            assert (file.getnchannels(), file.getframerate()) == (1, 24000)
            assert len(file.readframes(file.getnframes())) > 24000
    *_, last = (tmp_path / "events.txt").read_text().split("\n\n")[:-1]
    assert '"speech.audio.done"' in last
    assert [key.name for key in read_keys(tmp_path / "api-keys.yaml")] == ["alice"]
    assert (tmp_path / "speech.pcm").stat().st_size % (1920 * 2) == 0


def test_the_settings_of_the_readme_are_valid() -> None:
    (block,) = blocks("yaml")
    assert len(AppArgs.model_validate(yaml.safe_load(block)).models) == 3


def test_the_builder_fills_its_settings_from_a_serve_config() -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

    from deployments.app import build_app

    assert isinstance(build_app, FunctionType)
    args = {"models": [{"name": "a/b", "checkpoint": "/some/where"}], "talker": {"num_gpus": 0.5}}
    assert call_user_app_builder_with_args_if_necessary(build_app, args)._bound_deployment.name == "ingress"
    with pytest.raises(ValueError, match="slotz"):
        call_user_app_builder_with_args_if_necessary(build_app, {"talker": {"slotz": 1}})

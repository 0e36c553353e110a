"""The first steps of a new user: start the command, and run every snippet of the documents."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path
from types import FunctionType

import pytest
import yaml

from deployments.access.key_file import read_keys
from deployments.settings import AppArgs
from tests.documents import PAGES, ROOT, blocks, read_page
from tests.e2e.starting import PATH, Running
from tests.recordings import wav

BLOCKS = {page: blocks(read_page(page)) for page in PAGES}
SNIPPETS = {page: [block for block in found if block.language in ("bash", "python")] for page, found in BLOCKS.items()}
# In helm/, yaml is values and objects of the chart, which tests/k8s checks.
SETTINGS = [
    (page, block.code)
    for page, found in BLOCKS.items()
    for block in found
    if block.language == "yaml" and not page.startswith("helm/")
]
# The files that the snippets of each page write. The snippets of other pages write none.
WRITTEN = {
    "README.md": {"speech.wav", "openai.wav", "warm.json", "anna.wav"},
    "docs/clients.md": {
        "openai.wav", "speech.pcm", "events.txt", "sentence-0.wav", "sentence-1.wav", "dashscope.wav", "elevenlabs.wav",
        "live.wav",
    },
    "docs/http.md": {"candidates.json", "calm.wav", "api-keys.yaml"},
    "docs/library.md": {"my-checkpoint", "my-base", "hi.wav", "anna.safetensors"},
}  # fmt: skip


def test_ready_says_where_and_whose_voice_it_is(serving: Running) -> None:
    text = "".join(serving.output)
    assert f"Ready at http://127.0.0.1:{serving.port}" in text
    assert "curl -s" in text
    assert "not Qwen's" in text
    assert "No API keys are configured: the service is open to everyone" in text


@pytest.mark.parametrize("page", [page for page, snippets in SNIPPETS.items() if snippets])
def test_every_snippet_runs(page: str, serving: Running, tmp_path: Path) -> None:
    """Run the snippets in the order of the page, in a folder with a recording and the demo checkpoints."""
    (tmp_path / "reference.wav").write_bytes(wav("high"))
    (tmp_path / "qwen_tts").symlink_to(ROOT / "qwen_tts")
    given = {path.name for path in tmp_path.iterdir()}
    for snippet in SNIPPETS[page]:
        code = snippet.code.replace("127.0.0.1:8000", f"127.0.0.1:{serving.port}")
        command = ["bash", "-euc", code] if snippet.language == "bash" else [sys.executable, "-W", "error", "-c", code]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, "PATH": PATH}, check=True, timeout=120)
    written = [path for path in sorted(tmp_path.iterdir()) if path.name not in given]
    assert {path.name for path in written} == WRITTEN.get(page, set())
    for path in written:
        check(path)


def check(path: Path) -> None:
    """Check a file that a snippet wrote."""
    match path.suffix:
        case ".wav":
            with wave.open(str(path)) as file:
                assert (file.getnchannels(), file.getframerate()) == (1, 24000)
                assert len(file.readframes(file.getnframes())) > 24000
        case ".pcm":
            assert path.stat().st_size > 24000
            assert path.stat().st_size % (1920 * 2) == 0
        case ".txt":
            *_, last = path.read_text().split("\n\n")[:-1]
            assert '"speech.audio.done"' in last
        case ".json":
            assert "error" not in json.loads(path.read_text())
        case ".yaml":
            assert [key.name for key in read_keys(path)] == ["alice"]


@pytest.mark.parametrize(("page", "settings"), SETTINGS)
def test_the_settings_of_the_documents_are_valid(page: str, settings: str) -> None:
    args = AppArgs.model_validate(yaml.safe_load(settings))
    if page == "README.md":
        assert len(args.models) == 3


def test_the_builder_fills_its_settings_from_a_serve_config() -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

    from deployments.app import build_app

    assert isinstance(build_app, FunctionType)
    args = {"models": [{"name": "a/b", "checkpoint": "/some/where"}], "talker": {"num_gpus": 0.5}}
    assert call_user_app_builder_with_args_if_necessary(build_app, args)._bound_deployment.name == "ingress"
    with pytest.raises(ValueError, match="slotz"):
        call_user_app_builder_with_args_if_necessary(build_app, {"talker": {"slotz": 1}})

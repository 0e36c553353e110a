"""The text at the end of the start of `qwen-tts serve`."""

import json
import re
import shlex
from pathlib import Path

from deployments.commands.serve import ready_text
from deployments.commands.start_checks import find_checkpoints
from deployments.settings import ApiKeyArgs, AppArgs, ModelArgs

URL = "http://127.0.0.1:8000"


def ready(args: AppArgs) -> str:
    configs = {name: checkpoint.config for name, checkpoint in find_checkpoints(args.models).items()}
    return ready_text(args, configs, URL, "Keys are not needed", Path("/logs/serve.log"))


def curl(text: str) -> list[str]:
    found = re.search(r"curl .*?speech\.wav", text, re.DOTALL)
    assert found is not None
    return shlex.split(found[0].replace("\\\n", ""))


def serving(**models: Path) -> AppArgs:
    return AppArgs(models=tuple(ModelArgs(name=name, checkpoint=str(path)) for name, path in models.items()))


def test_without_settings() -> None:
    first, keys, *_, log, last = ready(AppArgs()).splitlines()
    assert (first, keys) == (f"Ready at {URL}", "Keys are not needed")
    assert (log, last) == ("Log: /logs/serve.log", "Stop with Ctrl-C.")
    words = curl(ready(AppArgs()))
    assert words[:3] == ["curl", "-sSf", f"{URL}/v1/audio/speech"]
    assert words[-2:] == ["-o", "speech.wav"]
    assert json.loads(words[words.index("-d") + 1])["voice"] in ("aiden", "ryan", "serena")
    assert f"{URL}/docs" in ready(AppArgs())
    assert "a small demo, not Qwen's weights" in ready(AppArgs())
    assert "serve --model Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice" in ready(AppArgs())


def test_a_checkpoint_of_the_callers_is_no_demo(custom_voice: Path) -> None:
    text = ready(serving(mine=custom_voice))
    assert "demo" not in text
    assert "voice" in json.loads(curl(text)[-3])


def test_a_model_that_designs_voices_gets_a_description(voice_design: Path) -> None:
    assert "instructions" in json.loads(curl(ready(serving(mine=voice_design)))[-3])


def test_a_model_that_clones_has_no_request_without_a_recording(base: Path) -> None:
    text = ready(serving(mine=base))
    assert "curl" not in text
    assert f"{URL}/docs" in text


def test_with_api_keys_the_request_has_room_for_one() -> None:
    args = AppArgs(api_keys=ApiKeyArgs(file=Path("/keys.yaml")))
    assert "Authorization: Bearer YOUR_KEY" in curl(ready(args))

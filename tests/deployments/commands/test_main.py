"""The command: its output, and its one line for every mistake."""

import socket
import wave
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deployments.commands.main import main
from qwen_tts.config import read_model_config
from qwen_tts.seeded import SHAPES

RATE_HZ = 24000
FRAME_SAMPLES = 1920


def run(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, *words: str) -> None:
    """Run a command that must fail with code 1 and one line. Return the line, which has no traceback and no usage."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line


def read_wav(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE_HZ)
        frames: bytes = file.readframes(file.getnframes())
        return frames


def test_make_checkpoint_writes_once(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoint"
    result = run("make-checkpoint", directory, "--type", "voice_design")
    assert result.exit_code == 0, result.output
    assert "makes noise, not speech" in result.stderr.splitlines()[-1]
    config = read_model_config(directory)
    assert (config.tts_model_type, config.talker_config.hidden_size) == ("voice_design", SHAPES["small"].hidden)
    assert_refused(run("make-checkpoint", directory), "already exists", str(directory))
    assert read_model_config(directory) == config


def test_say_writes_a_wav(custom_voice: Path, tmp_path: Path) -> None:
    def say(name: str, seed: int) -> bytes:
        output = tmp_path / name
        result = run("say", "a", "--model", custom_voice, "--seed", seed, "-o", output)
        assert result.exit_code == 0, result.output
        return read_wav(output)

    first = say("first.wav", 1)
    assert len(first) > 0
    assert len(first) % (2 * FRAME_SAMPLES) == 0
    assert say("again.wav", 1) == first
    assert say("other.wav", 2) != first


def test_say_describes_a_voice_to_a_voice_design_model(voice_design: Path, tmp_path: Path) -> None:
    def say(instructions: str) -> bytes:
        output = tmp_path / f"{instructions}.wav"
        result = run("say", "a", "--model", voice_design, "--instructions", instructions, "--seed", 1, "-o", output)
        assert result.exit_code == 0, result.output
        return read_wav(output)

    assert len(say("low")) > 0
    assert say("low") != say("high")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "--voice", "nobody"], ["'nobody' is unknown", "ryan"]),
        (["a", "--language", "klingon"], ["'klingon' is unknown", "english"]),
        (["a", "--seed", "-1"], ["seed is -1"]),
        ([" "], ["input is empty"]),
    ],
    ids=["voice", "language", "seed", "text"],
)
def test_say_refuses_in_one_line(custom_voice: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    output = tmp_path / "speech.wav"
    assert_refused(run("say", *arguments, "--model", custom_voice, "-o", output), *words)
    assert not output.exists()


def test_say_without_a_checkpoint_there(tmp_path: Path) -> None:
    assert_refused(run("say", "a", "--model", tmp_path / "none"), "does not exist", str(tmp_path / "none"))


def test_say_into_a_missing_directory(custom_voice: Path, tmp_path: Path) -> None:
    output = tmp_path / "none" / "speech.wav"
    assert_refused(run("say", "a", "--model", custom_voice, "-o", output), str(output))


def serve(tmp_path: Path, settings: str) -> Result:
    """Run `serve` with a settings file that must stop it before Ray starts."""
    file = tmp_path / "settings.yaml"
    file.write_text(settings)
    result = run("serve", "--config", file)
    assert "Starting Ray" not in result.output
    return result


def test_serve_names_a_misspelt_key(tmp_path: Path) -> None:
    assert_refused(serve(tmp_path, "talker: {slotss: 4}"), "talker.slotss", "not permitted")


def test_serve_refuses_a_file_that_is_no_yaml(tmp_path: Path) -> None:
    assert_refused(serve(tmp_path, "talker: {slots: 4"), "settings.yaml")


def test_serve_refuses_two_models_of_one_name() -> None:
    result = run("serve", "--model", "same=a", "--model", "same=b")
    assert "Starting Ray" not in result.output
    assert_refused(result, "names must differ", "same, same")


def test_serve_refuses_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run("serve", "--port", port)
    assert "Starting Ray" not in result.output
    assert_refused(result, f"127.0.0.1:{port}", "--port")


def test_serve_refuses_a_missing_checkpoint(tmp_path: Path) -> None:
    result = run("serve", "--port", free_port(), "--model", tmp_path / "none")
    assert "Starting Ray" not in result.output
    assert_refused(result, f"{tmp_path / 'none'} does not exist", "name a directory")


def test_serve_refuses_a_log_file_that_cannot_be_written(custom_voice: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log_file = tmp_path / "file" / "serve.log"
    result = run("serve", "--port", free_port(), "--model", custom_voice, "--log-file", log_file)
    assert f"Log: {log_file}" in result.output
    assert_refused(result, str(log_file), "--log-file")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port

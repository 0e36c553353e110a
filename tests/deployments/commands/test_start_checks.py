"""Mistakes that are found before Ray starts, and the one line for failures after that."""

import shutil
import socket
from pathlib import Path

import pytest

from deployments.commands import start_checks
from deployments.commands.start_checks import (
    Memory,
    StartFailed,
    check_memory,
    check_port,
    describe_failure,
    find_checkpoints,
    notes,
    read_memory,
)
from deployments.settings import AppArgs, ModelArgs, TalkerArgs
from qwen_tts.errors import UnsupportedError

GB = 1_000_000_000


def model(directory: Path, **fields: object) -> ModelArgs:
    return ModelArgs.model_validate({"name": "mine", "checkpoint": str(directory), **fields})


def refusal(model: ModelArgs) -> str:
    with pytest.raises(StartFailed) as caught:
        find_checkpoints([model])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("model mine")
    return message


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartFailed, match=rf"127.0.0.1:{port}: Address already in use; choose another .* --port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_checkpoints_that_can_be_served(custom_voice: Path) -> None:
    found = find_checkpoints([model(custom_voice), *AppArgs().models])
    assert [checkpoint.config.tts_model_type for checkpoint in found.values()] == [
        "custom_voice",
        "custom_voice",
        "base",
        "voice_design",
    ]
    assert found["mine"].directory == custom_voice


def test_a_missing_directory(tmp_path: Path) -> None:
    message = refusal(model(tmp_path / "none"))
    assert f"{tmp_path / 'none'} does not exist" in message
    assert "name a directory" in message


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    assert "config.json" in refusal(model(tmp_path))


@pytest.mark.parametrize("file", ["model.safetensors", "speech_tokenizer/model.safetensors"])
def test_a_checkpoint_whose_weights_are_missing_or_cut_off(custom_voice: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(custom_voice, copy)
    (copy / file).write_bytes((custom_voice / file).read_bytes()[:1000])
    assert f"{copy / file} is not a safetensors file" in refusal(model(copy))
    (copy / file).unlink()
    assert f"{copy / file} is missing" in refusal(model(copy))


def test_a_type_that_differs_from_the_settings(custom_voice: Path) -> None:
    assert "'custom_voice', settings say 'base'; remove type" in refusal(model(custom_voice, type="base"))


def test_a_hub_id_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> str:
        raise ConnectionError("Name or service not known\nAn error happened while ...")

    monkeypatch.setattr("qwen_tts.checkpoint.snapshot_download", download)
    message = refusal(model(Path("somebody/some-model")))
    assert "somebody/some-model" in message
    assert "Name or service not known" in message
    assert "a hub id that can be downloaded" in message


def test_memory_that_is_too_small_for_the_processes() -> None:
    args = AppArgs()
    checkpoints = find_checkpoints(args.models)
    check_memory(args, checkpoints, Memory(total_bytes=24 * GB, free_bytes=20 * GB))
    check_memory(args, checkpoints, None)
    with pytest.raises(
        StartFailed, match=r"not enough memory: about \d\.\d GB are needed and 0\.8 GB are free; .*--model"
    ):
        check_memory(args, checkpoints, Memory(total_bytes=4 * GB, free_bytes=GB))


def test_memory_counts_the_weights_as_they_are_loaded(custom_voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10^9 parameters are 4 GB in float32 and 2 GB in bfloat16. On a GPU they use no memory of the machine."""
    monkeypatch.setattr(start_checks, "count_parameters", lambda file: GB if file.parent == custom_voice else 0)

    def needed(talker: TalkerArgs) -> float:
        args = AppArgs(models=(model(custom_voice),), talker=talker)
        with pytest.raises(StartFailed) as caught:
            check_memory(args, find_checkpoints(args.models), Memory(total_bytes=0, free_bytes=0))
        return float(str(caught.value).split("about ")[1].split(" GB")[0])

    without = needed(TalkerArgs(num_gpus=1))
    assert needed(TalkerArgs()) - without == pytest.approx(4)
    assert needed(TalkerArgs(dtype="bfloat16")) - without == pytest.approx(2)


def test_this_machines_memory() -> None:
    memory = read_memory()
    if memory is not None:
        assert 0 < memory.free_bytes <= memory.total_bytes


def test_a_missing_compiler_is_a_note_unless_native_code_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise UnsupportedError("compile needs a C++ compiler (c++ or g++)")

    monkeypatch.setattr(start_checks, "find_compiler", missing)
    monkeypatch.setattr(start_checks, "_SHARED_MEMORY", Path("/none"))
    (note,) = notes(AppArgs())
    assert note.startswith("Note: the talker computes in plain torch")
    assert "C++ compiler" in note
    assert notes(AppArgs(talker=TalkerArgs(compile=False))) == []
    assert notes(AppArgs(talker=TalkerArgs(num_gpus=1))) == []
    with pytest.raises(StartFailed, match=r"talker.compile: .*C\+\+ compiler.*; install one"):
        notes(AppArgs(talker=TalkerArgs(compile=True)))


def test_a_small_shared_memory_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    args = AppArgs(talker=TalkerArgs(compile=False))
    monkeypatch.setattr(start_checks, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(start_checks, "OBJECT_STORE_BYTES", shutil.disk_usage(tmp_path).total + GB)
    (note,) = notes(args)
    assert "--shm-size" in note
    monkeypatch.setattr(start_checks, "OBJECT_STORE_BYTES", 0)
    assert notes(args) == []


TRACEBACK = """A replica failed to start with exception. Retrying 2 more time(s). Error:
Traceback (most recent call last):
  File "talker.py", line 1, in __init__
{}
"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            TRACEBACK.format("qwen_tts.errors.CheckpointError: /a/model.safetensors is missing"),
            "mine: /a/model.safetensors is missing",
        ),
        (TRACEBACK.format("KeyError: 'a'"), "mine: KeyError: 'a'"),
        (
            TRACEBACK.format("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"),
            "mine: the GPU's memory is too small; set fewer talker.slots or talker.positions, or a smaller model",
        ),
        (
            TRACEBACK.format("The node was running low on memory\nand the worker was killed."),
            "mine: its process was ended because the machine's memory ran out; stop other programs, serve fewer models"
            " (--model), or set talker.dtype to bfloat16 or int8",
        ),
    ],
    ids=["ours", "another", "GPU", "killed"],
)
def test_a_replicas_failure_is_one_line(message: str, line: str) -> None:
    assert describe_failure("mine", message) == line

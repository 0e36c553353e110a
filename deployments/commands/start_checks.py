"""The checks before Ray starts, so that a mistake costs a second and one line, not a minute and a traceback."""

import math
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from deployments.settings import EMBEDDED, AppArgs, ModelArgs, TalkerArgs
from qwen_tts.checkpoint import CODEC_DIRECTORY, WEIGHTS_FILE, resolve_checkpoint
from qwen_tts.config import ModelConfig, check_codec, read_codec_config, read_model_config
from qwen_tts.embedded import embedded_checkpoint
from qwen_tts.errors import CheckpointError, UnsupportedError
from qwen_tts.native.build import find_compiler

# The size of Ray's object store. Requests and answers are small; reference recordings are the largest objects (12 MB).
OBJECT_STORE_BYTES = 1_000_000_000
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # where Ray puts its object store
# A replica without weights (Python, torch and Ray); Ray's own processes and this one count as two. With default
# settings this makes 2.8 GB; all processes together had 3.0 GB, weights included.
_PROCESS_BYTES, _RAYS_PROCESSES = 350_000_000, 2
# Ray ends replicas when less of the machine's memory than this is free.
_RAY_KEEPS_FREE = 0.05
# A talker of int8 is loaded as bfloat16.
_LOADED_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 2}


class StartFailed(Exception):
    """The service cannot start. The message is one line that says why and what to do."""


@dataclass(frozen=True)
class Memory:
    """The memory of this machine, or of the container that this process is in."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """A model's directory and its config."""

    directory: Path
    config: ModelConfig


def check_port(host: str, port: int) -> None:
    """Raise StartFailed if the port cannot be listened on. Serve's proxy would retry for ever."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartFailed(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port"
            ) from None


def find_checkpoints(models: Sequence[ModelArgs]) -> dict[str, Checkpoint]:
    """Return the checkpoint of every model by its name. Downloads hub ids. Raises StartFailed."""
    return {model.name: _find_checkpoint(model) for model in models}


def _find_checkpoint(model: ModelArgs) -> Checkpoint:
    if model.checkpoint == EMBEDDED:
        assert model.type is not None, "settings require it"
        directory = embedded_checkpoint(model.type)
        return Checkpoint(directory, read_model_config(directory))
    try:
        directory = resolve_checkpoint(model.checkpoint)
        config = read_model_config(directory)
        check_codec(config, read_codec_config(directory / CODEC_DIRECTORY))
        for file in (directory / WEIGHTS_FILE, directory / CODEC_DIRECTORY / WEIGHTS_FILE):
            count_parameters(file)
    except CheckpointError as error:
        reason = str(error).splitlines()[0].rstrip(".:")
        raise StartFailed(
            f"model {model.name}: {reason}; name a directory in the released layout, or a hub id that can be downloaded"
        ) from None
    if model.type not in (None, config.tts_model_type):
        raise StartFailed(
            f"model {model.name} is of type {config.tts_model_type!r}, settings say {model.type!r}; remove type"
        )
    return Checkpoint(directory, config)


def count_parameters(file: Path) -> int:
    """Return the number of parameters in a safetensors file. Raises CheckpointError."""
    try:
        with safe_open(file, framework="pt") as stored:
            names = stored.keys()
            return sum(math.prod(stored.get_slice(name).get_shape()) for name in names)
    except FileNotFoundError:
        raise CheckpointError(f"{file} is missing") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is not a safetensors file: {error}") from None


def check_memory(args: AppArgs, checkpoints: Mapping[str, Checkpoint], memory: Memory | None) -> None:
    """Raise StartFailed if the weights and the processes do not fit into the free memory. `memory` None is unknown.

    Pools are not counted: their memory is committed as it is used.
    """
    if memory is None:
        return
    processes = _RAYS_PROCESSES + sum(
        part.num_replicas for part in (*_talkers(args), args.codec_decoder, args.codec_encoder, args.ingress)
    )
    needed = processes * _PROCESS_BYTES + sum(_weights(args, checkpoints))
    free = memory.free_bytes - int(memory.total_bytes * _RAY_KEEPS_FREE)
    if needed > free:
        raise StartFailed(
            f"not enough memory: about {needed / 1e9:.1f} GB are needed and {max(free, 0) / 1e9:.1f} GB are free; stop"
            " other programs, serve fewer models (--model), or set talker.dtype to bfloat16 or int8"
        )


def _talkers(args: AppArgs) -> list[TalkerArgs]:
    return [model.talker or args.talker for model in args.models]


def _weights(args: AppArgs, checkpoints: Mapping[str, Checkpoint]) -> Iterator[int]:
    """Yield the bytes of weights in the machine's memory, not a GPU's."""
    codecs = set()
    for model, talker in zip(args.models, _talkers(args), strict=True):
        directory = checkpoints[model.name].directory
        if talker.num_gpus == 0:
            yield count_parameters(directory / WEIGHTS_FILE) * _LOADED_BYTES[talker.dtype] * talker.num_replicas
        codecs.add(count_parameters(directory / CODEC_DIRECTORY / WEIGHTS_FILE))
    if args.codec_decoder.num_gpus == 0:
        yield sum(codecs) * _LOADED_BYTES["float32"]


def read_memory() -> Memory | None:
    """Return the memory of this container or machine, or None where there is no /proc."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    total, free = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no cgroup of version 2, or "max"
        limit = total
    return Memory(min(total, limit), min(free, limit))


def notes(args: AppArgs) -> list[str]:
    """Return a line for each condition that makes the service slower. Raises StartFailed."""
    return [note for note in (_compiler_note(args), _shared_memory_note()) if note is not None]


def _compiler_note(args: AppArgs) -> str | None:
    on_cpu = [talker for talker in _talkers(args) if talker.num_gpus == 0]
    if not any(talker.compile is not False for talker in on_cpu):
        return None
    try:
        find_compiler()
    except UnsupportedError as error:
        if any(talker.compile for talker in on_cpu):
            raise StartFailed(f"talker.compile: {error}; install one (g++) or remove compile") from None
        return f"Note: the talker computes in plain torch, about three times slower than native code: {error}"
    return None


def _shared_memory_note() -> str | None:
    if not _SHARED_MEMORY.is_dir():
        return None
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if free >= OBJECT_STORE_BYTES:
        return None
    return (
        f"Note: {_SHARED_MEMORY} has {free / 1e6:.0f} MB free, and Ray needs {OBJECT_STORE_BYTES / 1e6:.0f} MB there;"
        " it uses /tmp instead, which is slower. In Docker: docker run --shm-size=1.1g"
    )


def describe_failure(part: str, message: str) -> str:
    """Return one line for a deployment's message, which usually is a traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    assert lines, f"{part} has failed without a message"
    last = lines[-1]
    if "CUDA out of memory" in message:
        return f"{part}: the GPU's memory is too small; set fewer talker.slots or talker.positions, or a smaller model"
    if any(sign in message for sign in ("low on memory", "memory pressure", "OutOfMemory", "SIGKILL", "out of memory")):
        return (
            f"{part}: its process was ended because the machine's memory ran out; stop other programs, serve fewer"
            " models (--model), or set talker.dtype to bfloat16 or int8"
        )
    name, _, text = last.partition(": ")
    return f"{part}: {text if name.startswith('qwen_tts.errors.') and text else last}"

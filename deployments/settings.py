"""AppArgs: every tunable of the service, strict (a misspelt key is an error) and frozen.

The same object is filled from a YAML file (`qwen-tts serve --config`), from a Serve config's `args`, or from code.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qwen_tts.engine.sequence import CHUNK_SCHEDULE

# `checkpoint` of the model that `qwen-tts make-checkpoint` writes on first start: random weights, noise.
EMBEDDED = "embedded"
EMBEDDED_MODEL = "seeded-custom-voice"

Dtype = Literal["float32", "bfloat16", "float16"]
PositiveInt = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelArgs(Settings):
    """A model callers may name. `checkpoint` is a directory, a hub id, or "embedded"."""

    name: str = Field(EMBEDDED_MODEL, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    checkpoint: str = EMBEDDED


class ReplicaArgs(Settings):
    """Ray resources of one deployment. A fraction of `num_gpus` shares a GPU; 0 runs on the CPU."""

    num_replicas: PositiveInt = 1
    num_cpus: float = Field(0.5, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    # Streams still running when a replica must go are given this long to end.
    graceful_shutdown_s: float = Field(120.0, gt=0)


class TorchReplicaArgs(ReplicaArgs):
    """A deployment that computes. `threads` bounds torch's CPU threads; None takes half the cores, because talker and
    decoder compute side by side."""

    dtype: Dtype = "float32"
    threads: PositiveInt | None = None


class TalkerArgs(TorchReplicaArgs):
    """One talker replica. Beyond `slots` running and `max_waiting` queued requests, callers get 429."""

    attn_implementation: Literal["sdpa", "flash_attention_2"] = "sdpa"
    slots: PositiveInt = 8
    max_waiting: int = Field(16, ge=0)
    # Prompt rows plus frames of one sequence. Memory per slot is committed as it is used.
    positions: int = Field(8192, ge=64)
    max_frames: PositiveInt = 4096
    chunk_schedule: tuple[PositiveInt, ...] = Field(CHUNK_SCHEDULE, min_length=1)


class CodecDecoderArgs(TorchReplicaArgs):
    """One codec decoder replica: `slots` streams, of which up to `max_batch` are decoded together."""

    slots: PositiveInt = 32
    max_batch: PositiveInt = 16


class IngressArgs(ReplicaArgs):
    """The HTTP edge."""

    num_cpus: float = Field(0.1, ge=0)
    max_input_characters: PositiveInt = 4096
    max_body_bytes: PositiveInt = 1_000_000
    body_timeout_s: float = Field(10.0, gt=0)


class AppArgs(Settings):
    """The whole application; the first model is the one used when a request names none."""

    models: tuple[ModelArgs, ...] = Field((ModelArgs(),), min_length=1)
    talker: TalkerArgs = TalkerArgs()
    codec_decoder: CodecDecoderArgs = CodecDecoderArgs()
    ingress: IngressArgs = IngressArgs()
    cache_dir: Path = Path("~/.cache/qwen-tts")

    @model_validator(mode="after")
    def _names_are_unique(self) -> "AppArgs":
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models: names must differ, got {', '.join(names)}")
        return self


def load_settings(path: Path) -> AppArgs:
    """AppArgs from a YAML file. Raises pydantic.ValidationError naming the key at fault."""
    return AppArgs.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def describe_faults(faults: Iterable[object]) -> str:
    """One line per fault of a pydantic.ValidationError: where it is and what is wrong."""
    lines = []
    for fault in faults:
        assert isinstance(fault, dict)
        lines.append(f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}")
    return "\n".join(lines)

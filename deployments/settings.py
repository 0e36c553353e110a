"""AppArgs: every tunable of the service, strict (a misspelt key is an error) and frozen.

The same object is filled from a YAML file (`qwen-tts serve --config`), from a Serve config's `args`, or from code.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from qwen_tts.config import MODEL_TYPES, ModelType
from qwen_tts.engine.prefix import PREFIX_CACHE_BYTES
from qwen_tts.engine.scheduler import PREFILL_ROWS
from qwen_tts.engine.sequence import CHUNK_SCHEDULE

# The most characters that a model speaks at a time, unless its settings say otherwise: about 20 s in a Latin script.
UTTERANCE_CHARACTERS = 300
# `checkpoint` of a model that comes with the package.
EMBEDDED = "embedded"

_EMBEDDED_TYPES: tuple[ModelType, ...] = ("custom_voice", "base", "voice_design")

Dtype = Literal["float32", "bfloat16", "float16"]
PositiveInt = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalingArgs(Settings):
    """Serve's policy: replicas follow the requests under way, queued ones included, to `target_ongoing_requests` each.

    The delays say for how long more or fewer must have been wanted.
    """

    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt
    target_ongoing_requests: float = Field(4.0, gt=0)
    upscale_delay_s: float = Field(5.0, ge=0)
    downscale_delay_s: float = Field(120.0, ge=0)
    metrics_interval_s: float = Field(1.0, gt=0)
    look_back_period_s: float = Field(5.0, gt=0)

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "AutoscalingArgs":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        if self.look_back_period_s <= self.metrics_interval_s:
            raise ValueError("look_back_period_s must be longer than metrics_interval_s")
        return self


class ReplicaArgs(Settings):
    """Replicas of one deployment and the Ray resources of each. A fraction of `num_gpus` shares a GPU; 0 runs on the
    CPU. `resources` are the cluster's custom ones. With `autoscaling`, `num_replicas` is not given."""

    num_replicas: PositiveInt = 1
    autoscaling: AutoscalingArgs | None = None
    num_cpus: float = Field(0.5, ge=0)
    num_gpus: float = Field(0.0, ge=0)
    resources: dict[str, float] = {}
    # Streams still running when a replica must go are given this long to end.
    graceful_shutdown_s: float = Field(120.0, gt=0)

    @model_validator(mode="after")
    def _one_way_to_count_replicas(self) -> "ReplicaArgs":
        if self.autoscaling is not None and self.num_replicas != 1:
            raise ValueError("num_replicas is not for a deployment with autoscaling; set min_replicas there")
        return self


class TorchReplicaArgs(ReplicaArgs):
    """A deployment that computes. `threads` bounds torch's CPU threads; None takes half the cores, because talker and
    decoder compute side by side. More than there are cores, of all replicas of a machine, are worse than fewer: they
    wait actively, for each other."""

    threads: PositiveInt | None = None


class TalkerArgs(TorchReplicaArgs):
    """One talker replica. Beyond `slots` running and `max_waiting` queued requests, callers get 429.

    On a CPU float32 is exact, bfloat16 halves what is read per frame, int8 halves it again (the layers' products;
    the rest is bfloat16). `compile` on a CPU computes with native code, several times as fast, in which a request
    gets the same codes in any company whatever the dtype; it takes a C++ compiler, AVX-512 with VNNI and BF16 and some
    seconds at the start, and is done wherever it can be unless it is false. On a GPU it is decoding from CUDA graphs,
    and must be asked for: they are captured at the start and take minutes, the fewer `slots` and `positions`, the
    fewer. `prefill_rows` of a new prompt are read per frame of the running streams; what prompts of one voice or
    instruction have in common is kept, in `prefix_cache_bytes` (0: not). `keep_pace` lets a request wait for a slot
    while one stream more would give the running ones their frames later than they are played; where one stream alone
    is not in time at the start, it does nothing.
    """

    dtype: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    compile: bool | None = None
    prefill_rows: PositiveInt = PREFILL_ROWS
    prefix_cache_bytes: int = Field(PREFIX_CACHE_BYTES, ge=0)
    keep_pace: bool = True
    attn_implementation: Literal["sdpa", "flash_attention_2"] = "sdpa"
    slots: PositiveInt = 8
    max_waiting: int = Field(16, ge=0)
    # Prompt rows plus frames of one sequence. Memory per slot is committed as it is used.
    positions: int = Field(8192, ge=64)
    max_frames: PositiveInt = 4096
    chunk_schedule: tuple[PositiveInt, ...] = Field(CHUNK_SCHEDULE, min_length=1)


class CodecDecoderArgs(TorchReplicaArgs):
    """One codec decoder replica: `slots` streams, of which up to `max_batch` are decoded together. For each codec
    `primed_cache_bytes` of states in which reference recordings leave it are kept (5 MB a voice; 0: none)."""

    dtype: Dtype = "float32"
    slots: PositiveInt = 32
    max_batch: PositiveInt = 16
    primed_cache_bytes: int = Field(64_000_000, ge=0)


class CodecEncoderArgs(TorchReplicaArgs):
    """One codec encoder replica: reference recordings, up to `max_batch` at once, become voice prompts; with
    `max_waiting` of them under way, callers get 429. It computes in float32 whatever the others do: it runs once per
    voice, and a code that differs by rounding is another code."""

    max_batch: PositiveInt = 16
    max_waiting: PositiveInt = 64


class VoiceStoreArgs(Settings):
    """The voice library. `url` is a directory that every node sees, or a bucket (s3://..., gs://... with the fsspec
    package for it); who waits for it longer than `timeout_s` gets 503. `cache_bytes` of prompts are kept in the memory
    of each ingress replica. The latest `max_previews` designs can be kept, for `preview_ttl_s` each. `aliases` are
    other names of voices, for clients that ask for OpenAI's: {alloy: ryan}; no voice can be stored under one."""

    url: str = "~/.local/share/qwen-tts/voices"
    cache_bytes: int = Field(64_000_000, ge=0)
    max_voices: PositiveInt = 1000
    max_consents: PositiveInt = 1000
    aliases: dict[Annotated[str, StringConstraints(to_lower=True, min_length=1)], str] = {}
    timeout_s: float = Field(10.0, gt=0)
    preview_ttl_s: float = Field(3600.0, gt=0)
    max_previews: PositiveInt = 200


class ReferenceAudioArgs(Settings):
    """What callers may give as a reference recording: up to `max_bytes` (a minute of 48 kHz stereo WAV has 11.6 MB).
    URLs are fetched from the public internet only, at most `max_fetches` at once by an ingress replica; beyond, 429."""

    max_bytes: PositiveInt = 12_000_000
    allow_http_urls: bool = False
    url_timeout_s: float = Field(10.0, gt=0)
    max_fetches: PositiveInt = 32


class ModelArgs(Settings):
    """A model callers may name. `checkpoint` is a directory, a hub id, or "embedded"; `type` says which kind is
    embedded, and is compared with a checkpoint's own. `talker` replaces the application's section for this model.

    Longer text than `utterance_characters` is cut at sentences. Of a Latin script 300 are about 20 s; a Chinese,
    Japanese or Korean character counts as three. The embedded models were taught up to 14 words at a time, and skip
    some where there are more.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    checkpoint: str = EMBEDDED
    type: ModelType | None = None
    talker: TalkerArgs | None = None
    utterance_characters: int = Field(
        default_factory=lambda given: 70 if given.get("checkpoint") == EMBEDDED else UTTERANCE_CHARACTERS, ge=60
    )

    @model_validator(mode="after")
    def _an_embedded_model_has_a_type(self) -> "ModelArgs":
        if self.checkpoint == EMBEDDED and self.type is None:
            raise ValueError(f"type is missing; for an embedded checkpoint choose {', '.join(MODEL_TYPES)}")
        return self


class LongTextArgs(Settings):
    """Text beyond one utterance, of up to `max_characters` (40,000 are about 45 minutes, and 130 MB if not streamed).

    It is cut into utterances (see ModelArgs). Of them `pieces_at_once` are spoken at a time; while the listener has
    `ahead_s` of audio in hand, only by a replica that is half idle.
    """

    max_characters: PositiveInt = 40_000
    pieces_at_once: PositiveInt = 4
    ahead_s: float = Field(30.0, ge=0)


class IngressArgs(ReplicaArgs):
    """The HTTP edge. `max_input_characters` is for every text of a request but a speech's `input`."""

    num_cpus: float = Field(0.1, ge=0)
    max_input_characters: PositiveInt = 4096
    long_text: LongTextArgs = LongTextArgs()
    # Room for a reference recording in base64; all bodies under way together may hold max_bytes_under_way.
    max_body_bytes: PositiveInt = 17_000_000
    max_bytes_under_way: PositiveInt = 256_000_000
    # Audio that is held for all callers together: whole files until they are complete, streams as far as they are ahead
    # of their playback.
    max_audio_bytes_under_way: PositiveInt = 256_000_000
    # A body may pause this long, and take this long altogether.
    body_pause_s: float = Field(10.0, gt=0)
    body_timeout_s: float = Field(120.0, gt=0)
    max_candidates: PositiveInt = 4
    # Of one batch: items spoken at once, and what all of them together may come to (11 minutes at 24 kHz).
    batch_concurrency: PositiveInt = 8
    max_batch_audio_bytes: PositiveInt = 32_000_000
    # For so long a text that is being written may pause before its stream is closed.
    live_text_timeout_s: float = Field(30.0, gt=0)


class ApiKeyArgs(Settings):
    """`file` lists API keys by their hashes (`qwen-tts api-key create`); without it the service is open to everyone who
    can reach it. Every node with an ingress sees the file, a mounted Secret for example; it is read again when it
    changes."""

    file: Path | None = None


class AppArgs(Settings):
    """The whole application. Of several models of one type, a request that names none gets the first."""

    models: tuple[ModelArgs, ...] = Field(
        tuple(ModelArgs(name=f"demo-{kind.replace('_', '-')}", type=kind) for kind in _EMBEDDED_TYPES), min_length=1
    )
    talker: TalkerArgs = TalkerArgs()
    codec_decoder: CodecDecoderArgs = CodecDecoderArgs()
    codec_encoder: CodecEncoderArgs = CodecEncoderArgs()
    ingress: IngressArgs = IngressArgs()
    voices: VoiceStoreArgs = VoiceStoreArgs()
    reference_audio: ReferenceAudioArgs = ReferenceAudioArgs()
    api_keys: ApiKeyArgs = ApiKeyArgs()

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

"""AppArgs: all settings of the service, frozen and strict: a misspelt key is an error.

They come from a YAML file (`qwen-tts serve --config`), from a Serve config's `args`, or from code.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from qwen_tts.config import MODEL_TYPES, ModelType
from qwen_tts.engine.prefix import PREFIX_CACHE_BYTES
from qwen_tts.engine.scheduler import PREFILL_ROWS
from qwen_tts.engine.sequence import CHUNK_SCHEDULE

log = logging.getLogger("ray.serve")

# Characters that a model speaks at a time, unless its settings differ: about 20 s in a Latin script.
UTTERANCE_CHARACTERS = 300
EMBEDDED = "embedded"  # the `checkpoint` of a model that is part of the package

_EMBEDDED_TYPES: tuple[ModelType, ...] = ("custom_voice", "base", "voice_design")

Dtype = Literal["float32", "bfloat16", "float16"]
PositiveInt = Annotated[int, Field(ge=1)]
# Marks a setting that running replicas accept. A change of any other setting starts new replicas.
LIVE = Field(json_schema_extra={"live": True})


class Settings(BaseModel):
    # The string below a field is its description, from which docs/settings.md is rendered.
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def live_fields(cls) -> set[str]:
        """Return the names of the settings that running replicas accept."""
        return {name for name, field in cls.model_json_schema()["properties"].items() if field.get("live")}

    @classmethod
    def live_names(cls) -> list[str]:
        """Return the names of the settings that running replicas accept, without those that Serve applies itself."""
        return sorted(cls.live_fields() - ReplicaArgs.live_fields())

    def live_values(self) -> dict[str, object]:
        """Return the settings that running replicas accept, as JSON."""
        return self.model_dump(mode="json", include=set(self.live_names()))

    def changed(self, live: Mapping[str, object]) -> Self:
        """Return these settings with `live` instead of their own values. Raises ValueError."""
        if fixed := live.keys() - set(self.live_names()):
            raise ValueError(f"{', '.join(sorted(fixed))}: not a live setting; live settings: {self.live_names()}")
        return self.model_validate(self.model_dump() | dict(live))


@contextmanager
def faulty_settings_logged() -> Iterator[None]:
    """Log a fault of live settings. Serve would stop every replica whose `reconfigure` raises."""
    try:
        yield
    except ValueError as error:
        log.error("the live settings are faulty, and the former ones stay: %s", error)


class AutoscalingArgs(Settings):
    """Autoscaling of one deployment. Replicas report their load, and Serve keeps it between 50 and 60 %.

    The load is the number of running and waiting requests, as a share of those that the replicas can serve in time.
    Serve also adds a replica while listeners of running streams have almost no audio left.
    """

    min_replicas: int = Field(1, ge=0)
    """The lowest number of replicas. 0 is allowed for the talker of a model that has `start_wait_s`."""
    max_replicas: PositiveInt
    """The highest number of replicas."""
    upscale_delay_s: float = Field(5.0, ge=0)
    """Serve adds replicas after more replicas have been needed for this time."""
    downscale_delay_s: float = Field(120.0, ge=0)
    """Serve removes replicas after fewer replicas have been enough for this time. With `min_replicas: 0`, it must be 10
    or more: Serve averages the load over 5 s, and would start a replica for a request that has ended."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "AutoscalingArgs":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        if self.min_replicas == 0 and self.downscale_delay_s < 10:
            raise ValueError(
                f"downscale_delay_s is {self.downscale_delay_s:g}; with min_replicas 0 it must be 10 or more"
            )
        return self


class ReplicaArgs(Settings):
    """The replicas of one deployment, and the Ray resources of each replica."""

    num_replicas: Annotated[PositiveInt, LIVE] = 1
    """Number of replicas. Not allowed together with `autoscaling`."""
    autoscaling: Annotated[AutoscalingArgs | None, LIVE] = None
    """Lets the number of replicas follow the load."""
    num_cpus: float = Field(0.5, ge=0)
    """CPUs that Ray reserves for a replica. Ray only counts them: it does not limit what a replica uses."""
    num_gpus: float = Field(0.0, ge=0)
    """GPUs that Ray reserves for a replica. A fraction shares a GPU; 0 runs on the CPU."""
    resources: dict[str, float] = {}
    """Custom resources of the Ray cluster that Ray reserves for a replica."""
    graceful_shutdown_s: Annotated[float, LIVE] = Field(120.0, gt=0)
    """The longest time that a stopping replica waits for its running streams to end."""
    surge_percent: Annotated[int | None, LIVE] = Field(None, ge=0, le=100)
    """New replicas that an update may start before it stops old ones, in percent of the replicas. `null` is 100 without
    a GPU, and 0 with one, because a GPU rarely has room for a second replica. With 0, an update of a single replica is
    an outage until the new replica is ready. With more, the cluster needs free resources for at least one more replica.
    Until it has them, the update waits and the old replicas keep serving. To continue such an update without these
    resources, set `surge_percent` to 0."""

    @property
    def most_surge_percent(self) -> int:
        """The `surge_percent` that applies."""
        if self.surge_percent is None:
            return 0 if self.num_gpus else 100
        return self.surge_percent

    @model_validator(mode="after")
    def _one_way_to_count_replicas(self) -> "ReplicaArgs":
        if self.autoscaling is not None and self.num_replicas != 1:
            raise ValueError("num_replicas is not allowed together with autoscaling; set autoscaling.min_replicas")
        return self


class TorchReplicaArgs(ReplicaArgs):
    """The replicas of a deployment that computes with torch."""

    threads: PositiveInt | None = None
    """CPU threads of torch in a replica. `null` uses half of the CPUs that the replica may use, because talker and
    decoder compute at the same time. In a container, these are the CPUs of its limit. The sum over all replicas of a
    machine or container should not exceed its CPUs, because threads wait actively for each other."""
    hang_timeout_s: float = Field(10.0, gt=0)
    """The longest time for one computation: a step of a talker, or a batch of the decoder. A replica that takes longer
    hangs. Its process ends, and Serve replaces it."""


class TalkerArgs(TorchReplicaArgs):
    """The talker of a model: it turns text into codec frames of 80 ms."""

    dtype: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    """Precision of the weights. On a CPU, `float32` is exact. `bfloat16` halves the bytes that are read per frame.
    `int8` halves them again, and is the fastest on a CPU. It applies to the matrix products of the layers; the rest is
    `bfloat16`."""
    compile: bool | None = None
    """On a CPU: native code. It is several times as fast, and a request's codes do not depend on other requests. It
    needs a C++ compiler, AVX-512 with VNNI and BF16, and some seconds at the first start on a machine. `null` uses
    native code where it can run, and plain torch elsewhere. On a GPU: CUDA graphs, only if `true`. Their capture takes
    minutes at the start (less with fewer `slots` and `positions`). It has not been run on a GPU yet."""
    prefill_rows: PositiveInt = PREFILL_ROWS
    """Rows of a new prompt that are computed per frame of the running streams."""
    prefix_cache_bytes: int = Field(PREFIX_CACHE_BYTES, ge=0)
    """Memory for the beginnings of prompts that share a voice or an instruction. 0 switches this cache off. The cache
    changes no sample."""
    keep_pace: bool = True
    """A request waits for a slot while one more stream would make the running streams late. This setting has no effect
    if a single stream was already too slow when the replica started."""
    attn_implementation: Literal["sdpa", "flash_attention_2"] = "sdpa"
    """The attention kernel. `flash_attention_2` needs the extra `flash-attn`."""
    slots: PositiveInt = 8
    """Requests that one replica computes at the same time."""
    max_waiting: Annotated[int, LIVE] = Field(16, ge=0)
    """Requests that may wait for a slot. Further requests get 429."""
    positions: int = Field(8192, ge=64)
    """The highest sum of prompt rows and frames of one request. On a CPU, a slot uses memory only for positions that
    were used."""
    max_frames: PositiveInt = 4096
    """The highest number of frames in one utterance."""
    chunk_schedule: tuple[PositiveInt, ...] = Field(CHUNK_SCHEDULE, min_length=1)
    """Frames in each chunk of a stream, in order. The last number repeats."""


class CodecDecoderArgs(TorchReplicaArgs):
    """The codec decoder: it turns frames into audio. All models share it."""

    dtype: Dtype = "float32"
    """Precision of the weights."""
    slots: PositiveInt = 32
    """Streams that one replica decodes at the same time."""
    max_batch: PositiveInt = 16
    """Streams that are decoded together in one batch."""
    silence_timeout_s: float = Field(5.0, ge=1)
    """A talker that sends nothing for this long hangs, because it sends a heartbeat every half second. It is killed,
    and its streams go on on another talker."""
    primed_cache_bytes: int = Field(64_000_000, ge=0)
    """Memory per codec for decoder states after reference recordings (5 MB per voice). 0 switches this cache off. The
    cache changes no sample."""


class CodecEncoderArgs(TorchReplicaArgs):
    """The codec encoder: it turns reference recordings into voice prompts. All models share it.

    It always computes in float32, because rounding can change a code. It runs once per voice.
    """

    max_batch: PositiveInt = 16
    """Recordings that are encoded together in one batch."""
    hang_timeout_s: float = Field(60.0, gt=0)
    """The longest time for one batch. A replica that takes longer hangs. Its process ends, and Serve replaces it."""
    max_waiting: Annotated[PositiveInt, LIVE] = 64
    """Recordings that one replica accepts at the same time. Further requests get 429."""


class VoiceStoreArgs(Settings):
    """The voice library of the cluster."""

    url: str = "~/.local/share/qwen-tts/voices"
    """A directory that every node can access, or a bucket (`s3://...`, `gs://...`). A bucket needs its fsspec package:
    the extra `cloud`, or `pip install s3fs` or `gcsfs`."""
    cache_bytes: int = Field(64_000_000, ge=0)
    """Memory for voice prompts in each ingress replica."""
    max_voices: Annotated[PositiveInt, LIVE] = 1000
    """The highest number of stored voices."""
    max_consents: Annotated[PositiveInt, LIVE] = 1000
    """The highest number of recorded consents."""
    aliases: Annotated[dict[Annotated[str, StringConstraints(to_lower=True, min_length=1)], str], LIVE] = {}
    """Other names of voices, for example `{alloy: ryan}` for clients that send OpenAI's names. No voice can be stored
    under an alias."""
    timeout_s: float = Field(10.0, gt=0)
    """The longest time that a request waits for the storage. After this time it gets 503."""
    preview_ttl_s: float = Field(3600.0, gt=0)
    """The time for which a candidate of a designed voice stays stored, so that it can become a voice."""
    max_previews: PositiveInt = 200
    """The highest number of stored candidates of designed voices. Older candidates are deleted."""


class ReferenceAudioArgs(Settings):
    """The reference recordings that callers send."""

    max_bytes: Annotated[PositiveInt, LIVE] = 12_000_000
    """The largest recording. A minute of 48 kHz stereo WAV has 11.6 MB."""
    allow_http_urls: Annotated[bool, LIVE] = False
    """`true` also accepts `http:` URLs, not only `https:`. URLs are fetched from the public internet only."""
    url_timeout_s: Annotated[float, LIVE] = Field(10.0, gt=0)
    """The longest time for the download of a recording."""
    max_fetches: PositiveInt = 32
    """Downloads that one ingress replica runs at the same time. Further requests get 429."""


class ModelArgs(Settings):
    """A model that callers may name."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    """The name that callers send as `model`. Names must differ."""
    checkpoint: str = EMBEDDED
    """A directory in the released layout, a hub id, or `embedded` for a demo checkpoint of the package."""
    type: ModelType | None = None
    """The type of the model. Required for `embedded`; otherwise it must match the checkpoint's own type."""
    talker: TalkerArgs | None = None
    """Replaces the application's whole `talker` section for this model."""
    start_wait_s: float | None = Field(None, gt=0)
    """Allows the talker to have no replica while no client uses the model (`autoscaling.min_replicas: 0`). A request
    for the model then waits this long for a replica to load. After this time it gets 503 `model_starting`."""
    utterance_characters: int = Field(
        default_factory=lambda given: 70 if given.get("checkpoint") == EMBEDDED else UTTERANCE_CHARACTERS, ge=60
    )
    """Longer text is cut at sentences. The default is 300, about 20 s in a Latin script. A Chinese, Japanese or Korean
    character counts as three. The default of `embedded` models is 70. They were trained on up to 14 words at a time,
    and skip some words of longer texts."""

    @model_validator(mode="after")
    def _an_embedded_model_has_a_type(self) -> "ModelArgs":
        if self.checkpoint == EMBEDDED and self.type is None:
            raise ValueError(f"type is missing; for an embedded checkpoint choose {', '.join(MODEL_TYPES)}")
        return self


class LongTextArgs(Settings):
    """Text that is longer than one utterance. It is cut into pieces, and several pieces are spoken at the same time."""

    max_characters: PositiveInt = 40_000
    """The longest complete text. 40,000 characters are about 45 minutes of speech, and 130 MB if not streamed."""
    pieces_at_once: PositiveInt = 4
    """Pieces of one text that are spoken at the same time."""
    ahead_s: float = Field(30.0, ge=0)
    """If the listener has more audio than this in hand, the next piece begins only when a talker is half idle."""


class IngressArgs(ReplicaArgs):
    """The HTTP edge."""

    num_cpus: float = Field(0.1, ge=0)
    """CPUs that Ray reserves for a replica of the ingress."""
    max_input_characters: Annotated[PositiveInt, LIVE] = 4096
    """The longest live text (a text that is spoken while it is being written), and the longest text in any field except
    `input`."""
    long_text: Annotated[LongTextArgs, LIVE] = LongTextArgs()
    """Texts that are longer than one utterance of their model."""
    max_body_bytes: Annotated[PositiveInt, LIVE] = 17_000_000
    """The largest request body. The default has room for a reference recording in base64."""
    max_bytes_under_way: Annotated[PositiveInt, LIVE] = 256_000_000
    """The most bytes of request bodies that one ingress replica holds at the same time. Further requests get 429."""
    max_audio_bytes_under_way: Annotated[PositiveInt, LIVE] = 256_000_000
    """The most audio that one ingress replica holds. Beyond this limit, requests for whole files get 429, and streams
    are sent at the speed of playback."""
    body_pause_s: Annotated[float, LIVE] = Field(10.0, gt=0)
    """The longest pause of a request body."""
    body_timeout_s: Annotated[float, LIVE] = Field(120.0, gt=0)
    """The longest time for a whole request body."""
    max_candidates: Annotated[PositiveInt, LIVE] = 4
    """The highest number of candidates in one voice design request."""
    batch_concurrency: Annotated[PositiveInt, LIVE] = 8
    """Items of one batch that are spoken at the same time."""
    max_batch_audio_bytes: Annotated[PositiveInt, LIVE] = 32_000_000
    """The largest audio of one batch, all items together (11 minutes at 24 kHz)."""
    max_wait_s: Annotated[float, LIVE] = Field(2.0, ge=0, le=60)
    """A request may wait this long until its speech begins to be made. Then it gets 429 with `Retry-After`. The header
    `X-Max-Wait-Ms` replaces this time for one request."""
    max_batch_wait_s: Annotated[float, LIVE] = Field(30.0, ge=0, le=600)
    """The same for requests with the `priority` `batch`, and for the items of a batch."""
    silence_timeout_s: float = Field(5.0, ge=1)
    """A codec decoder that sends nothing for this long hangs. It is killed, and its streams go on on another one."""
    live_text_timeout_s: Annotated[float, LIVE] = Field(30.0, gt=0)
    """A live text may pause this long before its stream is closed."""


class ApiKeyArgs(Settings):
    """Access to the service. See [API keys](http.md#api-keys)."""

    file: Path | None = None
    """A file of API key hashes, made with `qwen-tts api-key create`. Every node with an ingress must be able to read
    it. The service looks at the file every half second, and reads it again when it has changed. Without a file,
    everyone who can reach the service may use it."""


class LoggingArgs(Settings):
    """The logs of the replicas. Every line about a request has its id, in all deployments."""

    encoding: Literal["text", "json"] = "text"
    """`json` writes one JSON object per line to the log files of the replicas, with `request_id`, `deployment`,
    `replica`, `levelname` and `message`. The output of the processes stays text."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines below this level are not written. `qwen-tts serve` reads the progress of the start from lines of `info`."""


class TracingArgs(Settings):
    """OpenTelemetry spans of requests. See [Traces](http.md#traces)."""

    endpoint: str | None = Field(None, pattern=r"^https?://")
    """The URL to which every replica sends its spans by OTLP over HTTP, for example `http://collector:4318/v1/traces`.
    It needs the extra `tracing`. `null` switches spans off."""
    sampling_ratio: float = Field(1.0, ge=0, le=1)
    """The share of requests that get spans. If a request has a `traceparent` header, its flag decides."""


class AppArgs(Settings):
    """The whole application."""

    models: tuple[ModelArgs, ...] = Field(
        tuple(ModelArgs(name=f"demo-{kind.replace('_', '-')}", type=kind) for kind in _EMBEDDED_TYPES), min_length=1
    )
    """The loaded models. The default is the three demo checkpoints. A request without a model name gets the first model
    of the type that it needs."""
    talker: TalkerArgs = TalkerArgs()
    """The talkers. Each model has its own talker deployment, with these settings unless the model has a `talker`."""
    codec_decoder: CodecDecoderArgs = CodecDecoderArgs()
    """The codec decoder, which all models share."""
    codec_encoder: CodecEncoderArgs = CodecEncoderArgs()
    """The codec encoder, which all models share."""
    ingress: IngressArgs = IngressArgs()
    """The HTTP edge and its limits."""
    voices: VoiceStoreArgs = VoiceStoreArgs()
    """The voice library."""
    reference_audio: ReferenceAudioArgs = ReferenceAudioArgs()
    """Reference recordings that callers send."""
    api_keys: ApiKeyArgs = ApiKeyArgs()
    """Access to the service."""
    logging: LoggingArgs = LoggingArgs()
    """The logs of the replicas."""
    tracing: TracingArgs = TracingArgs()
    """OpenTelemetry spans of requests."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> "AppArgs":
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models: names must differ, got {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _only_models_that_may_start_late_have_no_replica(self) -> "AppArgs":
        sections: dict[str, ReplicaArgs] = {
            "codec_decoder": self.codec_decoder,
            "codec_encoder": self.codec_encoder,
            "ingress": self.ingress,
        }
        sections |= {f"talker of {one.name}": self.talker_of(one) for one in self.models if one.start_wait_s is None}
        for name, section in sections.items():
            if section.autoscaling is not None and section.autoscaling.min_replicas == 0:
                raise ValueError(f"{name}: min_replicas is 0, which needs start_wait_s of a model; set it to 1 or more")
        return self

    def talker_of(self, model: ModelArgs) -> TalkerArgs:
        """Return the settings of the talker of `model`."""
        return model.talker or self.talker


def load_settings(path: Path) -> AppArgs:
    """Read AppArgs from a YAML file. Raises pydantic.ValidationError naming the key at fault."""
    return AppArgs.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def describe_faults(faults: Iterable[object]) -> str:
    """Return one line per fault of a pydantic.ValidationError: its place and its message."""
    lines = []
    for fault in faults:
        assert isinstance(fault, dict)
        lines.append(f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}")
    return "\n".join(lines)

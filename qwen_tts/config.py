"""The released config.json files as frozen dataclasses.

A missing key raises an error that names it. Keys that are not used (the files carry a dump of generation defaults) are
logged at DEBUG.

Field names are the config's own keys. Values and their constraints: the released configs of
Qwen3-TTS-12Hz-{0.6B,1.7B}-{Base,CustomVoice,VoiceDesign} and Qwen3-TTS-Tokenizer-12Hz.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_origin

from qwen_tts.errors import ConfigError

log = logging.getLogger(__name__)

ModelType = Literal["base", "custom_voice", "voice_design"]
MODEL_TYPES: tuple[ModelType, ...] = ("base", "custom_voice", "voice_design")

# The last SPECIAL_CODES ids of the talker's vocabulary are control ids. Of them only eos is ever sampled.
SPECIAL_CODES = 1024
LANGUAGE_AUTO = "auto"
_ID_TABLES = ("codec_language_id", "spk_id")

T = TypeVar("T")


@dataclass(frozen=True)
class TransformerConfig:
    """One stack of pre-norm layers with grouped-query attention (talker or code predictor)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float


@dataclass(frozen=True)
class CodePredictorConfig(TransformerConfig):
    """`talker_config.code_predictor_config`; vocab_size is the codebook size."""

    vocab_size: int
    num_code_groups: int


@dataclass(frozen=True)
class TalkerConfig(TransformerConfig):
    """`talker_config`. Control ids are the last SPECIAL_CODES ids of vocab_size."""

    vocab_size: int
    text_vocab_size: int
    text_hidden_size: int
    num_code_groups: int
    codec_pad_id: int
    codec_bos_id: int
    codec_eos_token_id: int
    codec_think_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    codec_language_id: Mapping[str, int]
    spk_id: Mapping[str, int]
    spk_is_dialect: Mapping[str, str | bool]
    code_predictor_config: CodePredictorConfig

    def __post_init__(self) -> None:
        first_special = self.vocab_size - SPECIAL_CODES
        if self.code_predictor_config.vocab_size > first_special:
            raise ConfigError(
                f"talker_config.vocab_size {self.vocab_size} leaves {first_special} codes below its {SPECIAL_CODES} "
                f"control ids; the codebook has {self.code_predictor_config.vocab_size}"
            )
        if self.code_predictor_config.num_code_groups != self.num_code_groups:
            raise ConfigError("talker_config.num_code_groups differs from code_predictor_config.num_code_groups")
        if not first_special <= self.codec_eos_token_id < self.vocab_size:
            raise ConfigError(f"talker_config.codec_eos_token_id {self.codec_eos_token_id} is not a control id")
        ids = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name.endswith(("_id", "_token_id"))}
        named = {f"{table}.{name}": code for table in _ID_TABLES for name, code in ids.pop(table).items()}
        for name, code in (ids | named).items():
            if not isinstance(code, int) or not 0 <= code < self.vocab_size:
                raise ConfigError(f"talker_config.{name} is {code!r}, not an id below vocab_size {self.vocab_size}")
        for speaker, dialect in self.spk_is_dialect.items():
            if dialect is not False and not (isinstance(dialect, str) and dialect in self.codec_language_id):
                raise ConfigError(f"talker_config.spk_is_dialect of {speaker} is {dialect!r}, which has no language id")


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """`speaker_encoder_config`: only the first two keys are stored; the rest are the released models' constants."""

    enc_dim: int
    sample_rate: int
    mel_dim: int = 128
    enc_channels: tuple[int, ...] = (512, 512, 512, 512, 1536)
    enc_kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    enc_dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    enc_attention_channels: int = 128
    enc_res2net_scale: int = 8
    enc_se_channels: int = 128


@dataclass(frozen=True)
class ModelConfig:
    """config.json of a model repository."""

    tts_model_type: ModelType
    tts_model_size: str
    assistant_token_id: int
    im_start_token_id: int
    im_end_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int
    talker_config: TalkerConfig
    # Set in models of type "base" only. The official finetuning/sft_12hz.py, which turns a Base model into a custom
    # voice, keeps this section but drops its weights, so the section is ignored in other types.
    speaker_encoder_config: SpeakerEncoderConfig | None = None

    def __post_init__(self) -> None:
        if self.tts_model_type not in MODEL_TYPES:
            raise ConfigError(f"tts_model_type is {self.tts_model_type!r}; known types: {', '.join(MODEL_TYPES)}")
        if self.tts_model_type == "base" and self.speaker_encoder_config is None:
            raise ConfigError("speaker_encoder_config is missing; a model of type 'base' needs it")
        if self.speaker_encoder_config and self.speaker_encoder_config.enc_dim != self.talker_config.hidden_size:
            raise ConfigError("speaker_encoder_config.enc_dim differs from talker_config.hidden_size")
        text_vocab = self.talker_config.text_vocab_size
        for f in dataclasses.fields(self):
            if f.name.endswith("_token_id") and not 0 <= getattr(self, f.name) < text_vocab:
                raise ConfigError(f"{f.name} is {getattr(self, f.name)}, not an id below text_vocab_size {text_vocab}")

    @property
    def follows_instructions(self) -> bool:
        """Whether instructions are used; the 0.6B CustomVoice model was not trained on them (as in the reference)."""
        return not (self.tts_model_type == "custom_voice" and self.tts_model_size == "0b6")

    @property
    def languages(self) -> tuple[str, ...]:
        """The accepted language names: "auto" and every language id that is not a dialect's."""
        names = self.talker_config.codec_language_id
        return (LANGUAGE_AUTO, *sorted(name for name in names if "dialect" not in name))

    @property
    def speakers(self) -> tuple[str, ...]:
        return tuple(sorted(self.talker_config.spk_id))


@dataclass(frozen=True)
class GenerationDefaults:
    """generation_config.json: the default sampling parameters of a request; max_new_tokens counts frames."""

    do_sample: bool = True
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    subtalker_dosample: bool = True
    subtalker_temperature: float = 0.9
    subtalker_top_k: int = 50
    subtalker_top_p: float = 1.0
    max_new_tokens: int = 8192


@dataclass(frozen=True)
class CodecDecoderConfig:
    """`decoder_config` of the codec. The vector-quantisation width is codebook_dim / 2."""

    latent_dim: int
    codebook_dim: int
    codebook_size: int
    decoder_dim: int
    hidden_size: int
    intermediate_size: int
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    num_hidden_layers: int
    num_quantizers: int
    num_semantic_quantizers: int
    sliding_window: int
    rope_theta: float
    rms_norm_eps: float
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]


@dataclass(frozen=True)
class CodecConfig:
    """config.json of the codec. `encoder_config` stays a mapping: transformers' MimiConfig reads it."""

    input_sample_rate: int
    output_sample_rate: int
    encode_downsample_rate: int
    decode_upsample_rate: int
    encoder_valid_num_quantizers: int
    decoder_config: CodecDecoderConfig
    encoder_config: Mapping[str, object] = field(repr=False)

    def __post_init__(self) -> None:
        d = self.decoder_config
        samples = 1
        for ratio in (*d.upsample_rates, *d.upsampling_ratios):
            samples *= ratio
        if samples != self.decode_upsample_rate:
            raise ConfigError(f"decode_upsample_rate is {self.decode_upsample_rate} but the decoder makes {samples}")
        if d.num_quantizers != self.encoder_valid_num_quantizers:
            raise ConfigError("decoder_config.num_quantizers differs from encoder_valid_num_quantizers")


def read_model_config(directory: Path) -> ModelConfig:
    """Read `directory`/config.json. Raises ConfigError that names the file and the key at fault."""
    return _read_file(directory / "config.json", model_config)


def model_config(raw: Mapping[str, object]) -> ModelConfig:
    without = {} if raw.get("tts_model_type") == "base" else {"speaker_encoder_config": None}
    return _read(ModelConfig, {**raw, **without}, "")


def read_codec_config(directory: Path) -> CodecConfig:
    """Read `directory`/config.json of a codec. Raises ConfigError that names the file and the key at fault."""
    return _read_file(directory / "config.json", codec_config)


def codec_config(raw: Mapping[str, object]) -> CodecConfig:
    return _read(CodecConfig, raw, "")


def check_codec(model: ModelConfig, codec: CodecConfig) -> None:
    """Raise ConfigError when the codec cannot decode the talker's codes."""
    talker, decoder = model.talker_config, codec.decoder_config
    for what, spoken, heard in (
        ("code groups", talker.num_code_groups, decoder.num_quantizers),
        ("codes per group", talker.code_predictor_config.vocab_size, decoder.codebook_size),
    ):
        if spoken != heard:
            raise ConfigError(f"the talker has {spoken} {what} and the codec beside it has {heard}")


def read_generation_defaults(directory: Path) -> GenerationDefaults:
    """Read generation_config.json; return the released defaults when the file does not exist."""
    path = directory / "generation_config.json"
    if not path.exists():
        return GenerationDefaults()
    return _read_file(path, lambda raw: _read(GenerationDefaults, raw, ""))


def _read_file(path: Path, parse: Callable[[Mapping[str, object]], T]) -> T:
    raw = read_json(path)
    try:
        return parse(raw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_json(path: Path) -> Mapping[str, object]:
    """Parse a JSON object. Raises ConfigError when the file is missing or holds something else."""
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path} does not hold a JSON object")
    return parsed


_NESTED: dict[str, type] = {
    "talker_config": TalkerConfig,
    "code_predictor_config": CodePredictorConfig,
    "speaker_encoder_config": SpeakerEncoderConfig,
    "decoder_config": CodecDecoderConfig,
}


def _read(cls: type[T], raw: Mapping[str, object], where: str) -> T:
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # every T here is a dataclass
    names = {f.name for f in fields}
    if unread := sorted(set(raw) - names):
        log.debug("config keys not used in %s: %s", where.rstrip(".") or "the file", ", ".join(unread))
    values: dict[str, object] = {}
    for f in fields:
        key = f"{where}{f.name}"
        if f.name not in raw:
            if f.default is dataclasses.MISSING:
                raise ConfigError(f"key {key!r} is missing")
            continue
        values[f.name] = _value(f.name, f.type, raw[f.name], key)
    return cls(**values)


def _value(name: str, annotation: object, value: object, key: str) -> object:
    if name in _NESTED:
        if value is None and name == "speaker_encoder_config":
            return None
        if not isinstance(value, dict):
            raise ConfigError(f"key {key!r} must be an object, not {value!r}")
        return _read(_NESTED[name], value, f"{key}.")
    if annotation is int and (not isinstance(value, int) or isinstance(value, bool)):
        raise ConfigError(f"key {key!r} must be an integer, not {value!r}")
    if annotation is bool and not isinstance(value, bool):
        raise ConfigError(f"key {key!r} must be true or false, not {value!r}")
    if annotation is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"key {key!r} must be a number, not {value!r}")
        return float(value)
    container = get_origin(annotation)
    if annotation is str and not isinstance(value, str):
        raise ConfigError(f"key {key!r} must be a string, not {value!r}")
    if container is Mapping and not isinstance(value, dict):
        raise ConfigError(f"key {key!r} must be an object, not {value!r}")
    if container is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"key {key!r} must be a list, not {value!r}")
        if not all(isinstance(entry, int) and not isinstance(entry, bool) for entry in value):
            raise ConfigError(f"key {key!r} must be a list of integers, not {value!r}")
        return tuple(value)
    return value

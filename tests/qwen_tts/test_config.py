"""Reading config.json: what is missing, of the wrong type or contradictory is named by its path."""

import copy
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen_tts.config import (
    CodecConfig,
    CodecDecoderConfig,
    CodePredictorConfig,
    GenerationDefaults,
    ModelConfig,
    SpeakerEncoderConfig,
    TalkerConfig,
    check_codec,
    codec_config,
    model_config,
    read_codec_config,
    read_generation_defaults,
    read_json,
    read_model_config,
)
from qwen_tts.errors import ConfigError
from qwen_tts.seeded import JsonObject, codec_json, model_json
from qwen_tts.seeded_tokenizer import RELEASED_TEXT_VOCAB
from tests.qwen_tts.released_vocabulary import RELEASED_IDS
from tests.qwen_tts.tiny import TINY

Read = Callable[[JsonObject], object]

WORDY = dataclasses.replace(TINY, text_vocab=RELEASED_TEXT_VOCAB)  # room for the released ids
MODEL = model_json(WORDY, "custom_voice", RELEASED_IDS)
BASE = model_json(WORDY, "base", RELEASED_IDS)
CODEC = codec_json(TINY)
SECTIONS: dict[str, type] = {
    "talker_config": TalkerConfig,
    "code_predictor_config": CodePredictorConfig,
    "speaker_encoder_config": SpeakerEncoderConfig,
    "decoder_config": CodecDecoderConfig,
}


def keys(cls: type, where: str = "") -> Iterator[str]:
    """Path of every key without a default, of `cls` and the sections in it."""
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING:
            yield where + field.name
        if field.name in SECTIONS:
            yield from keys(SECTIONS[field.name], f"{where}{field.name}.")


def changed(raw: JsonObject, path: str, **value: object) -> JsonObject:
    """A copy of `raw` with `new=...` at `path`, or without the key."""
    copied = copy.deepcopy(raw)
    section: object = copied
    *outer, last = path.split(".")
    for name in outer:
        assert isinstance(section, dict)
        section = section[name]
    assert isinstance(section, dict)
    section.pop(last)
    if "new" in value:
        section[last] = value["new"]
    return copied


@pytest.mark.parametrize(
    ("read", "raw", "path"),
    [
        *((model_config, BASE, path) for path in keys(ModelConfig)),
        *((codec_config, CODEC, path) for path in keys(CodecConfig)),
    ],
)
def test_a_missing_key_is_named_with_its_path(read: Read, raw: JsonObject, path: str) -> None:
    with pytest.raises(ConfigError, match=f"^key '{path}' is missing$"):
        read(changed(raw, path))


def test_the_walk_over_keys_reaches_every_depth() -> None:
    paths = set(keys(ModelConfig))
    assert {"tts_model_type", "talker_config.code_predictor_config.head_dim", "speaker_encoder_config.enc_dim"} <= paths
    assert not {"speaker_encoder_config", "speaker_encoder_config.mel_dim"} & paths


@pytest.mark.parametrize(
    ("read", "raw", "path", "value", "kind"),
    [
        (model_config, MODEL, "talker_config.hidden_size", "64", "an integer"),
        (model_config, MODEL, "talker_config.hidden_size", 64.0, "an integer"),
        (model_config, MODEL, "talker_config.hidden_size", True, "an integer"),
        (model_config, MODEL, "talker_config.code_predictor_config.vocab_size", None, "an integer"),
        (model_config, MODEL, "talker_config.rms_norm_eps", "1e-6", "a number"),
        (model_config, MODEL, "talker_config.rope_theta", False, "a number"),
        (model_config, MODEL, "talker_config", [], "an object"),
        (model_config, MODEL, "talker_config.code_predictor_config", None, "an object"),
        (model_config, BASE, "speaker_encoder_config", 24000, "an object"),
        (codec_config, CODEC, "decoder_config.sliding_window", "72", "an integer"),
    ],
)
def test_a_wrong_type_is_named(read: Read, raw: JsonObject, path: str, value: object, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"key '{path}' must be {kind}, not "):
        read(changed(raw, path, new=value))


@pytest.mark.parametrize(
    ("read", "raw", "path", "value"),
    [
        (model_config, MODEL, "talker_config.spk_id", 5),
        (model_config, MODEL, "talker_config.spk_is_dialect", None),
        (model_config, MODEL, "talker_config.codec_language_id", ["english"]),
        (codec_config, CODEC, "decoder_config.upsample_rates", 8),
        (codec_config, CODEC, "decoder_config.upsample_rates", ["8", 5, 4, 3]),
        (codec_config, CODEC, "encoder_config", None),
    ],
)
def test_a_wrong_type_of_a_collection_is_named(read: Read, raw: JsonObject, path: str, value: object) -> None:
    with pytest.raises(ConfigError, match=path):
        read(changed(raw, path, new=value))


@pytest.mark.parametrize(
    ("read", "raw", "path", "value", "says"),
    [
        (model_config, MODEL, "tts_model_type", "clone", "tts_model_type is 'clone'; known types: base, custom_voice"),
        (model_config, MODEL, "tts_model_type", "base", "speaker_encoder_config is missing"),
        (model_config, MODEL, "talker_config.vocab_size", 1100, "vocab_size 1100 leaves 76 codes"),
        (model_config, MODEL, "talker_config.num_code_groups", 5, "num_code_groups differs"),
        (model_config, MODEL, "talker_config.codec_eos_token_id", 3, "codec_eos_token_id 3 is not a control id"),
        (model_config, MODEL, "talker_config.codec_eos_token_id", TINY.codebook - 1, "is not a control id"),
        (model_config, MODEL, "talker_config.codec_eos_token_id", TINY.codebook + 1024, "is not a control id"),
        (codec_config, CODEC, "decode_upsample_rate", 960, "decode_upsample_rate is 960 but the decoder makes 1920"),
        (codec_config, CODEC, "decoder_config.upsample_rates", [8, 5, 4], "is 1920 but the decoder makes 640"),
        (codec_config, CODEC, "decoder_config.num_quantizers", 5, "num_quantizers differs from encoder_valid"),
    ],
)
def test_values_that_contradict_each_other(read: Read, raw: JsonObject, path: str, value: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(changed(raw, path, new=value))


def test_keys_we_do_not_read_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    talker = MODEL["talker_config"]
    assert isinstance(talker, dict)
    with caplog.at_level(logging.DEBUG, "qwen_tts.config"):
        config = model_config({**MODEL, "zebra": 1, "talker_config": {**talker, "quagga": 2}})
    assert config == model_config(MODEL)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert any("the file" in line and "zebra" in line for line in lines)
    assert any("talker_config" in line and "quagga" in line for line in lines)


def test_numbers_and_lists_take_their_declared_types() -> None:
    talker = model_config(MODEL).talker_config
    assert isinstance(talker.rope_theta, float), "stored as 1000000"
    assert codec_config(CODEC).decoder_config.upsample_rates == (8, 5, 4, 3)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "is missing"), (b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[]", "does not hold a JSON object")],
)
def test_a_file_that_is_no_config(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_bytes(content)
    for read in (read_model_config, read_codec_config):
        with pytest.raises(ConfigError, match=f"{file}.* {says}"):
            read(tmp_path)
    with pytest.raises(ConfigError, match=says):
        read_json(file)


def test_generation_defaults_come_from_their_file_where_there_is_one(tmp_path: Path) -> None:
    released = GenerationDefaults()
    assert read_generation_defaults(tmp_path) == released
    assert (released.temperature, released.top_k, released.top_p) == (0.9, 50, 1.0)
    assert (released.repetition_penalty, released.max_new_tokens) == (1.05, 8192)

    stored = {"temperature": 1, "subtalker_top_k": 7, "transformers_version": "4.57.3"}
    (tmp_path / "generation_config.json").write_text(json.dumps(stored))
    assert read_generation_defaults(tmp_path) == dataclasses.replace(released, temperature=1.0, subtalker_top_k=7)

    (tmp_path / "generation_config.json").write_text('{"top_k": "many"}')
    with pytest.raises(ConfigError, match=r"generation_config\.json: key 'top_k' must be an integer"):
        read_generation_defaults(tmp_path)


def test_a_fault_in_a_file_names_the_file(tmp_path: Path) -> None:
    for read, raw, path in (
        (read_model_config, MODEL, "talker_config.hidden_size"),
        (read_codec_config, CODEC, "output_sample_rate"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(changed(raw, path)))
        with pytest.raises(ConfigError, match=f"^{tmp_path}/config.json: key '{path}' is missing$"):
            read(tmp_path)


def test_a_fine_tuned_custom_voice_keeps_the_section_of_its_base_model() -> None:
    """As the official finetuning/sft_12hz.py writes it; the speaker encoder's weights are gone."""
    talker = BASE["talker_config"]
    assert isinstance(talker, dict)
    tuned = {**BASE, "tts_model_type": "custom_voice", "talker_config": {**talker, "spk_id": {"MyVoice": 130}}}
    config = model_config(tuned)
    assert config.speaker_encoder_config is None
    assert config.speakers == ("MyVoice",)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("decoder_config.num_quantizers", 8, "the talker has 4 code groups and the codec beside it has 8"),
        ("decoder_config.codebook_size", 64, "the talker has 128 codes per group and the codec beside it has 64"),
    ],
)
def test_a_codec_of_another_talker_is_refused(path: str, value: int, says: str) -> None:
    raw = changed(changed(CODEC, path, new=value), "encoder_valid_num_quantizers", new=8 if value == 8 else 4)
    check_codec(model_config(MODEL), codec_config(CODEC))
    with pytest.raises(ConfigError, match=says):
        check_codec(model_config(MODEL), codec_config(raw))


@pytest.mark.parametrize("dialect", ["cockney", True, ["x"]])
def test_a_dialect_without_a_language_id_is_named(dialect: object) -> None:
    with pytest.raises(ConfigError, match=r"spk_is_dialect of ryan is .*, which has no language id"):
        model_config(changed(MODEL, "talker_config.spk_is_dialect", new={"ryan": dialect}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("talker_config.codec_pad_id", 10**6),
        ("talker_config.codec_bos_id", -5),
        ("talker_config.spk_id", {"ryan": 10**6}),
        ("talker_config.codec_language_id", {"english": None}),
        ("tts_pad_token_id", 10**6),
    ],
)
def test_an_id_beyond_its_table_is_named(path: str, value: object) -> None:
    with pytest.raises(ConfigError, match=path.rsplit(".", 1)[-1]):
        model_config(changed(MODEL, path, new=value))

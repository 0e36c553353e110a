"""The numbers of the demo checkpoints' config.json files; everything else is as released."""

import dataclasses

from demo.corpus import SPEAKERS
from demo.pronunciation import SLOT_WIDTH, SLOTS
from qwen_tts.config import MODEL_TYPES, ModelConfig, ModelType, model_config
from qwen_tts.seeded import SHAPES, JsonObject, Shape, codec_json, model_json
from qwen_tts.seeded_tokenizer import SpecialIds

SHAPE = dataclasses.replace(
    SHAPES["small"],
    hidden=256, intermediate=768, layers=6, heads=4, kv_heads=2, head_dim=64, text_hidden=SLOTS * SLOT_WIDTH,
    groups=8, codebook=256, predictor_hidden=192, predictor_intermediate=512, predictor_layers=2, predictor_heads=4,
    predictor_kv_heads=2, predictor_head_dim=48, speaker_channels=64, codec_latent=192, codec_vq=64, codec_width=256,
    codec_hidden=192, codec_intermediate=512, codec_layers=3, codec_heads=4, codec_head_dim=48, encoder_filters=16,
    encoder_hidden=128, encoder_layers=2, encoder_heads=4, encoder_quantizers=8,
)  # fmt: skip
_DECODER_WINDOW = 24  # frames; half a training crop, so that training covers all distances


def demo_codec_json() -> JsonObject:
    raw = codec_json(SHAPE)
    decoder = raw["decoder_config"]
    assert isinstance(decoder, dict)
    decoder |= {"sliding_window": _DECODER_WINDOW}
    return raw


def demo_model_json(model_type: ModelType, special: SpecialIds, text_vocab: int) -> JsonObject:
    """Return the config.json of one type: English, and three built-in speakers."""
    raw = model_json(shape_with(text_vocab), model_type, special)
    talker = raw["talker_config"]
    assert isinstance(talker, dict)
    talker["codec_language_id"] = {"english": talker["codec_language_id"]["english"]}
    for table in ("spk_id", "spk_is_dialect"):
        talker[table] = {name: talker[table][name] for name in SPEAKERS if name in talker[table]}
    if "aiden" in talker["spk_is_dialect"]:
        talker["spk_is_dialect"] = dict.fromkeys(SPEAKERS, False)
    return raw


def demo_configs(special: SpecialIds, text_vocab: int) -> dict[ModelType, ModelConfig]:
    return {kind: model_config(demo_model_json(kind, special, text_vocab)) for kind in MODEL_TYPES}


def shape_with(text_vocab: int) -> Shape:
    return dataclasses.replace(SHAPE, text_vocab=text_vocab)

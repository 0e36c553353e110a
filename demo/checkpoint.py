"""Write the trained modules as checkpoints in 16 bits, in the form that qwen_tts/embedded.py reads."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from demo.pronunciation import PronouncedEmbedding
from demo.shape import demo_codec_json, demo_model_json
from demo.tokens import DemoTokenizer
from qwen_tts.checkpoint import CODEC_DIRECTORY, WEIGHTS_FILE
from qwen_tts.config import CodecConfig, codec_config
from qwen_tts.embedded import DIRECTORIES
from qwen_tts.seeded import CODEC_PREPROCESSOR, MODEL_PREPROCESSOR, JsonObject, write_json
from qwen_tts.train.codec import CodecTrainee
from qwen_tts.train.talker import TalkerTrainee

# The best values for the small talker: a temperature below the released 0.9, and no repetition penalty.
_GENERATION: JsonObject = {
    "do_sample": True, "temperature": 0.3, "top_k": 20, "top_p": 1.0, "repetition_penalty": 1.0,
    "subtalker_dosample": True, "subtalker_temperature": 0.3, "subtalker_top_k": 20, "subtalker_top_p": 1.0,
    "max_new_tokens": 2048,
}  # fmt: skip
_CARDS = Path(__file__).with_name("cards")
_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


def read_codec_config() -> CodecConfig:
    return codec_config(demo_codec_json())


def write_codec(directory: Path, codec: CodecTrainee) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    parts = nn.ModuleDict({"encoder": codec.encoder, "decoder": codec.decoder})
    save_file(_halved(parts.state_dict()), directory / WEIGHTS_FILE)
    write_json(directory / "config.json", demo_codec_json())
    write_json(directory / "preprocessor_config.json", CODEC_PREPROCESSOR)


def write_checkpoints(
    root: Path, trainee: TalkerTrainee, tokenizer: DemoTokenizer, tokenizer_files: Path, codec: Path
) -> None:
    """Write the base checkpoint whole and, of the others, the files that differ (see qwen_tts/embedded.py).

    They share one talker: the types differ in their prompts only.
    """
    text_embedding = trainee.model.talker.model.text_embedding
    assert isinstance(text_embedding, PronouncedEmbedding)
    prefix = "talker.model.text_embedding."
    tensors = {name: t for name, t in trainee.model.state_dict().items() if not name.startswith(prefix)}
    tensors[f"{prefix}weight"] = text_embedding.table()
    for model_type, name in DIRECTORIES.items():
        directory = root / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        write_json(directory / "config.json", demo_model_json(model_type, tokenizer.special, tokenizer.rows))
        card, provenance = ((_CARDS / f"{part}.md").read_text(encoding="utf-8") for part in (model_type, "provenance"))
        (directory / "README.md").write_text(card + provenance, encoding="utf-8")
    base = root / DIRECTORIES["base"]
    shutil.copytree(codec, base / CODEC_DIRECTORY)
    for file in _TOKENIZER_FILES:
        shutil.copy(tokenizer_files / file, base)
    write_json(base / "generation_config.json", _GENERATION)
    write_json(base / "preprocessor_config.json", MODEL_PREPROCESSOR)
    save_file(_halved(tensors), base / WEIGHTS_FILE)


def _halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.float16).contiguous().clone() for name, tensor in tensors.items()}

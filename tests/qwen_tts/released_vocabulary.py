"""vocab.json and merges.txt of the released checkpoints, rebuilt byte for byte from PyPI dashscope (Apache-2.0).

dashscope ships the same vocabulary in tiktoken form: base64 of every token and its rank. A merge is then what byte-pair
encoding a token with only the tokens of lower rank leaves: two parts.
"""

import base64
import importlib.util
import itertools
import json
from pathlib import Path

from qwen_tts.config import ModelConfig, ModelType, model_config
from qwen_tts.seeded import Shape, model_json
from qwen_tts.seeded_tokenizer import SpecialIds, byte_alphabet

RELEASED_IDS = SpecialIds(
    assistant_token_id=77091,
    im_start_token_id=151644,
    im_end_token_id=151645,
    tts_pad_token_id=151671,
    tts_bos_token_id=151672,
    tts_eos_token_id=151673,
)


def released_config(model_type: ModelType = "custom_voice", shape: Shape | None = None) -> ModelConfig:
    """The released config.json of this type; 0.6B unless another shape is given."""
    return model_config(model_json(shape or Shape(), model_type, RELEASED_IDS))


def write_vocabulary(directory: Path) -> None:
    ranks = _ranks()
    spelling = {byte: char for char, byte in byte_alphabet().items()}
    spelled = {token: "".join(spelling[byte] for byte in token) for token in ranks}
    vocab = {spelled[token]: rank for token, rank in ranks.items()}
    merges = (_parts(token, ranks) for token in ranks if len(token) > 1)
    text = json.dumps(vocab, separators=(",", ":"), ensure_ascii=False)
    (directory / "vocab.json").write_text(text, encoding="utf-8")
    lines = (f"{spelled[left]} {spelled[right]}\n" for left, right in merges)
    (directory / "merges.txt").write_text("".join(lines), encoding="utf-8")


def _ranks() -> dict[bytes, int]:
    spec = importlib.util.find_spec("dashscope")  # finding is enough: importing it would open network clients
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"
    pairs = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _parts(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        best = min(range(len(pairs)), key=pairs.__getitem__)
        assert pairs[best] < ranks[token], token
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]

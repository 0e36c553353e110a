"""Device memory of a talker and of a codec decoder, from the dimensions of the released models.

These figures are arithmetic, not measurements: weights and pools are exact, while CUDA, its graphs and activations are
an allowance. `python -m k8s.render.memory` prints the table of the chart's README.
"""

from dataclasses import dataclass

import torch
import yaml
from torch import nn

from deployments.settings import AppArgs
from k8s.render.__main__ import preset
from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.state import DecoderState
from qwen_tts.config import ModelType, codec_config, model_config
from qwen_tts.models.qwen3_tts import Qwen3TTS
from qwen_tts.seeded import SHAPES, codec_json, model_json
from qwen_tts.seeded_tokenizer import SpecialIds

GB = 1e9
# Device memory of the presets' GPUs: the size on the data sheet minus what the driver reserves.
GPU_BYTES = {"l4": 22.5 * GB, "a10": 22.5 * GB, "l40s": 45 * GB, "a100": 79 * GB, "h100": 79 * GB}
# Per process: the CUDA context, its libraries and the private pools of the CUDA graphs.
ALLOWANCE_BYTES = int(1.5 * GB)
# Per stream of a decoder's batch: the activations of its piece.
ACTIVATIONS_BYTES_PER_STREAM = int(0.1 * GB)

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ANY_IDS = SpecialIds(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class TalkerMemory:
    """Device memory of one talker replica, in bytes."""

    weights: int
    per_slot: int

    def total(self, slots: int) -> int:
        return self.weights + slots * self.per_slot + ALLOWANCE_BYTES


@dataclass(frozen=True)
class DecoderMemory:
    """Device memory of one codec decoder replica, in bytes."""

    weights: int
    per_slot: int

    def total(self, slots: int, max_batch: int) -> int:
        return self.weights + slots * self.per_slot + max_batch * ACTIVATIONS_BYTES_PER_STREAM + ALLOWANCE_BYTES


def talker_memory(size: str, positions: int, dtype: str = "bfloat16", model_type: ModelType = "base") -> TalkerMemory:
    """Return the memory of a talker of `size` ("0.6B", "1.7B") with `positions` per slot.

    A position of a slot holds keys, values and a row of text that is not yet read.
    """
    with torch.device("meta"):
        config = model_config(model_json(SHAPES[size], model_type, _ANY_IDS))
        model = Qwen3TTS(config)
    talker = config.talker_config
    item = _BYTES[dtype]
    key_values = 2 * talker.num_hidden_layers * talker.num_key_value_heads * talker.head_dim * item
    return TalkerMemory(_weights(model, item), positions * (key_values + talker.hidden_size * item))


def decoder_memory(dtype: str = "float32") -> DecoderMemory:
    """Return the memory of a decoder of the codec, which all released models share."""
    with torch.device("meta"):
        decoder = CodecDecoder(codec_config(codec_json(SHAPES["0.6B"])).decoder_config)
        state = DecoderState(decoder, slots=1)
    item = _BYTES[dtype]
    per_slot = sum(tensor.numel() * item for tensor in state.tensors)
    return DecoderMemory(_weights(decoder, item), per_slot)


def _weights(module: nn.Module, item: int) -> int:
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count > 0, f"{type(module).__name__} has no weights"
    return count * item


def table() -> str:
    """Return a Markdown table: for every preset with a GPU, the memory of a 1.7B talker and of a decoder."""
    lines = ["| preset | replica | share | slots | weights | slots' memory | batch | allowance | total |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for gpu, gpu_bytes in GPU_BYTES.items():
        args = AppArgs.model_validate(yaml.safe_load(preset(gpu).read_text(encoding="utf-8"))["app"])
        talker, decoder = talker_memory("1.7B", args.talker.positions), decoder_memory()
        parts = (
            ("talker", args.talker, talker.weights, args.talker.slots * talker.per_slot, 0),
            (
                "decoder",
                args.codec_decoder,
                decoder.weights,
                args.codec_decoder.slots * decoder.per_slot,
                args.codec_decoder.max_batch * ACTIVATIONS_BYTES_PER_STREAM,
            ),
        )
        for name, section, *amounts in parts:
            share = f"{section.num_gpus:g} = {section.num_gpus * gpu_bytes / GB:.1f}"
            total = sum(amounts) + ALLOWANCE_BYTES
            assert total <= section.num_gpus * gpu_bytes, f"a {name} of preset {gpu} does not fit into its share"
            sizes = [f"{amount / GB:.1f}" for amount in (*amounts, ALLOWANCE_BYTES, total)]
            lines.append(f"| {gpu} | {name} | {share} | {section.slots} | {' | '.join(sizes)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

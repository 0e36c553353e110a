"""The talker: the language model that reads the prompt and predicts code group 0 of every frame."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from qwen_tts.config import TalkerConfig
from qwen_tts.layers import Attend, Block, Transformer
from qwen_tts.models.code_predictor import CodePredictor
from qwen_tts.packed_linear import Weights, packer
from qwen_tts.prompt import REFERENCE_FRAME, SPEAKER_EMBEDDING


class TextProjection(nn.Module):
    """Projects text embeddings to the talker's width: linear, SiLU, linear."""

    def __init__(self, text_hidden_size: int, hidden_size: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(text_hidden_size, text_hidden_size)
        self.linear_fc2 = nn.Linear(text_hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear_fc2(F.silu(self.linear_fc1(x)))
        return out


class TalkerTransformer(Transformer):
    """The block stack, the embedding table of the text and that of code group 0."""

    def __init__(self, config: TalkerConfig, attend: Attend) -> None:
        super().__init__(config, attend)
        self.text_embedding = nn.Embedding(config.text_vocab_size, config.text_hidden_size)
        self.codec_embedding = nn.Embedding(config.vocab_size, config.hidden_size)


class Talker(nn.Module):
    """The module of weights `talker.*` in a checkpoint, code predictor included."""

    def __init__(self, config: TalkerConfig, attend: Attend) -> None:
        super().__init__()
        self.config = config
        self.model = TalkerTransformer(config, attend)
        self.text_projection = TextProjection(config.text_hidden_size, config.hidden_size)
        self.codec_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.code_predictor = CodePredictor(config, attend)

    def pack(self, weights: Weights, heads: Weights) -> None:
        """Pack for a CPU: the linear layers of all blocks as `weights`, the heads as `heads`."""
        pack, pack_head = packer(weights), packer(heads)
        for block in self.modules():
            if isinstance(block, Block):
                block.self_attn.pack(pack)
                block.mlp.pack(pack)
        self.replace_heads(lambda head: pack_head([head]))

    def replace_heads(self, make: Callable[[nn.Linear], nn.Module]) -> None:
        """Replace every head, and the linear layer before the code predictor, by the result of `make`."""
        predictor = self.code_predictor
        for owner, name in ((self, "codec_head"), (predictor, "small_to_mtp_projection")):
            if isinstance(layer := getattr(owner, name), nn.Linear):
                setattr(owner, name, make(layer))
        predictor.lm_head = nn.ModuleList(make(head) for head in predictor.lm_head if isinstance(head, nn.Linear))

    def embed_text(self, ids: Tensor) -> Tensor:
        """Embed text token ids [...] -> [..., D]."""
        out: Tensor = self.text_projection(self.model.text_embedding(ids))
        return out

    def embed_code(self, ids: Tensor) -> Tensor:
        """Embed codec ids of group 0, control ids included, [...] -> [..., D]."""
        out: Tensor = self.model.codec_embedding(ids)
        return out

    def embed_frame(self, codes: Tensor) -> Tensor:
        """Embed frames [..., G] as the sum of their groups' embeddings -> [..., D]."""
        rows = self.embed_code(codes[..., 0])
        for group in range(1, codes.shape[-1]):
            rows = rows + self.code_predictor.embed(group, codes[..., group])
        return rows

    def embed_rows(self, text_ids: Tensor, codec_ids: Tensor, speakers: Tensor, frames: Tensor) -> Tensor:
        """Embed prompt rows in the layout of prompt.py: ids [N] and [N] -> [N, D].

        The n SPEAKER_EMBEDDING rows stand for speakers [n, D], the m REFERENCE_FRAME rows for frames [m, G].
        """
        rows = self.embed_text(text_ids)
        is_id = codec_ids >= 0
        rows[is_id] += self.embed_code(codec_ids[is_id])
        rows[codec_ids == SPEAKER_EMBEDDING] += speakers.to(rows)
        rows[codec_ids == REFERENCE_FRAME] += self.embed_frame(frames)
        return rows

"""The depth transformer. It predicts code groups 1..G-1 of one frame from the talker's hidden state."""

import torch
from torch import Tensor, nn

from qwen_tts.config import TalkerConfig
from qwen_tts.layers import Attend, Read, Transformer


class CodePredictorTransformer(Transformer):
    """The block stack and one embedding table per group 1..G-1, at the talker's width."""

    def __init__(self, config: TalkerConfig, attend: Attend) -> None:
        predictor = config.code_predictor_config
        super().__init__(predictor, attend)
        self.codec_embedding = nn.ModuleList(
            nn.Embedding(predictor.vocab_size, config.hidden_size) for _ in range(config.num_code_groups - 1)
        )


class CodePredictor(nn.Module):
    """Predicts the codes of a frame one after the other. Its cache starts empty for every frame.

    Rows enter at the talker's width. If the predictor's own width differs (in the 1.7B models),
    `small_to_mtp_projection` narrows them.
    """

    def __init__(self, config: TalkerConfig, attend: Attend) -> None:
        super().__init__()
        predictor = config.code_predictor_config
        self.model = CodePredictorTransformer(config, attend)
        self.lm_head = nn.ModuleList(
            nn.Linear(predictor.hidden_size, predictor.vocab_size, bias=False)
            for _ in range(config.num_code_groups - 1)
        )
        self.small_to_mtp_projection: nn.Module = (
            nn.Identity()
            if config.hidden_size == predictor.hidden_size
            else nn.Linear(config.hidden_size, predictor.hidden_size)
        )

    def embed(self, group: int, codes: Tensor) -> Tensor:
        """Embed codes [...] of `group` in 1..G-1 -> [..., D]."""
        out: Tensor = self.model.codec_embedding[group - 1](codes)
        return out

    def logits(self, group: int, rows: Tensor, first_position: int, kv: Tensor, read: Read) -> Tensor:
        """Return logits [B, V] of `group`, after reading rows [B, T, D] into kv [layers, 2, B, L, K, d].

        The rows are read at `first_position` and behind it. read: what computes the layers, `self.model` or its like.
        """
        length = first_position + rows.shape[1]
        positions = torch.arange(first_position, length, device=rows.device).expand(rows.shape[0], -1)
        hidden = read(self.small_to_mtp_projection(rows), positions, kv[:, :, :, :length], None)
        out: Tensor = self.lm_head[group - 1](hidden[:, -1])
        return out

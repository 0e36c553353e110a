"""The talker and its code predictor: which table embeds which code, and that their caches change nothing."""

from pathlib import Path

import pytest
import torch

from qwen_tts.config import read_model_config
from qwen_tts.engine.kv_cache import allocate_kv_cache
from qwen_tts.layers import sdpa
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.models.talker import Talker
from tests.qwen_tts.tiny import CPU, TINY


@pytest.fixture(scope="module")
def talker(custom_voice: Path) -> Talker:
    return load_talker(custom_voice, read_model_config(custom_voice), sdpa, CPU, torch.float32)


def test_a_frame_is_the_sum_of_its_codes_each_from_its_own_table(talker: Talker) -> None:
    codes = torch.tensor([[5, 9, 70, 127], [0, 0, 0, 0]])
    weights = talker.state_dict()
    expected = weights["model.codec_embedding.weight"][codes[:, 0]].clone()
    for group in range(1, TINY.groups):
        expected += weights[f"code_predictor.model.codec_embedding.{group - 1}.weight"][codes[:, group]]
    torch.testing.assert_close(talker.embed_frame(codes), expected)


def test_text_goes_through_its_projection(talker: Talker) -> None:
    ids = torch.tensor([3, 300])
    projection, rows = talker.text_projection, talker.model.text_embedding.weight[ids]
    hidden = rows @ projection.linear_fc1.weight.T + projection.linear_fc1.bias
    expected = hidden * torch.sigmoid(hidden) @ projection.linear_fc2.weight.T + projection.linear_fc2.bias
    torch.testing.assert_close(talker.embed_text(ids), expected)


@torch.inference_mode()
def test_code_predictor_row_by_row_is_its_rows_at_once(talker: Talker) -> None:
    """As the engine calls it: two rows first, then one per group, on a cache that the last frame has filled."""
    predictor, config = talker.code_predictor, talker.config.code_predictor_config
    rows = torch.randn((2, TINY.groups, TINY.hidden), generator=torch.Generator().manual_seed(0))
    used = allocate_kv_cache(config, 2, TINY.groups, CPU, torch.float32).fill_(1e4)
    predictor.logits(1, rows[:, :2], 0, used, predictor.model)
    for group in range(2, TINY.groups):
        logits = predictor.logits(group, rows[:, group : group + 1], group, used, predictor.model)
        fresh = allocate_kv_cache(config, 2, TINY.groups, CPU, torch.float32)
        at_once = predictor.logits(group, rows[:, : group + 1], 0, fresh, predictor.model)
        torch.testing.assert_close(logits, at_once, atol=1e-5, rtol=1e-5)


def test_each_group_has_a_head_of_its_own(talker: Talker) -> None:
    predictor, config = talker.code_predictor, talker.config.code_predictor_config
    rows = torch.ones((1, 2, TINY.hidden))
    kv = allocate_kv_cache(config, 1, TINY.groups, CPU, torch.float32)
    with torch.inference_mode():
        logits = [predictor.logits(group, rows, 0, kv, predictor.model) for group in range(1, TINY.groups)]
        hidden = predictor.model(predictor.small_to_mtp_projection(rows), torch.arange(2)[None], kv[:, :, :, :2], None)
    for group, own in enumerate(logits):
        torch.testing.assert_close(own, hidden[:, -1] @ talker.state_dict()[f"code_predictor.lm_head.{group}.weight"].T)

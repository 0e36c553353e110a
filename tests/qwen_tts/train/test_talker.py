"""Training sees what generation does: what the engine would say is what the trained rows predict."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen_tts.config import ModelConfig, read_model_config
from qwen_tts.layers import sdpa
from qwen_tts.models.qwen3_tts import load_talker
from qwen_tts.prompt import build_prompt
from qwen_tts.request import ClonedVoice, SpeechRequest, TextLayout
from qwen_tts.text import TextTokenizer
from qwen_tts.train.clips import SOUNDS_PER_FRAME
from qwen_tts.train.talker import TalkerTrainee
from qwen_tts.train.talker_batch import NO_LABEL, Corruption, Example, collate
from qwen_tts.voice import VoicePrompt
from tests.qwen_tts.tiny import CPU, GREEDY, TINY, codes, custom, tiny_engine

LAYOUTS: tuple[TextLayout, ...] = ("whole", "streaming")


def cloned(layout: TextLayout, *, continued: bool) -> SpeechRequest:
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal(TINY.hidden).astype(np.float32)
    reference = rng.integers(TINY.codebook, size=(5, TINY.groups)).astype(np.int16)
    prompt = VoicePrompt(embedding, reference, "Some words.") if continued else VoicePrompt(embedding)
    return SpeechRequest(
        "Hello there.", ClonedVoice(prompt), text_layout=layout, sampling=GREEDY, predictor_sampling=GREEDY,
        repetition_penalty=1.0, max_frames=12,
    )  # fmt: skip


def built_in(layout: TextLayout) -> SpeechRequest:
    request = custom("One, two, three.", layout=layout, sampling=GREEDY, instructions="Slowly.")
    return dataclasses.replace(request, predictor_sampling=GREEDY, repetition_penalty=1.0)


REQUESTS = {
    f"{name} {layout}": request
    for layout in LAYOUTS
    for name, request in (
        ("built-in", built_in(layout)),
        ("x-vector", cloned(layout, continued=False)),
        ("continued", cloned(layout, continued=True)),
    )
}


def trainee_of(checkpoint: Path, base: ModelConfig) -> TalkerTrainee:
    """Plays a Base model with the weights of `checkpoint`."""
    config = read_model_config(checkpoint)
    trainee = TalkerTrainee(base, dropout=0.5, in_bfloat16=False)
    trainee.model.talker.load_state_dict(load_talker(checkpoint, config, sdpa, CPU, torch.float32).state_dict())
    trainee.model.talker.codec_head.weight.data[TINY.codebook :] = 0.0  # the engine suppresses control codes
    return trainee.eval()


@pytest.mark.parametrize("name", REQUESTS)
def test_the_rows_trained_predict_what_the_engine_says(name: str, custom_voice: Path, base: Path) -> None:
    request = REQUESTS[name]
    checkpoint = base if isinstance(request.voice, ClonedVoice) else custom_voice
    config = read_model_config(checkpoint)
    said = np.array(codes(tiny_engine(checkpoint), request))
    trainee = trainee_of(checkpoint, read_model_config(base))
    if isinstance(request.voice, ClonedVoice):  # the trainee would make the embedding from a recording
        embedding = torch.from_numpy(request.voice.prompt.speaker_embedding)
        trainee._speakers = lambda references: embedding.expand(2, -1)  # type: ignore[method-assign]
    layout = build_prompt(config, TextTokenizer(checkpoint, config), request)
    lengths = len(said), 3  # one of them is padded
    batch = collate([Example(layout, said[:frames]) for frames in lengths], config, None, np.random.default_rng(0))
    with torch.inference_mode():
        found = trainee.losses(batch, torch.arange(len(batch.codes)))
    # The engine was not allowed to end, and the labels say it did, twice.
    right = sum(lengths) / (sum(lengths) + 2)
    assert found["group_0_accuracy"] == pytest.approx(right)
    assert found["other_groups_accuracy"] == 1.0


def test_a_code_read_wrong_is_still_to_be_said_right(custom_voice: Path) -> None:
    config = read_model_config(custom_voice)
    layout = build_prompt(config, TextTokenizer(custom_voice, config), built_in("whole"))
    said = np.random.default_rng(1).integers(TINY.codebook, size=(40, TINY.groups))
    example = Example(layout, said)
    batch = collate([example], config, Corruption(share=1.0, codes=0.5, frames=0.5), np.random.default_rng(0))
    assert 0.02 < (batch.frames_read.numpy() != said).mean() < 0.98
    assert (batch.codes.numpy() == said).all()
    known = batch.labels[batch.labels != NO_LABEL]
    assert known.tolist() == [*said[:, 0].tolist(), config.talker_config.codec_eos_token_id]
    assert (batch.labels.flatten()[batch.predicting_rows] == batch.codes[:, 0]).all()


def test_sounds_are_named_from_the_rows_that_predict_their_frames(custom_voice: Path, base: Path) -> None:
    config = read_model_config(custom_voice)
    layout = build_prompt(config, TextTokenizer(custom_voice, config), built_in("whole"))
    rng = np.random.default_rng(2)
    said, heard = rng.integers(TINY.codebook, size=(6, TINY.groups)), rng.integers(3, size=(6, SOUNDS_PER_FRAME))
    examples = [Example(layout, said[:4]), Example(layout, said, sounds=heard)]  # of the first nobody knows
    batch = collate(examples, config, None, rng)
    trainee = TalkerTrainee(read_model_config(base), 0.0, sounds=3, in_bfloat16=False).eval()
    with torch.inference_mode():
        found = trainee.losses(batch, torch.arange(len(batch.codes)))
        assert trainee.sound_head is not None
        seen: list[torch.Tensor] = []
        trainee.sound_head.register_forward_hook(lambda head, inputs, output: seen.extend(inputs))
        trainee.losses(batch, torch.arange(len(batch.codes)))
        logits = trainee.sound_head(seen[0]).view(6, SOUNDS_PER_FRAME, 3)
    wanted = torch.from_numpy(heard)
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    assert found["sounds"] == pytest.approx(float(by_hand))
    assert found["sounds_accuracy"] == pytest.approx(float((logits.argmax(2) == wanted).float().mean()))
    # The head is for training alone.
    assert not [name for name in trainee.model.state_dict() if "sound" in name]


def test_without_known_sounds_nothing_is_lost(custom_voice: Path, base: Path) -> None:
    config = read_model_config(custom_voice)
    layout = build_prompt(config, TextTokenizer(custom_voice, config), built_in("whole"))
    batch = collate([Example(layout, np.zeros((4, TINY.groups), np.int64))], config, None, np.random.default_rng(0))
    for sounds in (0, 3):
        trainee = TalkerTrainee(read_model_config(base), 0.0, sounds, in_bfloat16=False).eval()
        assert trainee.losses(batch, torch.arange(4))["sounds"] == 0.0


def test_the_matrices_inside_the_layers_are_named(base: Path) -> None:
    config = read_model_config(base)
    trainee = TalkerTrainee(config, dropout=0.0)
    names = trainee.hidden_matrices()
    layers = config.talker_config.num_hidden_layers + config.talker_config.code_predictor_config.num_hidden_layers
    assert len(set(names)) == len(names) == 7 * layers
    shapes = {name: tuple(parameter.shape) for name, parameter in trainee.named_parameters()}
    assert all(len(shapes[name]) == 2 and "layers." in name for name in names)

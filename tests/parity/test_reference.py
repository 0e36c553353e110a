"""Our numbers against the reference's (PyPI qwen-tts 0.1.1), recorded by make_goldens.py on seeded checkpoints.

Greedy codes are equal, logits agree within 2e-5, decoded samples within 3e-6 (tight enough to
see a wrong epsilon in a norm), all in float32.
"""

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qwen_tts import Qwen3TTSModel
from qwen_tts.checkpoint import CODEC_DIRECTORY
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.engine.engine import Engine, load_engine
from qwen_tts.models.talker import Talker
from qwen_tts.request import CustomVoice, DesignedVoice, SamplingParams, SpeechRequest, Voice
from tests.parity.shapes import CHECKPOINTS

GOLDENS = Path(__file__).parent / "goldens"
INDEX: dict[str, Any] = json.loads((GOLDENS / "index.json").read_text(encoding="utf-8"))
SIGNATURES: dict[str, Any] = json.loads((GOLDENS / "signatures.json").read_text(encoding="utf-8"))
CPU = torch.device("cpu")
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("parity")
    for name, checkpoint in CHECKPOINTS.items():
        checkpoint.write(root / name)
    return {name: root / name for name in CHECKPOINTS}


@pytest.fixture(scope="module")
def engines(checkpoints: dict[str, Path]) -> dict[str, Engine]:
    return {
        name: load_engine(
            str(path),
            device=CPU,
            dtype=torch.float32,
            attn_implementation="sdpa",
            slots=2,
            positions=512,
            max_waiting=0,
        ).engine
        for name, path in checkpoints.items()
    }


class Recorder:
    """Logits of code groups 0, 1 and 5 as the heads gave them, one row per frame."""

    def __init__(self) -> None:
        self.logits: dict[int, list[NDArray[np.float32]]] = {0: [], 1: [], 5: []}

    @contextmanager
    def attached(self, talker: Talker) -> Iterator[None]:
        heads = {0: talker.codec_head, **{g: talker.code_predictor.lm_head[g - 1] for g in (1, 5)}}
        hooks = [head.register_forward_hook(self._keep(group)) for group, head in heads.items()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(self, group: int) -> Any:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.logits[group].append(output[0].numpy().copy())

        return keep


def request_of(case: dict[str, Any]) -> SpeechRequest:
    instructions = case["instruct"] or ""
    voice: Voice = (
        DesignedVoice(instructions) if case["speaker"] is None else CustomVoice(case["speaker"], instructions)
    )
    return SpeechRequest(
        text=case["text"],
        voice=voice,
        language=case["language"] or "auto",
        text_layout="whole" if case["non_streaming_mode"] else "streaming",
        sampling=GREEDY,
        predictor_sampling=GREEDY,
        seed=0,
        max_frames=INDEX["generation"]["max_new_tokens"],
    )


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda case: str(case["name"]))
def test_greedy_codes_and_logits(engines: dict[str, Engine], case: dict[str, Any]) -> None:
    golden = np.load(GOLDENS / case["file"])
    engine = engines[case["checkpoint"]]
    recorder = Recorder()
    with recorder.attached(engine._runner.talker):
        sequence = engine.add(request_of(case))
        while not sequence.finished:
            engine.step()

    expected = golden["codes"]
    assert len(expected) >= 64 or case["eos"]
    # The reference's max_new_tokens counts the step after the last frame too, so it stops one frame before ours.
    np.testing.assert_array_equal(np.array(sequence.frames)[: len(expected)], expected)
    assert len(sequence.frames) == len(expected) + (0 if case["eos"] else 1)
    assert sequence.finish_reason == ("stop" if case["eos"] else "length")

    compared = {0: golden["frames0"], 1: golden["frames"], 5: golden["frames"]}
    for group, frames in compared.items():
        ours = np.stack([recorder.logits[group][frame] for frame in frames])
        np.testing.assert_allclose(ours, golden[f"logits{group}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("decode", INDEX["decodes"], ids=lambda decode: str(decode["file"]))
def test_decoded_samples(checkpoints: dict[str, Path], decode: dict[str, Any]) -> None:
    golden = np.load(GOLDENS / decode["file"])
    decoder = load_codec_decoder(checkpoints[decode["checkpoint"]] / CODEC_DIRECTORY, CPU, torch.float32)
    with torch.inference_mode():
        samples = decoder(torch.from_numpy(golden["codes"].astype(np.int64))[None], Carry())[0].numpy()
    assert len(samples) == decode["samples"]
    assert np.abs(golden["samples"]).max() > 0.01, "silence would agree with anything"
    np.testing.assert_allclose(samples[:: decode["stride"]], golden["samples"], atol=3e-6, rtol=0)


@pytest.mark.parametrize("name", INDEX["checkpoints"])
def test_speakers_and_languages(checkpoints: dict[str, Path], name: str) -> None:
    model = Qwen3TTSModel.from_pretrained(str(checkpoints[name]))
    golden = INDEX["checkpoints"][name]
    assert model.get_supported_speakers() == (golden["supported_speakers"]["value"])
    assert model.get_supported_languages() == golden["supported_languages"]["value"]


@pytest.mark.parametrize("method", ["generate_custom_voice", "generate_voice_design", "get_supported_speakers"])
def test_signatures(method: str) -> None:
    assert parameters(getattr(Qwen3TTSModel, method)) == SIGNATURES["Qwen3TTSModel"][method]


def parameters(method: Callable[..., object]) -> list[dict[str, str | None]]:
    return [
        {
            "name": parameter.name,
            "kind": parameter.kind.name,
            "default": None if parameter.default is parameter.empty else repr(parameter.default),
        }
        for parameter in inspect.signature(method).parameters.values()
        if parameter.name != "self"
    ]

"""Record what the reference implementation (PyPI qwen-tts 0.1.1) computes on the checkpoints of shapes.py.

Run from the root of the repository, in our environment; --oracle is the python of a virtual environment that has
qwen-tts==0.1.1 (torch CPU and transformers 4.57.3 are enough; torchaudio is not needed, an empty stand-in is made):

    OMP_NUM_THREADS=1 python tests/parity/make_goldens.py --oracle /path/to/oracle/bin/python

Two packages named qwen_tts cannot share a process. The first half, in this interpreter, writes the checkpoints; the
second half is this same file run by the oracle's python with --record. It calls the reference's public methods and
reads tensors through forward hooks. A second run writes the same bytes.

Into --out (tests/parity/goldens):
  index.json        generation parameters, the cases, the decodes; of each checkpoint the names and file digests
  <case>.npz        codes [F, G] int16; logits before any processing: frames0 [n] and logits0 [n, V] of code group 0,
                    frames [m], logits1 and logits5 [m, C] of code groups 1 and 5
  decode_*.npz      codes [F, G] int16 and every `stride`-th of the `samples` float32 samples
  signatures.json   parameters (self and cls left out) of the reference's public methods
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

REFERENCE_VERSION = "0.1.1"
GREEDY = {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": 72}
MIN_NEW_TOKENS = 2  # the reference's constant: eos cannot be among this many first frames
LOGIT_FRAMES = (0, 1, 2, 40)
DECODES = [  # frames, stride of the stored samples (coprime to the 1920 of a frame), seed of the codes
    (300, 61, 7),
    (37, 7, 8),
]
DECODE_CHECKPOINTS = ("A-custom_voice", "B-custom_voice")
MODEL_METHODS = (
    "from_pretrained", "generate_custom_voice", "generate_voice_design", "generate_voice_clone",
    "create_voice_clone_prompt", "get_supported_speakers", "get_supported_languages",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call of generate_custom_voice, or of generate_voice_design where `speaker` is None."""

    name: str
    checkpoint: str
    text: str
    speaker: str | None
    language: str | None = None
    instruct: str | None = None
    non_streaming_mode: bool = True

    def arguments(self) -> dict[str, Any]:
        voice = {} if self.speaker is None else {"speaker": self.speaker}
        return {
            "text": self.text,
            "language": self.language,
            "instruct": self.instruct,
            "non_streaming_mode": self.non_streaming_mode,
            **voice,
        }


A, DESIGN, B = "A-custom_voice", "A-voice_design", "B-custom_voice"
CASES = [
    Case("a_default_language", A, "Hello there, how are you today?", "ryan"),
    Case("a_english_streaming", A, "The quick brown fox jumps.", "vivian", "english", non_streaming_mode=False),
    Case("a_eric_auto", A, "你好，今天天气怎么样？", "eric", "auto"),
    Case("a_eric_chinese_streaming", A, "我们去吃火锅吧。", "eric", "chinese", non_streaming_mode=False),
    Case("a_eric_english", A, "Sichuan is far away from here.", "eric", "english"),
    Case("a_dylan_chinese", A, "北京欢迎你！", "dylan", "chinese"),
    Case("a_instruct", A, "We won the game.", "serena", "english", "Speak in a very cheerful tone."),
    Case("a_instruct_streaming", A, "我其实不想离开你。", "aiden", "chinese", "用悲伤的语气说", False),
    Case("a_emoji_streaming", A, "Hi 👋🏽 世界! ça va? 🎉", "uncle_fu", "auto", non_streaming_mode=False),
    Case("a_one_letter_streaming", A, "A", "sohee", "korean", non_streaming_mode=False),
    Case("a_leading_newline", A, "\n  Good morning.", "ryan", "auto"),
    Case("a_mixed_case_names", A, "こんにちは、元気ですか。", "OnO_aNNa", "JaPANese"),
    Case("b_auto", B, "Hello there, how are you today?", "ryan", "auto"),
    Case("b_instruct_dropped", B, "Hello there, how are you today?", "ryan", "auto", "Whisper, please."),
    Case("b_eric_auto_streaming", B, "四川话说得好。", "eric", "auto", non_streaming_mode=False),
    Case("b_leading_space_streaming", B, " Olá, tudo bem?", "Sohee", "Portuguese", non_streaming_mode=False),
    Case("d_english", DESIGN, "I am made of words.", None, "english", "A deep, slow male voice."),
    Case("d_chinese_streaming", DESIGN, "这个声音来自一段描述。", None, "Chinese", "年轻女性，语速快 😀", False),
    Case("d_empty_instruct", DESIGN, "Nobody described me.", None, "auto", ""),
]


def main() -> None:
    run(__file__, __doc__ or "", ("custom_voice", "voice_design"), Path(__file__).parent / "goldens", record)


def run(
    script: str, description: str, model_types: tuple[str, ...], out: Path, record: Callable[[Path, Path], None]
) -> None:
    """The command line of a golden script, whose second half is `record(checkpoints, out)`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, help="python of an environment with the reference")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--record", type=Path, metavar="CHECKPOINTS", help="run only the second half, on these")
    args = parser.parse_args()
    if args.record is not None:
        record(args.record, args.out)
    elif args.oracle is not None:
        write_and_record(script, model_types, args.oracle, args.out)
    else:
        parser.error("--oracle is needed")


# First half: our environment.


def write_and_record(script: str, model_types: tuple[str, ...], oracle: Path, out: Path) -> None:
    """Write the checkpoints of these types and run `script` on them with the oracle's python."""
    from shapes import CHECKPOINTS  # imports our qwen_tts, so not at the top

    wanted = {key: checkpoint for key, checkpoint in CHECKPOINTS.items() if checkpoint.model_type in model_types}

    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        root = Path(name)
        checkpoints, stub = root / "checkpoints", root / "stub"
        checkpoints.mkdir()
        for key, checkpoint in wanted.items():
            checkpoint.write(checkpoints / key)
        described = {
            key: {**dataclasses.asdict(checkpoint), "sha256": digests(checkpoints / key)}
            for key, checkpoint in wanted.items()
        }
        write_json(checkpoints / "checkpoints.json", described)
        write_torchaudio_stub(stub)
        command = [str(oracle), script, "--record", str(checkpoints), "--out", str(out.resolve())]
        subprocess.run(command, check=True, cwd=root, env=os.environ | {"PYTHONPATH": str(stub)})


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file, so that a test can tell a changed checkpoint writer from a changed model."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write_torchaudio_stub(directory: Path) -> None:
    """The reference imports torchaudio for its 25 Hz tokenizer, which nothing here uses."""
    for package in ("torchaudio", "torchaudio/compliance", "torchaudio/transforms"):
        (directory / package).mkdir(parents=True)
        (directory / package / "__init__.py").touch()
    (directory / "torchaudio/compliance/kaldi.py").touch()


# Second half: the reference's environment.


@dataclass
class Recorder:
    """Last-position logits of every head call of one generation, in call order, and the codes that came of them."""

    group0: list[Tensor] = field(default_factory=list)
    groups: dict[int, list[Tensor]] = field(default_factory=dict)
    codes: list[Tensor] = field(default_factory=list)

    def generate(self, model: Any, case: Case) -> Tensor:
        """Run `case`; returns its codes [F, G]."""
        method = model.generate_voice_design if case.speaker is None else model.generate_custom_voice
        (codes,) = self.call(model, method, case.arguments())
        return codes

    def call(self, model: Any, method: Callable[..., object], arguments: dict[str, Any]) -> list[Tensor]:
        """Call `method` greedily; returns the codes [F, G] that it handed to the codec, one tensor per text."""
        talker = model.model.talker
        heads = talker.code_predictor.lm_head
        self.groups = {index + 1: [] for index in range(len(heads))}
        hooks = [talker.codec_head.register_forward_hook(keep_last_position(self.group0))]
        hooks += [
            head.register_forward_hook(keep_last_position(self.groups[index + 1])) for index, head in enumerate(heads)
        ]
        tokenizer = model.model.speech_tokenizer
        tokenizer.decode = lambda encoded: self._decode(encoded)
        try:
            method(**arguments, **GREEDY)
        finally:
            del tokenizer.decode  # the class's own again
            for hook in hooks:
                hook.remove()
        return self.codes

    def _decode(self, encoded: list[dict[str, Tensor]]) -> tuple[list[np.ndarray], int]:
        self.codes.extend(item["audio_codes"] for item in encoded)
        return [np.zeros(0, np.float32) for _ in encoded], 24000


def keep_last_position(into: list[Tensor]) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        into.append(output[0, -1].clone())

    return hook


def record(checkpoints: Path, out: Path) -> None:
    from qwen_tts import Qwen3TTSModel, Qwen3TTSTokenizer  # the reference

    version = importlib.metadata.version("qwen-tts")
    assert version == REFERENCE_VERSION, f"qwen-tts {version} is installed; the goldens are of {REFERENCE_VERSION}"
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    described = json.loads((checkpoints / "checkpoints.json").read_text())
    cases, decodes = [], []
    for key in described:
        model = Qwen3TTSModel.from_pretrained(
            str(checkpoints / key), device_map="cpu", dtype=torch.float32, attn_implementation="eager"
        )
        for names in ("speakers", "languages"):
            value = getattr(model, f"get_supported_{names}")()
            described[key][f"supported_{names}"] = {"type": type(value).__name__, "value": value}
        cases += [record_case(model, case, out) for case in CASES if case.checkpoint == key]
        if key in DECODE_CHECKPOINTS:
            decodes += [record_decode(model, key, *decode, out) for decode in DECODES]
    packages = {name: importlib.metadata.version(name) for name in ("qwen-tts", "torch", "transformers")}
    index = {
        "reference": packages, "generation": GREEDY, "checkpoints": described, "cases": cases, "decodes": decodes,
    }  # fmt: skip
    write_json(out / "index.json", index)
    write_json(out / "signatures.json", public_signatures(Qwen3TTSModel, Qwen3TTSTokenizer))


def record_case(model: Any, case: Case, out: Path) -> dict[str, Any]:
    recorder = Recorder()
    codes = recorder.generate(model, case)
    steps = len(recorder.group0)
    # The frame of the last step is never completed: it is eos, or the step the limit cut off.
    assert len(codes) == steps - 1, (len(codes), steps)
    greedy, margin = greedy_codes(model, recorder)
    assert torch.equal(greedy[:-1], codes[:, 0]), "group 0 was not chosen as greedy_codes thinks"
    eos = int(greedy[-1]) == model.model.config.talker_config.codec_eos_token_id

    frames = [frame for frame in LOGIT_FRAMES if frame < len(codes)]
    frames0 = [*frames, steps - 1] if eos else frames  # with the logits that chose eos
    file = f"{case.name}.npz"
    np.savez_compressed(
        out / file,
        codes=codes.numpy().astype(np.int16),
        frames0=np.array(frames0),
        logits0=torch.stack([recorder.group0[frame] for frame in frames0]).numpy(),
        frames=np.array(frames),
        logits1=torch.stack([recorder.groups[1][frame] for frame in frames]).numpy(),
        logits5=torch.stack([recorder.groups[5][frame] for frame in frames]).numpy(),
    )
    print(f"{case.name:28} {len(codes):3} frames  eos {eos!s:5}  smallest margin {margin:.1e}", flush=True)
    return {
        **dataclasses.asdict(case), "file": file, "frames": len(codes), "eos": eos, "smallest_margin": margin,
    }  # fmt: skip


def greedy_codes(model: Any, recorder: Recorder) -> tuple[Tensor, float]:
    """Group 0's choice at every step, and the least lead any chosen code of any group had over the second.

    A lead near float32's rounding error would make the case a comparison of rounding, not of models.
    """
    config = model.model.config.talker_config
    penalty = model.generate_defaults["repetition_penalty"]
    chosen: list[int] = []
    leads: list[float] = []
    for step, raw in enumerate(recorder.group0):
        logits = raw.clone()
        seen = torch.tensor(sorted(set(chosen)), dtype=torch.long)
        logits[seen] = torch.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
        control = torch.arange(config.vocab_size - 1024, config.vocab_size)
        logits[control[control != config.codec_eos_token_id]] = -torch.inf
        if step < MIN_NEW_TOKENS:
            logits[config.codec_eos_token_id] = -torch.inf
        chosen.append(int(logits.argmax()))
        leads.append(lead(logits))
    leads += [lead(logits) for calls in recorder.groups.values() for logits in calls]
    return torch.tensor(chosen), min(leads)


def lead(logits: Tensor) -> float:
    first, second = logits.topk(2).values.tolist()
    return first - second


def record_decode(model: Any, checkpoint: str, frames: int, stride: int, seed: int, out: Path) -> dict[str, Any]:
    config = model.model.speech_tokenizer.model.config.decoder_config
    shape = (1, frames, config.num_quantizers)
    codes = np.random.default_rng(seed).integers(0, config.codebook_size, shape)
    (wave,), rate = model.model.speech_tokenizer.decode({"audio_codes": torch.from_numpy(codes)})
    file = f"decode_{checkpoint[0].lower()}_{frames}.npz"
    np.savez_compressed(out / file, codes=codes[0].astype(np.int16), samples=wave[::stride])
    print(f"{file:28} {len(wave)} samples at {rate} Hz  rms {np.sqrt(np.mean(wave**2)):.3f}", flush=True)
    return {
        "checkpoint": checkpoint, "file": file, "frames": frames, "stride": stride, "seed": seed,
        "samples": len(wave), "sample_rate": rate,
    }  # fmt: skip


def public_signatures(model: type, tokenizer: type) -> dict[str, dict[str, list[dict[str, str | None]]]]:
    tokenizer_methods = [name for name, _ in inspect.getmembers(tokenizer, callable) if not name.startswith("_")]
    wanted = ((model, MODEL_METHODS), (tokenizer, tokenizer_methods))
    return {cls.__name__: {name: parameters(getattr(cls, name)) for name in names} for cls, names in wanted}


def parameters(method: Any) -> list[dict[str, str | None]]:
    """`default` is the repr, None where there is none."""
    found = inspect.signature(method).parameters.values()
    return [
        {"name": p.name, "kind": p.kind.name, "default": None if p.default is p.empty else repr(p.default)}
        for p in found
        if p.name != "self"
    ]


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""Record what the reference implementation computes of cloned voices; see make_goldens.py for how to run it.

    OMP_NUM_THREADS=1 python tests/parity/make_clone_goldens.py --oracle /path/to/oracle/bin/python

Into --out (tests/parity/goldens/clone):
  index.json              the cases, the batches, the reference clips and, of each checkpoint, the file digests
  <checkpoint>_refs.npz   per clip: <clip>_embedding [D] float32, <clip>_codes [F, G] int16
  <case>.npz              codes [F, G] int16 of the generated frames, and every `stride`-th of the float32 `samples` of
                          the whole, reference frames and generated ones, as the codec decodes them
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_goldens import GREEDY, Recorder, run, write_json
from reference_clips import CLIPS

STRIDE = 61  # coprime to the 1920 samples of a frame


@dataclass(frozen=True)
class CloneCase:
    """One call of generate_voice_clone; `ref_text` None clones from the speaker embedding alone."""

    name: str
    checkpoint: str
    clip: str
    text: str
    ref_text: str | None
    language: str | None = None
    non_streaming_mode: bool = False


A, B = "A-base", "B-base"
LONG_TEXT = "This is a much longer sentence, so that its text goes on after the reference recording has ended. " * 2
CASES = [
    CloneCase("a_icl_streaming", A, "low", "Hello there.", "Low and slow.", "english"),
    CloneCase("a_icl_streaming_text_longer", A, "low", LONG_TEXT, "Low and slow.", "english"),
    CloneCase("a_icl_whole", A, "high", "The quick brown fox.", "你好，世界。", "chinese", True),
    CloneCase("a_icl_44100", A, "wide", "Bonjour à tous.", "Wide awake 😀", "french"),
    CloneCase("a_x_vector_streaming", A, "narrow", "Only the sound of it.", None, "english"),
    CloneCase("a_x_vector_whole", A, "low", "Nothing but the sound.", None, None, True),
    CloneCase("b_icl_streaming", B, "narrow", "Guten Tag.", " leading space", "german"),
    CloneCase("b_icl_whole", B, "wide", LONG_TEXT, "Wide awake.", "auto", True),
    CloneCase("b_x_vector_streaming", B, "high", "さようなら。", None, "japanese"),
]
# Two texts and two references of one length in one call: the cases of these names, but with both clips "low" and "high"
# cut to the length of the shorter one (the reference pads others, which changes their last frames).
BATCHES = [(A, False), (A, True), (B, False)]


def record(checkpoints: Path, out: Path) -> None:
    from qwen_tts import Qwen3TTSModel  # the reference

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    described = json.loads((checkpoints / "checkpoints.json").read_text())
    cases, batches = [], []
    for key in described:
        model = Qwen3TTSModel.from_pretrained(
            str(checkpoints / key), device_map="cpu", dtype=torch.float32, attn_implementation="eager"
        )
        record_references(model, key, out)
        cases += [record_case(model, case, out) for case in CASES if case.checkpoint == key]
        batches += [record_batch(model, key, whole, out) for checkpoint, whole in BATCHES if checkpoint == key]
    clips = {name: dataclasses.asdict(clip) for name, clip in CLIPS.items()}
    index = {
        "generation": GREEDY, "stride": STRIDE, "clips": clips, "checkpoints": described, "cases": cases,
        "batches": batches,
    }  # fmt: skip
    write_json(out / "index.json", index)


def record_references(model: Any, key: str, out: Path) -> None:
    arrays = {}
    for name, clip in CLIPS.items():
        (item,) = model.create_voice_clone_prompt((clip.samples(), clip.sample_rate_hz), ref_text="words")
        arrays[f"{name}_embedding"] = item.ref_spk_embedding.numpy()
        arrays[f"{name}_codes"] = item.ref_code.numpy().astype(np.int16)
    np.savez_compressed(out / f"{key}_refs.npz", **arrays)


def record_case(model: Any, case: CloneCase, out: Path) -> dict[str, Any]:
    clip = CLIPS[case.clip]
    arguments = {
        "text": case.text, "language": case.language, "ref_audio": (clip.samples(), clip.sample_rate_hz),
        "ref_text": case.ref_text, "x_vector_only_mode": case.ref_text is None,
        "non_streaming_mode": case.non_streaming_mode,
    }  # fmt: skip
    (codes,) = generate(model, arguments)
    reference_frames = 0
    if case.ref_text is not None:
        reference_frames = len(model.create_voice_clone_prompt(arguments["ref_audio"], case.ref_text)[0].ref_code)
    (wave,), _ = model.model.speech_tokenizer.decode({"audio_codes": codes[None]})
    np.savez_compressed(
        out / f"{case.name}.npz", codes=codes[reference_frames:].numpy().astype(np.int16), samples=wave[::STRIDE]
    )
    frames = len(codes) - reference_frames
    print(f"{case.name:28} {reference_frames:3} + {frames:3} frames", flush=True)
    return {**dataclasses.asdict(case), "reference_frames": reference_frames, "frames": frames}


def record_batch(model: Any, key: str, whole: bool, out: Path) -> dict[str, Any]:
    length = len(CLIPS["low"].samples())
    references = [(CLIPS[name].samples()[:length], CLIPS[name].sample_rate_hz) for name in ("low", "high")]
    texts, ref_texts = ["Good evening.", "One, two and three."], ["Low and slow.", "High and fast."]
    arguments = {"text": texts, "ref_audio": references, "ref_text": ref_texts, "non_streaming_mode": whole}
    name = f"{key[0].lower()}_batch_{'whole' if whole else 'streaming'}"
    both = generate(model, arguments)
    reference_frames = len(model.create_voice_clone_prompt(references[0], "words")[0].ref_code)
    codes = {str(index): one[reference_frames:].numpy().astype(np.int16) for index, one in enumerate(both)}
    np.savez_compressed(out / f"{name}.npz", **codes)
    print(f"{name:28} {[len(one) for one in codes.values()]} frames", flush=True)
    return {
        "name": name, "checkpoint": key, "clip_samples": length, "texts": texts, "ref_texts": ref_texts,
        "non_streaming_mode": whole,
    }  # fmt: skip


def generate(model: Any, arguments: dict[str, Any]) -> list[torch.Tensor]:
    """Codes [reference F + F, G] that the codec was given for each text."""
    return Recorder().call(model, model.generate_voice_clone, arguments)


if __name__ == "__main__":
    parent = Path(__file__).parent
    sys.exit(run(__file__, __doc__ or "", ("base",), parent / "goldens" / "clone", record))

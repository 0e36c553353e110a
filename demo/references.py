"""Recordings for comparison: flite itself on the held-out texts, and the codec's copy of it."""

from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from demo.corpus import SPEAKERS
from demo.flite import FliteVoice, speak
from qwen_tts import Qwen3TTSTokenizer
from qwen_tts.evaluation.cases import read_cases
from qwen_tts.train.clips import RATE_HZ

KINDS = ("source", "codec")
HELD_OUT = sorted(Path(__file__).with_name("held_out").glob("*.txt"))


def write_references(directory: Path, codec: Path) -> None:
    """Write `directory`/<text file>/{source,codec}/<speaker>/<case>.wav, for `qwen-tts evaluate --recordings`."""
    tokenizer = Qwen3TTSTokenizer.from_pretrained(str(codec))
    for texts in HELD_OUT:
        for speaker, base in SPEAKERS.items():
            source, copy = (directory / texts.stem / kind / speaker for kind in KINDS)
            source.mkdir(parents=True, exist_ok=True)
            copy.mkdir(parents=True, exist_ok=True)
            for case in tqdm(read_cases(texts), f"{texts.stem} {speaker}", unit="clip"):
                samples = speak(case.text, FliteVoice(base)).samples.astype(np.float32) / np.float32(32768)
                soundfile.write(source / f"{case.name}.wav", samples, RATE_HZ)
                (copied,), rate_hz = tokenizer.decode(tokenizer.encode(samples, sr=RATE_HZ))
                soundfile.write(copy / f"{case.name}.wav", copied, rate_hz)

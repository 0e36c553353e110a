"""The corpus: flite speaks it into a data set. Voice and text are functions of the clip's number alone."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from tqdm import tqdm

from demo.descriptions import PITCHES, RATES, Gender, describe, instruct
from demo.flite import Base, FliteVoice, Speech, speak
from demo.texts import draw_text
from qwen_tts.train.clips import SAMPLES_PER_FRAME, Clip, ClipWriter

SPEAKERS: dict[str, Base] = {"ryan": "rms", "serena": "slt", "aiden": "awb"}
DESIGN_BASES: dict[Gender, Base] = {"male": "awb", "female": "slt"}
CLONE_VOICES = 240
_AT_ONCE = 64


@cache
def clone_voices() -> list[FliteVoice]:
    """Return voices that serve as references only: every base voice with other pitches and vocal tracts."""
    rng = Random("clone voices")

    def spread(low: float, high: float) -> float:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))), 2)

    return [
        FliteVoice(("rms", "slt", "awb")[index % 3], pitch=spread(0.75, 1.35), size=spread(0.84, 1.2))
        for index in range(CLONE_VOICES)
    ]


def draw_clip(number: int) -> tuple[Clip, FliteVoice]:
    """Return clip `number` of the corpus, without its length, and the voice that speaks it."""
    rng = Random(f"clip {number}")
    text = draw_text(rng)
    kind = rng.random()
    if kind < 0.56:
        speaker = rng.choice(list(SPEAKERS))
        rate = rng.choice(["slow", "fast"]) if kind < 0.08 else "normal"
        voice = FliteVoice(SPEAKERS[speaker], slowness=RATES[rate])
        clip = Clip(text, voice.identity, 0, speaker=speaker, instructions=instruct(rng, rate))
    elif kind < 0.78:
        gender = rng.choice(list(DESIGN_BASES))
        pitch, rate = rng.choice(list(PITCHES[gender])), rng.choice(list(RATES))
        voice = FliteVoice(DESIGN_BASES[gender], pitch=PITCHES[gender][pitch], slowness=RATES[rate])
        clip = Clip(text, voice.identity, 0, description=describe(rng, gender, pitch, rate))
    else:
        voice = rng.choice(clone_voices())
        clip = Clip(text, voice.identity, 0)
    return clip, voice


def _spoken(number: int) -> tuple[Clip, Speech]:
    clip, voice = draw_clip(number)
    try:
        speech = speak(clip.text, voice)
    except ValueError:  # the text is one word that flite cannot speak
        return _SILENT_CLIP, _SILENCE
    frames = len(speech.samples) // SAMPLES_PER_FRAME
    return Clip(**{**vars(clip), "frames": frames, "sounds": " ".join(speech.sounds)}), speech


def synthesise(directory: Path, count: int, workers: int) -> None:
    """Synthesise clips 0 .. count - 1 into the data set; existing clips are kept."""
    writer = ClipWriter(directory)
    try:
        numbers = range(writer.count, count)
        with ThreadPoolExecutor(workers) as pool:
            progress = tqdm(_in_order(pool, numbers), "clips", total=count, initial=writer.count, unit="clip")
            for clip, speech in progress:
                writer.append(clip, speech.samples)
    finally:
        writer.close()


_SILENT_CLIP = Clip(text=".", voice="", frames=1)  # keeps clip numbers equal to line numbers; no task uses it
_SILENCE = Speech(np.zeros(SAMPLES_PER_FRAME, np.int16), [])


def _in_order(pool: ThreadPoolExecutor, numbers: range) -> Iterator[tuple[Clip, Speech]]:
    for start in range(0, len(numbers), _AT_ONCE):
        yield from pool.map(_spoken, numbers[start : start + _AT_ONCE])

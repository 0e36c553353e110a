"""Speech recognisers whose weights are part of their packages."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from qwen_tts.evaluation import RATE_HZ

_RECOGNISER_HZ = 16000
_MARGIN_S = 0.25  # silence around a clip, as recognisers expect
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Recogniser(Protocol):
    def hear(self, samples: NDArray[np.float32]) -> str:
        """samples [S] at 24 kHz -> text."""
        ...


class Moonshine:
    """The tiny English model of moonshine-voice (arXiv:2410.15608). It recognises any words."""

    def __init__(self) -> None:
        import moonshine_voice
        from moonshine_voice.moonshine_api import ModelArch
        from moonshine_voice.transcriber import Transcriber

        assets = Path(moonshine_voice.__file__).parent / "assets" / "tiny-en"
        self._transcriber = Transcriber(str(assets), ModelArch.TINY)

    def hear(self, samples: NDArray[np.float32]) -> str:
        transcript = self._transcriber.transcribe_without_streaming(_prepared(samples).tolist(), _RECOGNISER_HZ)
        return " ".join(line.text for line in transcript.lines)


class WordGrammar:
    """pocketsphinx with a grammar of given words in any order. It recognises no other words."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        """vocabulary: lower-case words of pocketsphinx's dictionary."""
        from pocketsphinx import Decoder, set_loglevel

        set_loglevel("FATAL")
        grammar = f"#JSGF V1.0; grammar words; public <words> = ( {' | '.join(sorted(set(vocabulary)))} )+ ;"
        # bestpath, a second search of the lattice, takes 30 times as long for 40 words and gains little: errors on
        # sentences of the demo were 28 and 41% with it, 28 and 46% without, and equal on digits.
        self._decoder = Decoder(samprate=_RECOGNISER_HZ, lm=None, bestpath=False)
        self._decoder.add_jsgf_string("words", grammar)
        self._decoder.activate_search("words")

    def hear(self, samples: NDArray[np.float32]) -> str:
        decoder = self._decoder
        decoder.start_utt()
        decoder.process_raw((_prepared(samples).clip(-1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return "" if found is None else found.hypstr


class DigitGrammar(WordGrammar):
    """Recognises strings of spoken digits."""

    def __init__(self) -> None:
        super().__init__(_DIGITS)


def _prepared(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    margin = round(_MARGIN_S * _RECOGNISER_HZ)
    padded: NDArray[np.float32] = np.pad(soxr.resample(samples, RATE_HZ, _RECOGNISER_HZ), margin).astype(np.float32)
    return padded


_normalise = EnglishTextNormalizer({})  # type: ignore[no-untyped-call]


def words(text: str, *, digits: bool) -> list[str]:
    """Split text into words as Whisper's normaliser does (numbers as figures); with `digits` each figure is a word."""
    normal = _normalise(text)
    return re.sub(r"(\d)", r" \1 ", normal).split() if digits else normal.split()

"""Descriptions of a voice in words, with the pitches and rates that they mean."""

from random import Random
from typing import Literal

Gender = Literal["male", "female"]

# Factors on flite's pitch. Median F0 about 98, 134, 180 Hz (awb) and 136, 174, 235 Hz (slt).
PITCHES: dict[Gender, dict[str, float]] = {
    "male": {"low": 0.73, "normal": 1.0, "high": 1.35},
    "female": {"low": 0.78, "normal": 1.0, "high": 1.35},
}
RATES = {"slow": 1.35, "normal": 1.0, "fast": 0.75}  # factors on durations

_GENDERS = {"male": ("male voice", "man", "man's voice"), "female": ("female voice", "woman", "woman's voice")}
_PITCH_WORDS = {"low": ("low", "deep", "low pitched"), "normal": ("", "", "normal"), "high": ("high", "high pitched")}
_RATE_WORDS = {
    "slow": ("slow", "speaking slowly", "slow speech"),
    "normal": ("", "", "normal speed"),
    "fast": ("fast", "speaking quickly", "quick", "fast speech"),
}
_RATE_COMMANDS = {
    "slow": ("Speak slowly", "slowly", "Please speak very slowly", "slow", "Say it slowly"),
    "fast": ("Speak quickly", "fast", "Please speak very fast", "quickly", "Say it fast"),
}


def describe(rng: Random, gender: Gender, pitch: str, rate: str) -> str:
    """Return a description of a designed voice, such as "A low male voice, slow."; it often omits normal values."""
    who, how_high = rng.choice(_GENDERS[gender]), rng.choice(_PITCH_WORDS[pitch])
    how_fast = rng.choice(_RATE_WORDS[rate])
    article = rng.choice(["A ", "a ", "the ", ""])
    parts = [f"{article}{how_high} {who}", how_fast]
    if rng.random() < 0.25:
        parts.reverse()
    text = rng.choice([", ", ", ", " "]).join(part for part in parts if part).replace("  ", " ")
    if rng.random() < 0.3:
        text = rng.choice(["Speak with ", "This is ", "Use "]) + text
    return text.strip() + rng.choice([".", ""])


def instruct(rng: Random, rate: str) -> str:
    """Return an instruction for a built-in voice: about its rate, or none."""
    return rng.choice(_RATE_COMMANDS[rate]) + rng.choice([".", ""]) if rate in _RATE_COMMANDS else ""

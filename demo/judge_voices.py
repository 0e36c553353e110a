"""Compare designed voices with their descriptions, and clones with their references, over HTTP.

python -m demo.judge_voices --server http://127.0.0.1:8000 -o report
"""

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random

import click
import httpx
import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import tqdm

from demo.corpus import DESIGN_BASES
from demo.descriptions import PITCHES, RATES, Gender, describe
from demo.flite import Base, FliteVoice, speak
from qwen_tts.audio import decode_audio
from qwen_tts.evaluation.cases import read_cases
from qwen_tts.evaluation.judge import VoiceJudge
from qwen_tts.train.clips import RATE_HZ

_SENTENCES = Path(__file__).with_name("held_out") / "sentences.txt"
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 420.0

Samples = NDArray[np.float32]


def pitch_hz(samples: Samples) -> float:
    """Return the median fundamental frequency of the voiced parts in Hz."""
    f0, voiced, _ = librosa.pyin(samples, fmin=_LOWEST_HZ, fmax=_HIGHEST_HZ, sr=RATE_HZ, frame_length=2048)
    return float(np.median(f0[voiced]))


def nearest_class(value: float, classes: dict[str, float]) -> str:
    """Return the class whose value is nearest by ratio."""
    return min(classes, key=lambda name: abs(math.log(value / classes[name])))


def judge_designs(server: str, per_class: int) -> list[dict[str, object]]:
    """Return one row per request: the description and the measured classes. flite's own voices define the classes."""
    cases, rows = read_cases(_SENTENCES), []
    wanted = [(gender, pitch, rate) for gender in PITCHES for pitch, rate in product(PITCHES[gender], RATES)]
    pitches = {gender: _source_pitches(gender, [case.text for case in cases[:4]]) for gender in PITCHES}
    rng = Random("descriptions")
    for number, (gender, pitch, rate) in enumerate(tqdm(wanted * per_class, "designs")):
        text = cases[number % len(cases)].text
        description = describe(rng, gender, pitch, rate)
        samples = _speech(server, {"input": text, "instructions": description, "seed": number})
        normal = len(speak(text, FliteVoice(DESIGN_BASES[gender])).samples)
        heard_pitch = nearest_class(pitch_hz(samples), pitches[gender])
        heard_rate = nearest_class(len(samples) / normal, RATES)
        rows.append(
            {
                "description": description, "gender": gender, "pitch": pitch, "rate": rate, "text": text,
                "heard_pitch": heard_pitch, "heard_rate": heard_rate, "hz": round(pitch_hz(samples), 1),
                "slowness": round(len(samples) / normal, 3),
            }
        )  # fmt: skip
    return rows


def _source_pitches(gender: Gender, texts: list[str]) -> dict[str, float]:
    found = {}
    for name, factor in PITCHES[gender].items():
        voice = FliteVoice(DESIGN_BASES[gender], pitch=factor)
        found[name] = float(np.median([pitch_hz(_floats(speak(text, voice).samples)) for text in texts]))
    return found


def judge_clones(server: str, voices: int, texts_each: int) -> list[dict[str, object]]:
    """Return one row per clone, with the nearest reference. The voices are new, of the kind in the training data."""
    cases, rows, judge = read_cases(_SENTENCES), [], VoiceJudge()
    people = list(_strangers(voices))
    references = [_floats(speak(cases[-1 - n].text, person).samples) for n, person in enumerate(people)]
    embeddings = np.stack([judge.embed(reference) for reference in references])
    for person, reference in enumerate(tqdm(references, "clones")):
        wav = io.BytesIO()
        soundfile.write(wav, reference, RATE_HZ, format="WAV")
        for number in range(texts_each):
            body = {
                "input": cases[(person * texts_each + number) % (len(cases) - voices)].text, "seed": number,
                "ref_audio": base64.b64encode(wav.getvalue()).decode(), "ref_text": cases[-1 - person].text,
            }  # fmt: skip
            similarities = embeddings @ judge.embed(_speech(server, body))
            rows.append(
                {
                    "voice": vars(people[person]), "right": int(similarities.argmax()) == person,
                    "similarity": round(float(similarities[person]), 3),
                    "next": round(float(np.delete(similarities, person).max()), 3),
                }
            )  # fmt: skip
    return rows


def _strangers(count: int) -> Iterator[FliteVoice]:
    """Yield voices that are not in the corpus and sound different: every base voice with three vocal tracts."""
    bases: tuple[Base, ...] = ("rms", "slt", "awb")
    grid = [(base, size, pitch) for size in (1.0, 0.87, 1.15) for base in bases for pitch in (1.0, 0.83, 1.22)]
    distinct = [FliteVoice(b, pitch=p, size=s) for b, s, p in grid if b != "rms" or p == 1.0]
    yield from distinct[:count]


def _speech(server: str, body: dict[str, object]) -> Samples:
    body = {"stream": False, "response_format": "wav", **body}
    answer = httpx.post(f"{server}/v1/audio/speech", json=body, timeout=300)
    if answer.status_code != httpx.codes.OK:
        raise click.ClickException(f"{answer.status_code}: {answer.text[:300]}")
    return decode_audio(answer.content).resampled(RATE_HZ).samples


def _floats(samples: NDArray[np.int16]) -> Samples:
    return samples.astype(np.float32) / np.float32(32768)


@click.command()
@click.option("--server", default="http://127.0.0.1:8000", show_default=True)
@click.option("--per-class", default=6, show_default=True, help="Requests per gender, pitch and rate.")
@click.option("--voices", default=12, show_default=True, help="Voices to clone.")
@click.option("--texts", default=5, show_default=True, help="Texts per cloned voice.")
@click.option("-o", "--output", default="voices.json", show_default=True, type=click.Path(path_type=Path))
def main(server: str, per_class: int, voices: int, texts: int, output: Path) -> None:
    """Judge the demo's designed and cloned voices."""
    designs, clones = judge_designs(server, per_class), judge_clones(server, voices, texts)
    output.write_text(json.dumps({"designs": designs, "clones": clones}, indent=1) + "\n", encoding="utf-8")
    for aspect in ("pitch", "rate"):
        wrong = [row for row in designs if row[aspect] != row[f"heard_{aspect}"]]
        confused = Counter(f"{row[aspect]} heard as {row[f'heard_{aspect}']}" for row in wrong)
        click.echo(f"{aspect}: {len(designs) - len(wrong)} of {len(designs)} as described; {dict(confused)}")
    click.echo(f"clones nearest to their own reference: {sum(bool(row['right']) for row in clones)} of {len(clones)}")


if __name__ == "__main__":
    main()

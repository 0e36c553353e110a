"""A measurement of uploads of reference recordings: one alone, all in turn, all at once.

python -m loadtest.voices --url http://127.0.0.1:8000 --recordings 16 --seconds 3

Each upload stores a voice under a new name. All these voices are deleted at the end.
"""

import io
import json
import statistics
import time
import uuid
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import click
import httpx
import numpy as np
from tqdm import tqdm

_RATE_HZ = 24000


def recording(seconds: float, seed: int) -> bytes:
    """Return a WAV file that resembles speech: a buzzing voice with four syllables a second, its pitch from `seed`."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * _RATE_HZ)) / _RATE_HZ
    pitch_hz = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time_s))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / _RATE_HZ
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 16))
    syllables = np.clip(np.sin(2 * np.pi * 4 * time_s), 0, 1)
    pcm = (0.3 * 32767 * voice / np.abs(voice).max() * syllables).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.option("--recordings", default=16, show_default=True)
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(url: str, recordings: int, seconds: float, rounds: int) -> None:
    """Print the medians of all rounds as JSON."""
    files = [recording(seconds, seed) for seed in tqdm(range(recordings), desc="recordings")]
    run, number = f"load-{uuid.uuid4().hex[:8]}", count()
    taken: dict[str, list[float]] = {"alone_ms": [], "in_turn_ms": [], "at_once_ms": []}
    with httpx.Client(base_url=url, timeout=600.0, trust_env=False) as client, ThreadPoolExecutor(recordings) as pool:

        def upload(file: bytes) -> None:
            form = {"name": f"{run}-{next(number)}", "consent": "made up", "ref_text": "Words."}
            client.post("/v1/audio/voices", data=form, files={"audio_sample": file}).raise_for_status()

        def timed(work: Callable[[], object]) -> float:
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) * 1e3

        try:
            list(pool.map(upload, files))  # not measured: connections and first-time initialisation
            for _ in tqdm(range(rounds), unit="round"):
                taken["alone_ms"].append(timed(lambda: upload(files[0])))
                taken["in_turn_ms"].append(timed(lambda: list(map(upload, files))))
                taken["at_once_ms"].append(timed(lambda: list(pool.map(upload, files))))
        finally:
            for index in range(next(number)):
                client.delete(f"/v1/audio/voices/{run}-{index}")
    click.echo(json.dumps({name: round(statistics.median(times), 1) for name, times in taken.items()}))


if __name__ == "__main__":
    main()

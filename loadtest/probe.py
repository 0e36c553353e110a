"""A probe that sends one request at a time: time to first audio, total time, ms per frame, real-time factor.

python -m loadtest.probe --url http://127.0.0.1:8000 --requests 5 --max-new-tokens 100
"""

import json
import statistics
import time
from dataclasses import asdict, dataclass

import click
import httpx
from tqdm import tqdm

_BYTES_PER_FRAME = 1920 * 2  # 80 ms of 24 kHz 16-bit mono
_FRAME_S = 0.08
_TEXT = "The quick brown fox jumps over the lazy dog, and nobody in the village has ever seen it stumble."


@dataclass(frozen=True)
class Timing:
    """The times of one request, by the client's clock."""

    ttfa_ms: float
    total_ms: float
    frames: int
    ms_per_frame: float
    rtf: float


def measure(client: httpx.Client, body: dict[str, object]) -> Timing:
    """Send `body` (response_format pcm) and time its stream. Raises httpx.HTTPStatusError."""
    start = time.perf_counter()
    first = 0.0
    received = 0
    with client.stream("POST", "/v1/audio/speech", json=body) as response:
        if response.is_error:
            response.read()
            response.raise_for_status()
        for piece in response.iter_raw():
            first = first or time.perf_counter()
            received += len(piece)
    total = time.perf_counter() - start
    frames = received // _BYTES_PER_FRAME
    return Timing(
        ttfa_ms=(first - start) * 1e3,
        total_ms=total * 1e3,
        frames=frames,
        ms_per_frame=total * 1e3 / frames,
        rtf=total / (frames * _FRAME_S),
    )


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True)
@click.option("--requests", default=5, show_default=True, help="Measured requests, after one for warming up.")
@click.option("--max-new-tokens", default=100, show_default=True, help="Highest number of frames per request.")
@click.option("--voice", default="ryan", show_default=True)
@click.option("--text", default=_TEXT)
def main(url: str, requests: int, max_new_tokens: int, voice: str, text: str) -> None:
    """Print one line per request, and the medians, as JSON."""
    body: dict[str, object] = {"input": text, "voice": voice, "response_format": "pcm", "seed": 1}
    body["max_new_tokens"] = max_new_tokens
    with httpx.Client(base_url=url, timeout=600.0, trust_env=False) as client:
        measure(client, body)
        timings = [measure(client, body) for _ in tqdm(range(requests), unit="request")]
    for timing in timings:
        click.echo(json.dumps({name: round(value, 3) for name, value in asdict(timing).items()}))
    medians = {name: round(statistics.median(getattr(t, name) for t in timings), 3) for name in asdict(timings[0])}
    click.echo(json.dumps({"median": medians}))


if __name__ == "__main__":
    main()

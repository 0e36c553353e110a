"""The overhead of serving: the same streams in one bare process and through Serve. `make bench-serve` runs it.

Both produce audio: talker, chunks of the same schedule, codec decoder. In the bare process talker and decoder take
turns with all threads; the deployments compute side by side.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import httpx
import torch
import yaml
from tqdm import tqdm

from benchmarks.bare import Bare
from benchmarks.ours import GREEDY, TEXT, load
from deployments.replicas.torch_process import keep_freed_memory
from deployments.settings import AppArgs, ModelArgs, load_settings
from loadtest.serving import ours
from qwen_tts.checkpoint import DTYPES
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.cpus import limit_torch_threads
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.request import CustomVoice, SpeechRequest

_BYTES_PER_FRAME = 3840
_MODES: dict[str, dict[str, str]] = {
    "Serve, default": {},
    "Serve, throughput-optimised": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
}
_BARE = "bare engine and decoder"


@dataclass(frozen=True)
class Spoken:
    """The result of `streams` at once: seconds to the first audio of each, and to the end of the last one."""

    name: str
    streams: int
    first_s: list[float]
    total_s: float


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False))
@click.option("--dtype", default="int8", show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True)
@click.option("--streams", "counts", type=int, multiple=True, default=(1, 8), show_default=True)
@click.option("--frames", default=50, show_default=True)
@click.option("--repeat", default=3, show_default=True)
@click.option(
    "--threads",
    type=int,
    help="Threads of each deployment; default: half the usable CPUs. Bare: all.",
)
@click.option("--bare", "settings", type=click.Path(exists=True), hidden=True)
def main(
    checkpoint: str,
    dtype: str,
    compiled: bool,
    counts: tuple[int, ...],
    frames: int,
    repeat: int,
    threads: int | None,
    settings: str | None,
) -> None:
    """Measure milliseconds per frame and time to first audio of a checkpoint with built-in voices."""
    if settings is not None:
        for spoken in _bare(load_settings(Path(settings)), counts, frames, repeat):
            click.echo(json.dumps(asdict(spoken)))
        return
    talker = {"dtype": dtype, "compile": compiled, "threads": threads, "slots": max(counts), "keep_pace": False}
    args = AppArgs.model_validate(
        {
            "models": [{"name": "bench", "checkpoint": checkpoint}],
            "talker": talker | {"positions": 1024},
            "codec_decoder": {"threads": threads},
        }
    )
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "settings.yaml"
        config.write_text(yaml.safe_dump(args.model_dump(mode="json", exclude_unset=True)))
        again = ["--frames", str(frames), "--repeat", str(repeat), *(w for n in counts for w in ("--streams", str(n)))]
        command = [sys.executable, "-m", "benchmarks.through_serve", checkpoint, *again, "--bare", str(config)]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        found = [Spoken(**json.loads(line)) for line in lines]
        for name, environment in tqdm(_MODES.items(), "modes"):
            with ours(config, environment) as url:
                for streams in counts:
                    asyncio.run(_ask(url, streams, 8))
                    found += [asyncio.run(_ask(url, streams, frames, name)) for _ in range(repeat)]
    click.echo(_table(found, frames))


def _bare(args: AppArgs, counts: tuple[int, ...], frames: int, repeat: int) -> Iterator[Spoken]:
    keep_freed_memory()
    limit_torch_threads()
    model: ModelArgs = args.models[0]
    talker = args.talker
    loaded = load(model.checkpoint, talker.dtype, slots=talker.slots, compiled=talker.compile is True)
    decoder = load_codec_decoder(loaded.codec_directory, torch.device("cpu"), DTYPES[args.codec_decoder.dtype])
    bare = Bare(loaded.engine, decoder, talker.chunk_schedule, talker.slots)
    voice = CustomVoice(loaded.engine.config.speakers[0])

    def speak(streams: int, length: int) -> Spoken:
        request = SpeechRequest(TEXT, voice, seed=1, sampling=GREEDY, predictor_sampling=GREEDY, max_frames=length)
        heard = bare.speak([(0.0, request)] * streams)
        assert {stream.frames for stream in heard} == {length}, "a stream ended by itself: other weights are needed"
        return Spoken(_BARE, streams, [stream.first_s for stream in heard], max(stream.last_s for stream in heard))

    speak(min(3, talker.slots), 8)
    for streams in counts:
        speak(streams, 8)
        for _ in range(repeat):
            yield speak(streams, frames)


async def _ask(url: str, streams: int, frames: int, name: str = "") -> Spoken:
    body = {
        "input": TEXT, "response_format": "pcm", "seed": 1, "max_new_tokens": frames,
        "temperature": 0, "subtalker_temperature": 0,
    }  # fmt: skip
    async with httpx.AsyncClient(base_url=url, timeout=600.0, trust_env=False) as client:
        voice = (await client.get("/v1/audio/voices")).json()["voices"][0]
        started = time.perf_counter()

        async def one() -> float:
            first, received = 0.0, 0
            async with client.stream("POST", "/v1/audio/speech", json=body | {"voice": voice}) as response:
                response.raise_for_status()
                async for piece in response.aiter_raw():
                    first = first or time.perf_counter() - started
                    received += len(piece)
            assert received == frames * _BYTES_PER_FRAME, "a stream ended by itself: other random weights are needed"
            return first

        first = await asyncio.gather(*(one() for _ in range(streams)))
        return Spoken(name, streams, list(first), time.perf_counter() - started)


def _table(found: list[Spoken], frames: int) -> str:
    """Return a Markdown table of the medians over the repetitions."""
    rows = [
        "| | streams | ms per frame, all streams | RTF | first audio ms, median | over the bare |",
        "|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, int], list[Spoken]] = defaultdict(list)
    for spoken in found:
        groups[spoken.name, spoken.streams].append(spoken)
    totals = {key: statistics.median(s.total_s for s in group) for key, group in groups.items()}
    for (name, streams), group in groups.items():
        total = totals[name, streams]
        first = statistics.median(first for spoken in group for first in spoken.first_s)
        more = 100 * (total / totals[_BARE, streams] - 1)
        rows.append(
            f"| {name} | {streams} | {1000 * total / frames:.1f} | {total / frames / FRAME_S:.2f} "
            f"| {1000 * first:.0f} | {more:+.0f}% |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()

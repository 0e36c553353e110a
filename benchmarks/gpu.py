"""Engine and codec decoder on a GPU, at the loads that other servers publish. `make bench-gpu` runs it.

All runs in one process, without HTTP. `make bench-serve` measures the overhead of the service.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.bare import Bare, Stream
from benchmarks.ours import GREEDY, TEXT, load
from benchmarks.published import OTHERS, RATES, RATES_SOURCE
from qwen_tts.checkpoint import DTYPES
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.engine.pace import FRAME_S
from qwen_tts.engine.sequence import CHUNK_SCHEDULE
from qwen_tts.request import CustomVoice, SpeechRequest
from qwen_tts.seeded import SHAPES, write_checkpoint

_LATE_S = 0.05  # a stream with more missing audio than this, in total, has an audible gap


@click.command()
@click.argument("checkpoint", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("--shape", type=click.Choice(list(SHAPES)), default="1.7B", show_default=True, help="Without CHECKPOINT.")
@click.option("--work", default="bench-work", type=click.Path(file_okay=False, path_type=Path), show_default=True)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="bfloat16", show_default=True)
@click.option("--compile/--no-compile", "compiled", default=True, show_default=True)
@click.option("--attention", default="sdpa", show_default=True, help="sdpa or flash_attention_2.")
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 2, 4, 8, 16, 32, 64), show_default=True)
@click.option("--rate", "rates", type=int, multiple=True, default=tuple(RATES["Nari"]), show_default=True)
@click.option("--seconds", default=60, show_default=True, help="Duration of the arrivals at each rate.")
@click.option("--frames", default=60, show_default=True, help="The most frames of a stream.")
def main(
    checkpoint: str | None, shape: str, work: Path, device: str, dtype: str, compiled: bool, attention: str,
    batches: tuple[int, ...], rates: tuple[int, ...], seconds: int, frames: int,
) -> None:  # fmt: skip
    """Measure time to first audio, time per frame and throughput of a checkpoint with built-in voices (default: random
    weights, written to WORK), beside published figures of other servers."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException(
            "this machine has no GPU that torch can use (torch.cuda.is_available() is false); use `make bench` to "
            "measure a CPU"
        )
    logging.basicConfig(level=logging.INFO)
    if checkpoint is None:
        directory = work / f"custom-voice-{shape}"
        if not directory.exists():
            write_checkpoint(directory, SHAPES[shape], "custom_voice", progress=True)
        checkpoint = str(directory)
    slots = max(batches)
    started = time.perf_counter()
    loaded = load(checkpoint, dtype, slots=slots, compiled=compiled, device=device, attention=attention)
    decoder = load_codec_decoder(loaded.codec_directory, torch.device(device), DTYPES[dtype])
    bare = Bare(loaded.engine, decoder, CHUNK_SCHEDULE, slots)
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU, whose figures do not apply to a GPU"
    click.echo(f"{checkpoint} in {dtype} on {name}; ready after {time.perf_counter() - started:.0f} s\n")

    def requests(due: Sequence[float], length: int = frames) -> list[tuple[float, SpeechRequest]]:
        voice = CustomVoice(loaded.engine.config.speakers[0])
        request = SpeechRequest(TEXT, voice, seed=1, sampling=GREEDY, predictor_sampling=GREEDY, max_frames=length)
        return [(at, request) for at in due]

    rows = []
    for batch in tqdm(batches, "streams at once"):
        bare.speak(requests([0.0] * batch, sum(CHUNK_SCHEDULE)))  # warm-up
        rows.append(_batch_row(bare.speak(requests([0.0] * batch)), bare.turns, batch))
    click.echo(_table(("streams", "first audio ms, p50", "ms per frame", "RTF", "s of audio a second"), rows))
    rows = []
    for rate in tqdm(rates, "requests a second"):
        due = np.random.default_rng(rate).exponential(1 / rate, size=rate * seconds).cumsum().tolist()
        rows.append([*_rate_row(bare.speak(requests(due)), rate), *(_at(rate, RATES[peer]) for peer in RATES)])
    ours = ("requests a second", "first audio ms, p50", "p95", f"streams with over {1000 * _LATE_S:.0f} ms missing")
    click.echo("\n" + _table((*ours, *(f"{peer} p95, published" for peer in RATES)), rows))
    click.echo(f"\nPublished: {RATES_SOURCE}. Others, as they were published:\n")
    click.echo(_table(("server", "figure", "hardware, model", "source"), OTHERS))


def _batch_row(streams: list[Stream], turns: list[tuple[int, float]], batch: int) -> list[str]:
    first_ms = 1000 * float(np.median([stream.first_s for stream in streams]))
    together = [seconds for running, seconds in turns if running == batch]
    if not together:
        raise click.ClickException(f"one of {batch} streams ended before all had begun; give more --frames")
    turn_s = float(np.mean(together))
    audio_s = batch * FRAME_S / turn_s
    return [str(batch), f"{first_ms:.1f}", f"{1000 * turn_s:.2f}", f"{turn_s / FRAME_S:.3f}", f"{audio_s:.1f}"]


def _rate_row(streams: list[Stream], rate: int) -> list[str]:
    p50, p95 = np.percentile([1000 * (stream.first_s - stream.due_s) for stream in streams], [50, 95])
    late = sum(stream.late_s > _LATE_S for stream in streams)
    return [str(rate), f"{p50:.1f}", f"{p95:.1f}", f"{late} of {len(streams)}"]


def _at(rate: int, published: dict[int, float]) -> str:
    return f"{published[rate]}" if rate in published else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()

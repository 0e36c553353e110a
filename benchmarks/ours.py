"""Time our engine on a checkpoint; print a JSON line per batch. It is a separate process, to measure its memory alone.

python -m benchmarks.ours DIRECTORY --dtype int8 --compile --batch 1 --batch 16
"""

import json
import resource
import statistics
import time
from dataclasses import asdict, replace

import click
import torch

from benchmarks.results import Measured
from qwen_tts.checkpoint import DTYPES
from qwen_tts.cpus import limit_torch_threads
from qwen_tts.engine.engine import LoadedModel, load_engine
from qwen_tts.engine.scheduler import PREFILL_ROWS
from qwen_tts.request import CustomVoice, SamplingParams, SpeechRequest

TEXT = "The quick brown fox jumps over the lazy dog, and nobody in the village has ever seen it stumble."
GREEDY = SamplingParams(temperature=0.0)  # with random draws, random weights may end an utterance
_UNTIMED = 3


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False))
@click.option("--dtype", type=click.Choice([*DTYPES, "int8"]), default="float32", show_default=True)
@click.option("--compile", "compiled", is_flag=True)
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 4, 16), show_default=True)
@click.option("--frames", default=30, show_default=True)
@click.option("--threads", type=int, help="Threads of torch; default: all usable CPUs.")
@click.option("--name", default="ours", show_default=True)
def main(
    checkpoint: str, dtype: str, compiled: bool, batches: tuple[int, ...], frames: int, threads: int | None, name: str
) -> None:
    """Measure the time in which every stream gets a frame, for several numbers of streams."""
    if threads is not None:
        torch.set_num_threads(threads)
    else:
        limit_torch_threads()
    engine = load(checkpoint, dtype, slots=max(batches), compiled=compiled).engine
    speaker = engine.config.speakers[0]
    for batch in (1, min(3, max(batches)), *batches):  # the first two warm up
        wanted = [SpeechRequest(TEXT, CustomVoice(speaker), seed=seed, sampling=GREEDY) for seed in range(batch)]
        pieces = -(-len(engine.prepare(wanted[0]).layout) // PREFILL_ROWS)
        last = frames + _UNTIMED + batch * pieces  # the first streams go on while other prompts are read
        started = time.perf_counter()
        streams = [engine.add(replace(request, max_frames=last)) for request in wanted]
        first, times = 0.0, []
        while not all(stream.frames for stream in streams):
            engine.step()
            if not first and streams[0].frames:
                first = time.perf_counter() - started
        for number in range(_UNTIMED + frames):
            if engine.running < batch:
                raise click.ClickException(f"one of {batch} streams ended by itself; other random weights are needed")
            before = time.perf_counter()
            engine.step()
            if number >= _UNTIMED:
                times.append(time.perf_counter() - before)
        while not engine.idle:
            engine.step()
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = Measured(name, batch, 1000 * statistics.median(times), 1000 * first, len(times), peak_mb)
        click.echo(json.dumps(asdict(found)))


def load(
    checkpoint: str, dtype: str, *, slots: int, compiled: bool = False, device: str = "cpu", attention: str = "sdpa"
) -> LoadedModel:
    """Load an engine in a dtype of TalkerArgs. Its queue is practically unbounded."""
    return load_engine(
        checkpoint,
        device=torch.device(device),
        dtype=torch.bfloat16 if dtype == "int8" else DTYPES[dtype],
        int8=dtype == "int8",
        compiled=compiled,
        attn_implementation=attention,
        slots=slots,
        positions=1024,
        max_waiting=1_000_000,
    )


if __name__ == "__main__":
    main()

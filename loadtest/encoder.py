"""The codec encoder under load: a lone recording, 16 in turn, 16 at once, the batches formed, and where the time goes.

python -m loadtest.encoder --checkpoint DIRECTORY_OF_A_BASE_MODEL --recordings 16 --seconds 3

Starts a Ray of its own with the encoder deployment alone, and asks it over a handle, as the HTTP edge does.
"""

import asyncio
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import ray
import torch
from ray import serve
from ray.serve.handle import DeploymentHandle
from tqdm import tqdm

from deployments.codec_encoder import CodecEncoder
from deployments.settings import CodecEncoderArgs, ModelArgs
from qwen_tts.audio import decode_audio, to_pcm16, wav_header
from qwen_tts.voice_encoder import load_voice_encoder

_RATE_HZ = 24000


def recording(seconds: float, seed: int) -> bytes:
    """A WAV file of noise: the encoder's work does not depend on what it hears."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * _RATE_HZ)).astype(np.float32) * 0.1
    pcm = to_pcm16(samples)
    return wav_header(_RATE_HZ, len(pcm)) + pcm


def stages(checkpoint: Path, files: list[bytes], threads: int) -> dict[str, float]:
    """Milliseconds per recording of each part of the work, in this process; the medians of all recordings."""
    torch.set_num_threads(threads)
    encoder = load_voice_encoder(checkpoint, torch.device("cpu"))
    codec = encoder.codec_encoder
    taken: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def part(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        taken[name].append((time.perf_counter() - start) * 1e3)

    for file in tqdm(files, desc="stages", unit="recording"):
        with part("unpack"):
            wave = torch.from_numpy(decode_audio(file).resampled(_RATE_HZ).samples)
        with torch.inference_mode():
            with part("convolutions"):
                features = codec.encoder(wave[None, None])
            with part("transformer"):
                rows = codec.encoder_transformer(features.transpose(1, 2), use_cache=False).last_hidden_state
            with part("quantiser"):
                codec.quantizer.encode(codec.downsample(rows.transpose(1, 2)), 16)
            with part("speaker encoder"):
                encoder.speaker_encoder.embed(wave)
    return {name: round(statistics.median(times), 1) for name, times in taken.items()}


@click.command()
@click.option("--checkpoint", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--recordings", default=16, show_default=True)
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(checkpoint: Path, recordings: int, seconds: float, threads: int, rounds: int) -> None:
    """Print the medians of all rounds as JSON."""
    files = [recording(seconds, seed) for seed in range(recordings)]
    parts = stages(checkpoint, files, threads)
    model = ModelArgs(name="base", checkpoint=str(checkpoint), type="base")
    ray.init(address="local", num_cpus=4, include_dashboard=False, configure_logging=False, log_to_driver=False)
    try:
        decorate: Any = serve.deployment
        deployment = decorate(CodecEncoder).options(name="codec-encoder", max_ongoing_requests=1000)
        handle = serve.run(deployment.bind((model,), CodecEncoderArgs(threads=threads), Path()), route_prefix=None)
        result = asyncio.run(_measure(handle, files, rounds))
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
    click.echo(json.dumps({"ms_per_stage": parts, **result}))


async def _measure(handle: DeploymentHandle[Any], files: list[bytes], rounds: int) -> dict[str, object]:
    async def encode(file: bytes) -> None:
        await handle.encode.remote("base", file, check=False)

    async def in_turn() -> None:
        for file in files:
            await encode(file)

    async def at_once() -> None:
        await asyncio.gather(*map(encode, files))

    async def timed(work: Callable[[], Coroutine[Any, Any, None]]) -> float:
        start = time.perf_counter()
        await work()
        return (time.perf_counter() - start) * 1e3

    await in_turn()  # not measured: first-time initialisation
    times: dict[str, list[float]] = {"lone_ms": [], "in_turn_ms": [], "at_once_ms": []}
    batches = []
    for _ in tqdm(range(rounds), desc="rounds", unit="round"):
        times["lone_ms"].append(await timed(lambda: encode(files[0])))
        times["in_turn_ms"].append(await timed(in_turn))
        before = len(await handle.batch_sizes.remote())
        times["at_once_ms"].append(await timed(at_once))
        batches.append((await handle.batch_sizes.remote())[before:])
    medians: dict[str, object] = {name: round(statistics.median(taken), 1) for name, taken in times.items()}
    return {**medians, "batches": batches}


if __name__ == "__main__":
    main()

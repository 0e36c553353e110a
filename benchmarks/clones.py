"""The gain from caches of a voice: time to the first frame of a clone, and time to prime the codec decoder.

python -m benchmarks.clones DIRECTORY
"""

import statistics
import time

import click
import numpy as np
import torch
from tqdm import trange

from benchmarks.ours import load
from deployments.replicas.health import Health
from deployments.replicas.stream_decoder import StreamDecoder
from qwen_tts.checkpoint import DTYPES
from qwen_tts.codec.decoder import load_codec_decoder
from qwen_tts.engine.engine import Engine
from qwen_tts.request import ClonedVoice, SpeechRequest, TextLayout
from qwen_tts.voice import VoicePrompt

_LAYOUTS: tuple[TextLayout, ...] = ("whole", "streaming")


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False))
@click.option("--dtype", type=click.Choice([*DTYPES, "int8"]), default="float32", show_default=True)
@click.option("--reference-frames", default=100, show_default=True)
@click.option("--reference-text", default="All of it had been there before, as ever.", show_default=True)
@click.option("--text", default="And this is new to us.", show_default=True)
@click.option("--repeat", default=5, show_default=True)
def main(checkpoint: str, dtype: str, reference_frames: int, reference_text: str, text: str, repeat: int) -> None:
    """Print medians over `repeat` voices, each of which speaks twice. The checkpoint is of type base."""
    loaded = load(checkpoint, dtype, slots=1)
    decoder = load_codec_decoder(loaded.codec_directory, torch.device("cpu"), torch.float32)
    streams = StreamDecoder(decoder, 1, 1, 64_000_000, Health())
    click.echo("| | prompt rows | shared rows | new voice ms | known voice ms |\n|---|---|---|---|---|")
    prompts = [_voice(loaded.engine, reference_frames, reference_text, seed) for seed in range(repeat + 1)]
    for layout in _LAYOUTS:
        times: list[tuple[float, float]] = []
        for index in trange(len(prompts), desc=layout):
            request = SpeechRequest(text, ClonedVoice(prompts[index]), text_layout=layout, seed=0, max_frames=1)
            times.append((_first_frame(loaded.engine, request), _first_frame(loaded.engine, request)))
        prompt = loaded.engine.prepare(request).layout
        click.echo(f"| {layout}, first frame | {len(prompt)} | {prompt.shared_rows} | {_medians(times)} |")
    times = []
    for voice in prompts:
        assert voice.ref_codes is not None
        marks = [time.perf_counter()]
        for _ in range(2):
            priming = streams._priming(0, voice.ref_codes, keep=True)
            while not streams._next_piece(priming):
                pass
            marks.append(time.perf_counter())
        times.append((marks[1] - marks[0], marks[2] - marks[1]))
    click.echo(f"| decoder primed | | | {_medians(times)} |")


def _voice(engine: Engine, frames: int, words: str, seed: int) -> VoicePrompt:
    talker, rng = engine.config.talker_config, np.random.default_rng(seed)
    codes = rng.integers(talker.code_predictor_config.vocab_size, size=(frames, talker.num_code_groups))
    embedding = rng.normal(size=talker.hidden_size).astype(np.float32)
    return VoicePrompt(embedding, codes.astype(np.int16), words)


def _first_frame(engine: Engine, request: SpeechRequest) -> float:
    started = time.perf_counter()
    engine.add(request)
    while not engine.idle:
        engine.step()
    return time.perf_counter() - started


def _medians(times: list[tuple[float, float]]) -> str:
    """Format the medians of all times but the first, which is warm-up."""
    return " | ".join(f"{1000 * statistics.median(column):.1f}" for column in zip(*times[1:], strict=True))


if __name__ == "__main__":
    main()

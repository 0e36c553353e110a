"""`qwen-tts say`: the library on the command line."""

import wave
from pathlib import Path

import click

from qwen_tts.cpus import limit_torch_threads
from qwen_tts.errors import QwenTTSError


@click.command()
@click.argument("text")
@click.option(
    "-o", "--output", default="speech.wav", show_default=True, type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--model", "checkpoint", default=None, help="Checkpoint directory or hub id; default: the embedded one.")
@click.option("--voice", default=None, help="Built-in speaker; default: the model's first.")
@click.option("--language", default="auto", show_default=True)
@click.option("--instructions", default=None, help="Style, or the description of a designed voice.")
@click.option("--seed", default=None, type=int)
def say(
    text: str,
    output: Path,
    checkpoint: str | None,
    voice: str | None,
    language: str,
    instructions: str | None,
    seed: int | None,
) -> None:
    """Speak TEXT into a WAV file, without a server."""
    from tqdm import tqdm

    from qwen_tts.api import GenerationOptions, Qwen3TTSModel
    from qwen_tts.audio import to_pcm16
    from qwen_tts.embedded import embedded_checkpoint

    limit_torch_threads()
    try:
        model = Qwen3TTSModel.from_pretrained(checkpoint or str(embedded_checkpoint("custom_voice")))
        options: GenerationOptions = {} if seed is None else {"seed": seed}
        speakers = model.get_supported_speakers()
        if speakers:
            pieces = model.stream_custom_voice(text, voice or speakers[0], language, instructions, **options)
        else:
            pieces = model.stream_voice_design(text, instructions or "", language, **options)
        with output.open("wb") as raw, wave.open(raw, "wb") as file, tqdm(unit=" s", desc=str(output)) as progress:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(model.sample_rate_hz)
            for samples, sample_rate_hz in pieces:
                file.writeframes(to_pcm16(samples))
                progress.update(round(len(samples) / sample_rate_hz, 2))
    except (QwenTTSError, OSError) as error:
        raise click.ClickException(str(error)) from None

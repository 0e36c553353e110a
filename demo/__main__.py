"""Train the demo checkpoints from nothing: python -m demo [--work DIR] [--stage NAME ...]."""

import shutil
from datetime import timedelta
from itertools import product
from pathlib import Path

import click
import torch
import torch.distributed as dist

from demo.checkpoint import read_codec_config, write_checkpoints, write_codec
from demo.corpus import SPEAKERS, synthesise
from demo.pronunciation import PronouncedEmbedding
from demo.recipe import RECIPE, Recipe, read_recipe
from demo.references import HELD_OUT, KINDS, write_references
from demo.tokens import DemoTokenizer, write_demo_tokenizer
from qwen_tts.cpus import limit_torch_threads
from qwen_tts.embedded import assembled_checkpoint
from qwen_tts.evaluation.run import evaluate
from qwen_tts.text import TextTokenizer
from qwen_tts.train.clips import CODES, ClipSet
from qwen_tts.train.codec import CodecTrainee, train_autoencoder, train_encoder, train_waveform
from qwen_tts.train.encode import encode_clips
from qwen_tts.train.talker import TalkerTrainee, train_talker
from qwen_tts.train.tasks import TaskSource
from qwen_tts.train.training import averaged_weights, share

_SEED = 0
_LONGEST_WAIT = timedelta(hours=6)  # for the process that synthesises the corpus
_COMPARED = list(product(SPEAKERS, KINDS))


class Work:
    """The directories of a run, under `root`."""

    def __init__(self, root: Path, recipe: Recipe) -> None:
        self.recipe = recipe
        self.corpus = root / "corpus"
        self.autoencoder = root / "autoencoder"
        self.encoder = root / "encoder"
        self.waveform = root / "waveform"
        self.codec = root / "codec"  # the finished codec directory
        self.talker = root / "talker"
        self.tokenizer = root / "tokenizer"
        self.checkpoints = root / "checkpoints"
        self.references = root / "references"
        self.evaluation = root / "evaluation"


def speak_corpus(work: Work) -> None:
    """Synthesise the corpus with flite."""
    synthesise(work.corpus, work.recipe.corpus.clips, work.recipe.corpus.workers)


def learn_codes(work: Work) -> None:
    """Train the codec's autoencoder stage, then encode the whole corpus."""
    codec = _codec()
    train_autoencoder(codec, _codec_clips(work), _with_recipe(work.autoencoder), work.recipe.autoencoder)
    if share()[0] == 0 and not (work.corpus / CODES).exists():
        encode_clips(work.corpus, lambda samples: codec.codes(samples[None])[0], work.recipe.corpus.workers)


def learn_to_encode(work: Work) -> None:
    """Train the codec's encoder stage."""
    train_encoder(_coding(work), _codec_clips(work), _with_recipe(work.encoder), work.recipe.encoder)


def learn_waveform(work: Work) -> None:
    """Train the codec's waveform stage."""
    train_waveform(_coding(work), _codec_clips(work), _with_recipe(work.waveform), work.recipe.waveform)


def learn_to_talk(work: Work) -> None:
    """Train talker, code predictor and speaker encoder."""
    tokenizer = write_demo_tokenizer(work.tokenizer)
    tasks = TaskSource(
        ClipSet(work.corpus), tokenizer.configs, TextTokenizer(work.tokenizer, tokenizer.configs["base"])
    )
    trainee = _talker(tokenizer, work, len(tasks.sounds))
    train_talker(trainee, tasks, _with_recipe(work.talker), work.recipe.talker)


def write_directories(work: Work) -> None:
    """Write the codec and the three checkpoint directories from the latest saved states."""
    tokenizer = write_demo_tokenizer(work.tokenizer)
    trainee = _talker(tokenizer, work)
    learned = averaged_weights(work.talker)
    trainee.load_state_dict({name: t for name, t in learned.items() if not name.startswith("sound_head.")})
    write_codec(work.codec, _finished_codec(work))
    write_checkpoints(work.checkpoints, trainee, tokenizer, work.tokenizer, work.codec)


def write_comparisons(work: Work) -> None:
    """Write recordings for comparison: flite itself, and the codec's copies."""
    write_references(work.references, work.codec)


def listen_to_it(work: Work) -> None:
    """Evaluate the built-in voices on the held-out texts, beside flite and the codec's copies of it."""
    checkpoint = assembled_checkpoint(work.checkpoints, "custom_voice")
    for texts in HELD_OUT:
        kinds = [f"{speaker} {kind}={work.references / texts.stem / kind / speaker}" for speaker, kind in _COMPARED]
        table = evaluate(
            texts, work.evaluation / texts.stem, server=None, recordings=tuple(kinds), voices=tuple(SPEAKERS),
            checkpoint=str(checkpoint), model=None, instructions="", seed=_SEED,
            streaming_text=False, digits=texts.stem == "digits", limit=None, device="cpu",
        )  # fmt: skip
        click.echo(f"{texts.stem}\n{table}")


STAGES = {
    "corpus": speak_corpus,
    "codes": learn_codes,
    "encoder": learn_to_encode,
    "waveform": learn_waveform,
    "talker": learn_to_talk,
    "checkpoints": write_directories,
    "references": write_comparisons,
    "evaluation": listen_to_it,
}

_SHARED = ("codes", "encoder", "waveform", "talker")  # the training stages, in which all processes take part


def _codec() -> CodecTrainee:
    torch.manual_seed(_SEED)
    return CodecTrainee(read_codec_config())


def _coding(work: Work) -> CodecTrainee:
    """Return the codec with the result of the autoencoder stage."""
    codec = _codec()
    codec.load_state_dict(averaged_weights(work.autoencoder))
    codec.codebooks_to_checkpoint()
    return codec


def _finished_codec(work: Work) -> CodecTrainee:
    """Return the codec with the latest encoder of the encoder stage and decoder of the waveform stage."""
    codec = _coding(work)
    state = codec.state_dict()
    for part, directory in (("encoder.", work.encoder), ("decoder.", work.waveform)):
        state |= {name: t for name, t in averaged_weights(directory).items() if name.startswith(part)}
    codec.load_state_dict(state)
    return codec


def _codec_clips(work: Work) -> ClipSet:
    return ClipSet(work.corpus, work.recipe.corpus.codec_clips)


def _talker(tokenizer: DemoTokenizer, work: Work, sounds: int = 0) -> TalkerTrainee:
    torch.manual_seed(_SEED)
    trainee = TalkerTrainee(tokenizer.configs["base"], work.recipe.talker.dropout, sounds)
    pronounced = PronouncedEmbedding(tokenizer.pronunciations)
    setattr(trainee.model.talker.model, "text_embedding", pronounced)  # noqa: B010 (another type takes its place)
    return trainee


def _with_recipe(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(RECIPE, directory / "config.toml")
    return directory


@click.command()
@click.option("--work", "root", default="demo-work", type=click.Path(file_okay=False, path_type=Path))
@click.option("--stage", "stages", multiple=True, type=click.Choice(list(STAGES)), help="Default: all, in order.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch; default: all usable CPUs.")
def main(root: Path, stages: tuple[str, ...], threads: int | None) -> None:
    """Train the demo checkpoints, resuming where an earlier run in the same work directory stopped.

    The training stages also run under torchrun, which is faster on two cores: torchrun --nproc-per-node 2 -m demo ...
    """
    if threads is not None:
        torch.set_num_threads(threads)
    else:
        limit_torch_threads()
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
    root.mkdir(parents=True, exist_ok=True)
    work = Work(root, read_recipe())
    for name in stages or tuple(STAGES):
        if share()[0] == 0:
            click.echo(f"== {name}: {STAGES[name].__doc__}")
        if share()[0] == 0 or name in _SHARED:
            STAGES[name](work)
        if dist.is_initialized():
            dist.barrier()  # all processes read what one has written


if __name__ == "__main__":
    main()

"""The pieces of a request: the voice, the seed and the limits of each."""

from typing import cast

import numpy as np
import pytest

from deployments.settings import LongTextArgs
from deployments.speech.opener import SpeechOpener, cloning_model, piece_seed, request_of_piece
from deployments.text.sentences import Piece
from deployments.voices.library import VoiceLibrary
from deployments.wire.messages import AudioChunk, ModelCard
from qwen_tts.audio import decode_audio
from qwen_tts.config import GenerationDefaults, ModelType
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import MAX_SEED, ClonedVoice, CustomVoice, DesignedVoice, SpeechRequest, frames_for_text
from qwen_tts.voice import VoicePrompt
from tests.deployments.loaded import TERMS, Spoken, collected, loaded, streams

PIECE = Piece("Some words.", 0, 11, "sentence")
TEXT = " ".join(f"This is sentence number {n}, of several." for n in range(30))
DESCRIBED = SpeechRequest(TEXT, DesignedVoice("low"), "english", seed=5)
PROMPT = VoicePrompt(np.ones(4, dtype=np.float32))


def card(
    name: str, kind: ModelType, rate_hz: int = 24000, languages: tuple[str, ...] = ("auto", "english")
) -> ModelCard:
    return ModelCard(name, kind, (), languages, GenerationDefaults(), rate_hz, 100)


DESIGN, BASE = card("design", "voice_design"), card("base", "base")


class Library:
    """A fake voice library. `fit` says whether a recording is fit to clone from."""

    def __init__(self, *, fit: bool = True) -> None:
        self.fit = fit
        self.given: list[tuple[int, str, str]] = []

    async def prompt_of(self, audio: bytes, ref_text: str, model: str) -> VoicePrompt:
        self.given.append((len(decode_audio(audio).samples), ref_text, model))
        if not self.fit:
            raise InvalidRequest("too short", "ref_audio")
        return PROMPT


async def spoken(order: SpeechRequest, library: Library, *cards: ModelCard) -> list[tuple[str, SpeechRequest]]:
    """Return the requests made of `order`, in the order of the text."""
    decoder = Spoken(lambda request: [AudioChunk(np.full(2400, 1000 + len(request.text), "<i2").tobytes(), "stop")])
    models = await loaded(*cards)
    opener = SpeechOpener(streams(decoder.handle), cast("VoiceLibrary", library), models, LongTextArgs())
    async with opener.open(order, cards[0], TERMS) as chunks:
        _, last = await collected(chunks)
    assert last.finish_reason == "stop"
    assert last.timing is not None, "the last chunk has no timing"
    assert all(stream.cancelled for stream in decoder.streams)
    return sorted(decoder.requests, key=lambda asked: TEXT.index(asked[1].text))


async def test_a_designed_voice_goes_on_as_a_clone_of_its_first_piece() -> None:
    library = Library()
    (model, first), *rest = await spoken(DESCRIBED, library, DESIGN, BASE)
    assert (model, first.voice, first.seed) == ("design", DESCRIBED.voice, 5)
    assert library.given == [(2400, first.text, "base")], "the clone is not made once, of the first piece"
    assert len(rest) > 5
    assert {model for model, _ in rest} == {"base"}
    assert all(order.voice == ClonedVoice(PROMPT) for _, order in rest)
    assert [order.seed for _, order in rest] == [piece_seed(5, 1 + n) for n in range(len(rest))]


@pytest.mark.parametrize(
    ("library", "cards"),
    [
        (Library(), (DESIGN,)),
        (Library(fit=False), (DESIGN, BASE)),
        (Library(), (DESIGN, card("base", "base", rate_hz=48000))),
        (Library(), (DESIGN, card("base", "base", languages=("auto", "french")))),
    ],
    ids=["no Base model", "unfit", "another rate", "another language"],
)
async def test_where_that_cannot_be_its_description_and_seed_are_said_again(
    library: Library, cards: tuple[ModelCard, ...]
) -> None:
    for model, order in await spoken(DESCRIBED, library, *cards):
        assert (model, order.voice, order.seed) == ("design", DESCRIBED.voice, 5)


async def test_short_text_is_the_request_itself() -> None:
    order = SpeechRequest("This is sentence number 0", DesignedVoice("low"), seed=5, max_frames=7)
    library = Library()
    assert await spoken(order, library, DESIGN, BASE) == [("design", order)]
    assert library.given == []


async def test_only_designed_voices_are_cloned() -> None:
    cards = await loaded(DESIGN, BASE)
    assert cloning_model(DESCRIBED, DESIGN, cards) == BASE
    assert cloning_model(SpeechRequest(TEXT, CustomVoice("ryan")), card("custom", "custom_voice"), cards) is None


def test_seeds_and_bounds_of_pieces() -> None:
    voice = CustomVoice("ryan")
    order = SpeechRequest(TEXT, voice, seed=MAX_SEED, max_frames=100_000)
    seeds = [request_of_piece(order, PIECE, index, voice).seed for index in range(3)]
    assert seeds == [MAX_SEED, piece_seed(MAX_SEED, 1), piece_seed(MAX_SEED, 2)]
    assert request_of_piece(order, PIECE, 0, voice).max_frames == frames_for_text(PIECE.text)
    assert request_of_piece(SpeechRequest(TEXT, voice, max_frames=5), PIECE, 0, voice).max_frames == 5
    assert request_of_piece(SpeechRequest(TEXT, voice), PIECE, 0, voice).max_frames is None


def test_pieces_of_neighbouring_seeds_draw_apart() -> None:
    seeds = [piece_seed(seed, index) for seed in range(50) for index in range(50)]
    assert len(set(seeds)) == 2500
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert piece_seed(7, 3) == piece_seed(7, 3), "the seeds differ from call to call"

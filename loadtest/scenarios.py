"""The scenarios. A scenario prepares the server (for example, it stores a voice), then makes any number of requests."""

import base64
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import aiohttp
import numpy as np
from pydantic import JsonValue

from loadtest.texts import LANGUAGES, Text, draw, draw_long

Scenario = Literal[
    "custom_voice", "clone_stored", "clone_inline", "design_then_clone", "live_text", "long_form", "mixed"
]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

# The shares of the other scenarios in `mixed`.
_MIXED: Mapping[Scenario, float] = {
    "custom_voice": 0.5, "clone_stored": 0.2, "live_text": 0.2, "clone_inline": 0.05, "long_form": 0.03,
    "design_then_clone": 0.02,
}  # fmt: skip
assert {*_MIXED, "mixed"} == set(SCENARIOS), "a scenario has no share in `mixed`"
_LONG_CHARACTERS = 600
_DESCRIPTION = "A warm, low voice, unhurried."
_SAMPLE = "One two three four five six seven eight nine."
SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"


class ServerRefused(Exception):
    """The server refused a preparation that the scenario needs. The message is written for the user."""


@dataclass(frozen=True)
class Call:
    """A call whose answer is not audio."""

    method: Literal["POST", "DELETE"]
    path: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """The request of one caller: `text` is spoken with `fields`.

    live: the text is written over the WebSocket, word by word. before: calls that come first; the latencies include
    them. after: clean-up calls that follow when the answer has ended.
    """

    scenario: str
    text: Text
    fields: Mapping[str, object]
    live: bool = False
    before: tuple[Call, ...] = ()
    after: tuple[Call, ...] = ()


@dataclass(frozen=True)
class RequestOptions:
    """The options of all requests, from the command line.

    fields: added to every request. voice: None takes the server's first voice. reference: the recording to clone; None
    lets the server speak one.
    """

    model: str = "tts-1"
    voice: str | None = None
    languages: Sequence[str] = LANGUAGES
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    reference: Path | None = None
    reference_text: str = _SAMPLE


Maker = Callable[[np.random.Generator], Request]


@asynccontextmanager
async def staged(http: aiohttp.ClientSession, scenario: Scenario, options: RequestOptions) -> AsyncIterator[Maker]:
    """Prepare the server for a scenario, and yield the maker of its requests.

    The maker draws from the generator it receives. Voices stored for the scenario are deleted at the end. Raises
    ServerRefused, aiohttp.ClientError.
    """
    used = set(_MIXED) if scenario == "mixed" else {scenario}
    voice = options.voice or (await _first_voice(http) if used - {"design_then_clone"} else "")
    stored, inline = f"load-{uuid.uuid4().hex[:8]}", dict[str, object]()
    if used & {"clone_stored", "clone_inline"}:
        recording = options.reference.read_bytes() if options.reference else await _recorded(http, options, voice)
        inline = {"ref_audio": base64.b64encode(recording).decode(), "ref_text": options.reference_text}
        if "clone_stored" in used:
            form = aiohttp.FormData({"name": stored, "consent": "a load test", "ref_text": options.reference_text})
            form.add_field("audio_sample", recording, filename="reference.wav", content_type="audio/wav")
            await _answer(http, "POST", VOICES, data=form)
    makers = _makers(options, voice, stored, inline)
    try:
        yield _mixed(makers) if scenario == "mixed" else makers[scenario]
    finally:
        if used & {"clone_stored", "design_then_clone"}:  # also the voices of callers who were stopped
            for name in await _stored_voices(http, stored):
                await _answer(http, "DELETE", f"{VOICES}/{name}")


def _makers(options: RequestOptions, voice: str, stored: str, inline: dict[str, object]) -> Mapping[Scenario, Maker]:
    common: dict[str, object] = {"model": options.model, "response_format": "pcm", **options.fields}

    def short(rng: np.random.Generator) -> Text:
        return draw(rng, options.languages)

    def design_then_clone(rng: np.random.Generator) -> Request:
        name = f"{stored}-{rng.bytes(6).hex()}"
        design = Call("POST", f"{VOICES}/design", {"description": _DESCRIPTION, "input": _SAMPLE, "name": name})
        forget = Call("DELETE", f"{VOICES}/{name}")
        fields = common | {"voice": name}
        return Request("design_then_clone", short(rng), fields, before=(design,), after=(forget,))

    with_voice = common | {"voice": voice}
    return {
        "custom_voice": lambda rng: Request("custom_voice", short(rng), with_voice),
        "clone_stored": lambda rng: Request("clone_stored", short(rng), common | {"voice": stored}),
        "clone_inline": lambda rng: Request("clone_inline", short(rng), common | inline),
        "live_text": lambda rng: Request("live_text", short(rng), with_voice, live=True),
        "long_form": lambda rng: Request("long_form", draw_long(rng, options.languages, _LONG_CHARACTERS), with_voice),
        "design_then_clone": design_then_clone,
    }


def _mixed(makers: Mapping[Scenario, Maker]) -> Maker:
    names = list(_MIXED)
    shares = list(_MIXED.values())
    return lambda rng: makers[names[rng.choice(len(names), p=shares)]](rng)


async def _first_voice(http: aiohttp.ClientSession) -> str:
    async with http.get(VOICES) as answer:
        voices = (await answer.json()).get("voices") if answer.ok else None
    if not voices:
        raise ServerRefused(f"{VOICES} lists no voice of this server; set --voice")
    return str(voices[0])


async def _stored_voices(http: aiohttp.ClientSession, prefix: str) -> list[str]:
    async with http.get(VOICES) as answer:
        voices = (await answer.json()).get("uploaded_voices", [])
    return [str(voice["name"]) for voice in voices if str(voice["name"]).startswith(prefix)]


async def _recorded(http: aiohttp.ClientSession, options: RequestOptions, voice: str) -> bytes:
    """Return a WAV file of the reference text, spoken by the server itself."""
    fields = {"model": options.model, "voice": voice, "input": options.reference_text, "response_format": "wav"}
    return await _answer(http, "POST", SPEECH, json=fields)


async def _answer(
    http: aiohttp.ClientSession, method: str, path: str, *, json: object = None, data: aiohttp.FormData | None = None
) -> bytes:
    async with http.request(method, path, json=json, data=data) as answer:
        content = await answer.read()
        if not answer.ok:
            said = content[:300].decode(errors="replace")
            raise ServerRefused(f"{method} {path} was answered with {answer.status}: {said}")
        return content

"""What callers ask for. A scenario prepares the server (a stored voice, say), then makes any number of orders."""

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

# Shares of the others in mixed.
_MIXED: Mapping[Scenario, float] = {
    "custom_voice": 0.5, "clone_stored": 0.2, "live_text": 0.2, "clone_inline": 0.05, "long_form": 0.03,
    "design_then_clone": 0.02,
}  # fmt: skip
_LONG_CHARACTERS = 600
_DESCRIPTION = "A warm, low voice, unhurried."
_SAMPLE = "One two three four five six seven eight nine."
SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"


class ServerRefused(Exception):
    """What a scenario needs before it can begin was not to be had. The message is for the user."""


@dataclass(frozen=True)
class Call:
    """A request whose answer is not audio."""

    method: Literal["POST", "DELETE"]
    path: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One caller's: `before` is done first and takes of his time, then `text` is spoken with `fields` (over the
    WebSocket, word by word, if `live`), `after` is done when he has gone."""

    scenario: str
    text: Text
    fields: Mapping[str, object]
    live: bool = False
    before: tuple[Call, ...] = ()
    after: tuple[Call, ...] = ()


@dataclass(frozen=True)
class RequestOptions:
    """What the caller of this tool chooses of the requests. `fields` go into every one. `voice` None is the server's
    first; `reference` None is spoken by that voice."""

    model: str = "tts-1"
    voice: str | None = None
    languages: Sequence[str] = LANGUAGES
    fields: Mapping[str, JsonValue] = field(default_factory=dict)
    reference: Path | None = None
    reference_text: str = _SAMPLE


Maker = Callable[[np.random.Generator], Request]


@asynccontextmanager
async def staged(http: aiohttp.ClientSession, scenario: Scenario, options: RequestOptions) -> AsyncIterator[Maker]:
    """Gives what makes an order with the draws it is handed. What was stored for it is deleted at the end. Raises
    ServerRefused, aiohttp.ClientError."""
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
        if used & {"clone_stored", "design_then_clone"}:  # of callers who were stopped, too
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
        raise ServerRefused(f"{VOICES} names no voice of this server: give --voice")
    return str(voices[0])


async def _stored_voices(http: aiohttp.ClientSession, prefix: str) -> list[str]:
    async with http.get(VOICES) as answer:
        voices = (await answer.json()).get("uploaded_voices", [])
    return [str(voice["name"]) for voice in voices if str(voice["name"]).startswith(prefix)]


async def _recorded(http: aiohttp.ClientSession, options: RequestOptions, voice: str) -> bytes:
    """A WAV file of the reference's words, spoken by the server itself."""
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

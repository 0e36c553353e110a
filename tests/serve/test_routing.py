"""The choice of the model that speaks, and the errors if no model can speak."""

import base64

import httpx
import pytest

from tests.recordings import wav
from tests.serve.calls import SHORT, fault, upload
from tests.serve.conftest import BASE, CUSTOM, DESIGN

pytestmark = pytest.mark.usefixtures("empty_library")


ROUTES: dict[str, tuple[str | None, dict[str, object], str]] = {
    "built-in speaker": (None, {"voice": "Serena"}, CUSTOM),
    "built-in speaker, auto": ("auto", {"voice": "serena", "instructions": "softly"}, CUSTOM),
    "built-in speaker, tts-1": ("tts-1", {"voice": "ryan"}, CUSTOM),
    "built-in speaker, tts-1-hd": ("tts-1-hd", {"voice": "ryan"}, CUSTOM),
    "description": (None, {"instructions": "A low voice"}, DESIGN),
    "description, gpt-4o-mini-tts": ("gpt-4o-mini-tts", {"instructions": "A low voice"}, DESIGN),
    "stored voice": (None, {"voice": "anna"}, BASE),
    "stored voice, auto": ("auto", {"voice": "ANNA"}, BASE),
    "reference": (None, {"ref_audio": base64.b64encode(wav()).decode(), "ref_text": "a"}, BASE),
    "embedding": ("auto", {"speaker_embedding": [0.5] * 128}, BASE),
    "named": (DESIGN, {"instructions": "A low voice"}, DESIGN),
}


@pytest.mark.parametrize("case", ROUTES)
def test_routing(client: httpx.Client, case: str) -> None:
    model, body, expected = ROUTES[case]
    upload(client, "anna")
    response = client.post("/v1/audio/speech", json=SHORT | body | ({} if model is None else {"model": model}))
    assert response.status_code == 200, response.text[:500]
    assert response.headers["x-model"] == expected


# the request -> status, param, words of the message
REFUSED_ROUTES: dict[str, tuple[dict[str, object], int, str, list[str]]] = {
    "nothing to go by": ({}, 400, "voice", ["ryan", "anna", "instructions", "ref_audio"]),
    "unknown voice": ({"voice": "bob"}, 404, "voice", ["bob", "ryan", "anna"]),
    "stored voice, custom voice model": ({"voice": "anna", "model": CUSTOM}, 400, "voice", [CUSTOM, BASE]),
    "stored voice, design model": ({"voice": "anna", "model": DESIGN}, 400, "voice", [DESIGN]),
    "built-in voice, base model": ({"voice": "ryan", "model": BASE}, 400, "voice", [CUSTOM, BASE]),
    "no voice, base model": ({"model": BASE}, 400, "voice", [BASE, "anna", "ref_audio"]),
    "no voice, custom voice model": ({"model": CUSTOM, "instructions": "low"}, 400, "voice", ["ryan"]),
    "reference, custom voice model": (
        {"model": CUSTOM, "ref_audio": "AAAA", "ref_text": "a"}, 400, "ref_audio", [CUSTOM, BASE],
    ),
    "embedding, design model": ({"model": DESIGN, "speaker_embedding": [1.0]}, 400, "speaker_embedding", [BASE]),
    "stored voice with instructions": ({"voice": "anna", "instructions": "softly"}, 400, "instructions", []),
    "unknown model": ({"voice": "ryan", "model": "gpt"}, 404, "model", [CUSTOM, BASE, DESIGN, "auto"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_ROUTES)
def test_refused_routes(client: httpx.Client, case: str) -> None:
    body, status, param, words = REFUSED_ROUTES[case]
    upload(client, "anna")
    message = fault(client.post("/v1/audio/speech", json=SHORT | body), status, param)["message"]
    for word in words:
        assert word in message

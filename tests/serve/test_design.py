"""Voices made from a description: previews, and voices stored from them."""

import base64
import io
import wave
from pathlib import Path

import httpx
import pytest

from tests.serve.calls import fault, files, speak
from tests.serve.conftest import CUSTOM

pytestmark = pytest.mark.usefixtures("empty_library")


DESIGN_BODY = {"description": "A low, warm voice.", "input": "This is how I sound.", "max_new_tokens": 20}


def test_design_then_keep_in_two_calls(client: httpx.Client) -> None:
    answer = client.post("/v1/audio/voices/design", json=DESIGN_BODY | {"candidates": 3, "seed": 5})
    assert answer.status_code == 200, answer.text
    previews = answer.json()["data"]
    assert [preview["seed"] for preview in previews] == [5, 6, 7]
    sounds = [base64.b64decode(preview["audio"]) for preview in previews]
    assert len(set(sounds)) == 3
    assert "cut off" in previews[0]["flaw"]
    for sound in sounds:
        with wave.open(io.BytesIO(sound)) as file:
            assert (file.getframerate(), file.getnframes()) == (24000, 20 * 1920)
    chosen = previews[1]["id"]
    kept = client.post(f"/v1/audio/voices/design/{chosen}", json={"name": "warm"})
    assert kept.status_code == 200, kept.text
    assert kept.json()["source"] == "design"
    assert kept.json()["ref_text"] is None, "a candidate that was cut off keeps the words"
    assert client.get("/v1/audio/voices/warm/audio").content == sounds[1]
    speak(client, voice="warm")
    fault(client.post(f"/v1/audio/voices/design/{chosen}", json={"name": "again"}), 404, "preview_id")
    fault(client.post(f"/v1/audio/voices/design/{previews[0]['id']}", json={"name": "warm"}), 409)
    other = client.post(f"/v1/audio/voices/design/{previews[0]['id']}", json={"name": "warm", "overwrite": True})
    assert other.status_code == 200
    assert client.get("/v1/audio/voices/warm/audio").content == sounds[0]


def test_design_in_one_call_stores_nothing_unfit(client: httpx.Client, voices: Path) -> None:
    """Speech of random weights never ends by itself. (Fit candidates: tests/deployments/speech/test_design.py.)"""
    answer = client.post("/v1/audio/voices/design", json=DESIGN_BODY | {"name": "warm", "candidates": 2, "seed": 5})
    assert "cut off" in fault(answer, 422)["message"]
    assert files(voices) == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"description": ""}, 400, "description"),
        ({"input": " "}, 400, "input"),
        ({"input": "a" * 5000}, 400, "input"),
        ({"candidates": 0}, 400, "candidates"),
        ({"candidates": 5}, 400, "candidates"),
        ({"name": "../x"}, 400, "name"),
        ({"name": "ryan"}, 400, "name"),
        ({"model": CUSTOM}, 400, "model"),
        ({"model": "gpt"}, 404, "model"),
        ({"colour": "red"}, 400, "colour"),
    ],
)
def test_designs_that_cannot_be(
    client: httpx.Client, voices: Path, body: dict[str, object], status: int, param: str
) -> None:
    fault(client.post("/v1/audio/voices/design", json=DESIGN_BODY | body), status, param)
    assert files(voices) == []


@pytest.mark.parametrize("preview", ["preview_0", "..%2f..%2fx", "anna", "preview_" + "0" * 32])
def test_previews_that_are_not(client: httpx.Client, preview: str) -> None:
    fault(client.post(f"/v1/audio/voices/design/{preview}", json={"name": "warm"}), 404)

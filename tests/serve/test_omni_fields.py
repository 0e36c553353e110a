"""vLLM-Omni's fields of a speech request, its headers, and its batches."""

import base64
from typing import Any

import httpx
import pytest

from tests.audio_files import same_samples
from tests.recordings import wav
from tests.serve.calls import FRAME_BYTES, SHORT, fault, posted, speak, wait_until
from tests.serve.conftest import BASE, CUSTOM, DESIGN, MAX_BATCH_AUDIO_BYTES, Service
from tests.serve.test_openai_client import wait_until_idle

CLIP = base64.b64encode(wav()).decode()


def test_two_names_of_one_field_give_the_same_speech(client: httpx.Client) -> None:
    def same(one: dict[str, object], other: dict[str, object]) -> bool:
        return same_samples(speak(client, **one), speak(client, **other))

    assert same({"speaker": "ryan", "task_type": "CustomVoice"}, {"voice": "ryan"})
    clone: dict[str, object] = {"ref_audio": CLIP, "ref_text": "Words."}
    assert same(clone, {"ref_audio": [CLIP], "ref_text": "Words.", "task_type": "Base"})
    assert same(clone, {"references": [{"audio_path": CLIP, "text": "Words."}]})
    assert not same(clone, {"ref_audio": CLIP, "x_vector_only_mode": True})
    embedding: dict[str, object] = {"speaker_embedding": [0.5] * 128}
    assert same(embedding, {**embedding, "x_vector_only_mode": True, "task_type": "Base"})
    greedy = {"temperature": 0, "subtalker_temperature": 0}
    assert same({"voice": "ryan", "extra_params": greedy}, {"voice": "ryan", **greedy})
    assert speak(client, instructions="A low voice", task_type="VoiceDesign")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"voice": "ryan", "task_type": "Base"}, 400, "task_type"),
        ({"instructions": "A low voice", "task_type": "CustomVoice"}, 400, "task_type"),
        ({"speaker": "bob"}, 404, "speaker"),
        ({"references": [{"audio_path": "file:///etc/passwd", "text": "a"}]}, 400, "references"),
        ({"references": [{"audio_path": CLIP}]}, 400, "references"),
        ({"voice": "ryan", "extra_params": {"cfg_scale": 1}}, 400, "extra_params.cfg_scale"),
        ({"voice": "ryan", "initial_codec_chunk_frames": -1}, 400, "initial_codec_chunk_frames"),
        ({"voice": "ryan", "initial_codec_chunk_frames": 51}, 400, "initial_codec_chunk_frames"),
    ],
)
def test_refusals(client: httpx.Client, body: dict[str, object], status: int, param: str) -> None:
    fault(client.post("/v1/audio/speech", json=SHORT | body), status, param)


def test_the_first_piece_is_as_long_as_asked(client: httpx.Client) -> None:
    body = SHORT | {"voice": "ryan", "max_new_tokens": 12}
    said = []
    for frames, first in ((None, 1), (0, 1), (6, 6)):
        with client.stream("POST", "/v1/audio/speech", json=body | {"initial_codec_chunk_frames": frames}) as response:
            pieces = list(response.iter_raw())
        assert len(pieces[0]) == first * FRAME_BYTES
        said.append(b"".join(pieces))
    assert same_samples(said[0], said[1])
    assert len(said[2]) == 12 * FRAME_BYTES


def test_a_whole_file_has_its_usage_in_headers(client: httpx.Client) -> None:
    def usage(**body: object) -> dict[str, int]:
        response = client.post("/v1/audio/speech", json=SHORT | {"stream": False} | body)
        assert response.status_code == 200, response.text
        names = ("input", "output", "total", "input-text", "input-audio")
        found = {name: int(response.headers[f"x-vllm-omni-{name}-tokens"]) for name in names}
        assert found["input"] == found["input-text"] + found["input-audio"] == int(response.headers["x-input-tokens"])
        assert found["output"] == int(response.headers["x-output-tokens"]) == 3
        assert found["total"] == found["input"] + 3
        return found

    plain = usage(voice="ryan")
    assert (plain["input-text"] > 0, plain["input-audio"]) == (True, 0)
    assert usage(voice="ryan", instructions="softly")["input-text"] > plain["input-text"]
    assert usage(ref_audio=CLIP, ref_text="Words.")["input-audio"] > 10
    assert usage(ref_audio=CLIP, x_vector_only_mode=True) == plain


def batch(client: httpx.Client, **body: object) -> dict[str, Any]:
    response = client.post("/v1/audio/speech/batch", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert [result["index"] for result in answer["results"]] == list(range(answer["total"]))
    assert answer["succeeded"] + answer["failed"] == answer["total"]
    return answer


def test_a_batch_gives_what_its_items_give_alone(client: httpx.Client) -> None:
    shared = {name: value for name, value in SHORT.items() if name != "input"}
    items: list[dict[str, object]] = [
        {"input": "Hello"},
        {"input": "Hello", "voice": "serena"},
        {"input": "Hello", "voice": None, "instructions": "A low voice"},
        {"input": "Hello", "voice": None, "ref_audio": CLIP, "ref_text": "Words."},
        {"input": "Hello", "response_format": "wav"},
    ]
    answer = batch(client, voice="ryan", items=items, **shared)
    assert answer["succeeded"] == len(items)
    assert [result["model"] for result in answer["results"]] == [CUSTOM, CUSTOM, DESIGN, BASE, CUSTOM]
    for item, result in zip(items[:4], answer["results"], strict=False):
        alone = speak(client, **({"voice": "ryan"} | item))
        pcm = base64.b64decode(result["audio_data"])
        assert len(pcm) == len(alone)
        assert (result["media_type"], result["finish_reason"], result["seed"]) == ("audio/pcm", "length", 1)
        assert result["usage"]["output_tokens"] == 3
    assert base64.b64decode(answer["results"][4]["audio_data"]).startswith(b"RIFF")


def test_a_bad_item_fails_alone(client: httpx.Client) -> None:
    items: list[dict[str, object]] = [
        {"input": "Hello"}, {"input": " "}, {"input": "Hello", "voice": "bob"}, {"inptu": "Hello"}, {},
        {"input": "Hello", "top_k": -1}, {"input": "a" * 40_001},
    ]  # fmt: skip
    answer = batch(client, voice="ryan", items=items, max_new_tokens=2, response_format="pcm")
    first, *bad = answer["results"]
    assert (first["status"], answer["failed"]) == ("success", 6)
    assert [result["error_param"] for result in bad] == ["input", "voice", "inptu", "input", "top_k", "input"]
    assert all(result["status"] == "error" and result["error"] and result["audio_data"] is None for result in bad)


def test_a_full_batch_waits_its_turn(service: Service, client: httpx.Client) -> None:
    answer = batch(client, voice="ryan", items=[{"input": f"Number {n}"} for n in range(32)], max_new_tokens=2)
    assert answer["succeeded"] == 32
    wait_until_idle(service)


def test_a_batch_has_a_bound_together(service: Service, client: httpx.Client) -> None:
    frames = MAX_BATCH_AUDIO_BYTES // FRAME_BYTES // 2
    items = [{"input": "Hello there. " * 20, "max_new_tokens": limit} for limit in (frames, 2 * frames, 2 * frames)]
    answer = batch(client, voice="ryan", seed=7, items=items)
    assert {result["error_code"] for result in answer["results"]} >= {"batch_too_large"}
    wait_until_idle(service)


def test_leaving_a_batch_frees_its_slots(service: Service) -> None:
    items = [{"input": "Hello there. " * 20, "seed": 7, "max_new_tokens": 2000}] * 4
    with posted(f"{service.url}/v1/audio/speech/batch", {"voice": "ryan", "items": items}):
        wait_until(lambda: service.load(f"talker-{CUSTOM}").used == 4, "the items are not being spoken")
    wait_until_idle(service)


def test_what_is_no_batch(client: httpx.Client) -> None:
    for body, param in (({"items": []}, "items"), ({"voice": "ryan"}, "items"), ({"items": [{}], "x": 1}, "x")):
        fault(client.post("/v1/audio/speech/batch", json=body), 400, param)


def test_the_documentation_is_served(client: httpx.Client) -> None:
    assert "/v1/audio/speech" in client.get("/openapi.json").json()["paths"]
    assert "openapi.json" in client.get("/docs").text

"""Fields with two names, and the errors of nested fields."""

import json
from typing import Any

import pytest

from deployments.errors import renamed_fields
from deployments.http.bodies import parse_body, parse_fields
from deployments.protocols.openai.batch import parse_batch
from deployments.protocols.openai.bodies import SpeechBody, Utterance
from deployments.speech.fields import SpeechFields
from qwen_tts.errors import InvalidRequest


def body(**fields: Any) -> SpeechBody:
    return parse_body(SpeechBody, json.dumps({"input": "Hi"} | fields).encode())


def parsed(**fields: Any) -> SpeechFields:
    return body(**fields).resolved()


def test_other_names_of_fields() -> None:
    assert parsed(speaker="ryan").voice == "ryan"
    assert parsed(voice={"id": "ryan"}).voice == "ryan"
    assert parsed(ref_audio=["AAAA"]).ref_audio == "AAAA"
    clone = parsed(references=[{"audio_path": "AAAA", "text": "Words."}])
    assert (clone.ref_audio, clone.ref_text) == ("AAAA", "Words.")
    sampled = parsed(extra_params={"temperature": 0.5, "seed": 7}, top_k=3)
    assert (sampled.temperature, sampled.seed, sampled.top_k, sampled.top_p) == (0.5, 7, 3, None)


REFUSED: dict[str, tuple[dict[str, object], str, list[str]]] = {
    "two voices": ({"voice": "ryan", "speaker": "ryan"}, "speaker", ["voice and speaker"]),
    "two references": ({"ref_audio": "A", "references": [{"audio_path": "B"}]}, "references", ["exclude"]),
    "two texts": ({"ref_text": "A", "references": [{"audio_path": "B", "text": "C"}]}, "references", ["ref_text"]),
    "two seeds": ({"seed": 1, "extra_params": {"seed": 1}}, "extra_params.seed", ["seed and extra_params.seed"]),
    "two recordings": ({"ref_audio": ["A", "B"]}, "ref_audio", ["one recording", "2"]),
    "no recording": ({"ref_audio": []}, "ref_audio", ["one recording"]),
    "list of numbers": ({"ref_audio": [1]}, "ref_audio", ["string"]),
    "two in references": ({"references": [{"audio_path": "A"}] * 2}, "references", ["at most 1"]),
    "none in references": ({"references": []}, "references", ["at least 1"]),
    "reference without audio": ({"references": [{"text": "A"}]}, "references", ["references.0.audio_path is missing"]),
    "unknown in references": ({"references": [{"url": "A"}]}, "references.url", ["audio_path, text"]),
    "unknown extra": ({"extra_params": {"cfg": 2}}, "extra_params.cfg", ["'extra_params.cfg'", "temperature"]),
    "bad extra": ({"extra_params": {"top_k": "x"}}, "extra_params", ["extra_params.top_k", "integer"]),
    "extra of another type": ({"extra_params": [1]}, "extra_params", []),
    "unknown task": ({"task_type": "Clone"}, "task_type", ["CustomVoice", "Base"]),
    "unknown stream format": ({"stream_format": "ogg"}, "stream_format", ["audio", "sse"]),
    "voice object without a name": ({"voice": {"id": None}}, "voice", ["id"]),
    "voice object": ({"voice": {"name": "x"}}, "voice.name", ["id"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_what_was_sent(case: str) -> None:
    fields, param, words = REFUSED[case]
    with pytest.raises(InvalidRequest) as caught:
        parsed(**fields)
    assert caught.value.param == param
    for word in words:
        assert word in caught.value.message


def test_a_refusal_is_of_the_name_that_was_sent() -> None:
    with pytest.raises(InvalidRequest) as caught, renamed_fields(body(speaker="ryan").sent_as):
        raise InvalidRequest("voice is odd", "voice", "c")
    assert (caught.value.param, caught.value.message, caught.value.code) == ("speaker", "speaker is odd", "c")


def batch(**fields: object) -> list[dict[str, Any]]:
    return parse_batch(json.dumps(fields).encode())


def test_items_have_the_shared_fields_but_for_their_own() -> None:
    items = batch(voice="ryan", seed=1, items=[{"input": "One"}, {"input": "Two", "voice": "serena", "seed": 2}])
    one, two = (parse_fields(Utterance, item) for item in items)
    assert (one.input, one.voice, one.seed) == ("One", "ryan", 1)
    assert (two.input, two.voice, two.seed) == ("Two", "serena", 2)


def test_items_wait_as_a_batch_unless_they_say_otherwise() -> None:
    items = batch(items=[{"input": "One"}, {"input": "Two", "priority": "interactive"}])
    assert [parse_fields(Utterance, item).resolved().priority for item in items] == ["batch", "interactive"]
    shared = batch(priority="interactive", items=[{"input": "One"}])
    assert [parse_fields(Utterance, item).priority for item in shared] == ["interactive"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": [{"input": "x"}] * 33}, "items"),
        ({"items": ["x"]}, "items"),
        ({"items": [{"input": "x"}], "input": "y"}, "input"),
        ({"items": [{"input": "x"}], "stream": True}, "stream"),
        ({"items": [{"input": "x"}], "seed": "y"}, "seed"),
    ],
)
def test_what_is_no_batch(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        batch(**fields)
    assert caught.value.param == param

"""/openapi.json: every route, with its body, its errors, and references to definitions that exist."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from deployments.http.bodies import parse_fields
from deployments.http.gate import OPEN_PATHS, Gate
from deployments.ingress import build_api
from deployments.protocols.elevenlabs.fields import ConvertBody
from deployments.protocols.openai.batch import BatchBody
from deployments.protocols.openai.bodies import SpeechBody
from deployments.settings import ApiKeyArgs, IngressArgs, ReferenceAudioArgs, VoiceStoreArgs
from deployments.speech.service import SpeechService
from deployments.wire.deployment_states import DeploymentStates

ELEVENLABS = {
    "GET /v1/voices",
    "POST /v1/text-to-speech/{voice_id}",
    "POST /v1/text-to-speech/{voice_id}/stream",
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    nothing: Any = None  # no route is called
    voices = VoiceStoreArgs(url=str(tmp_path_factory.mktemp("voices")))
    service = SpeechService(nothing, nothing, nothing, IngressArgs(), voices, ReferenceAudioArgs())
    return build_api(service, Gate(ApiKeyArgs()), DeploymentStates({})).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} == {
        "GET /status",
        "GET /healthz",
        "GET /readyz",
        "GET /v1/models",
        "GET /v1/models/{model}",
        "POST /v1/audio/speech",
        "POST /v1/audio/speech/batch",
        "GET /v1/audio/voices",
        "POST /v1/audio/voices",
        "POST /v1/audio/voices/design",
        "POST /v1/audio/voices/design/{preview_id}",
        "GET /v1/audio/voices/{name}",
        "DELETE /v1/audio/voices/{name}",
        "GET /v1/audio/voices/{name}/audio",
        *ELEVENLABS,
        "GET /v1/audio/voice_consents",
        "POST /v1/audio/voice_consents",
        "GET /v1/audio/voice_consents/{consent_id}",
        "POST /v1/audio/voice_consents/{consent_id}",
        "DELETE /v1/audio/voice_consents/{consent_id}",
    }


def test_every_post_has_a_body_and_every_error_its_shape(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert ("requestBody" in operation) == name.startswith("POST"), name
        for status, response in operation["responses"].items():
            if status != "200":
                schema = response["content"]["application/json"]["schema"]
                shapes = {shape["$ref"].rpartition("/")[2] for shape in schema.get("anyOf", [schema])}
                own = "ElevenLabsErrorAnswer" if name in ELEVENLABS else "ErrorAnswer"
                of_gate = status in ("400", "401") and name.split()[1] not in OPEN_PATHS
                assert shapes in ([{own, "ErrorAnswer"}, {"ErrorAnswer"}] if of_gate else [{own}]), (name, status)
        if name.startswith("POST"):
            assert {"400", "408", "413", "415", "429", "500", "503"} <= set(operation["responses"]), name


def test_what_the_gate_asks_of_every_route_but_open_ones(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert (schemes["Bearer"]["scheme"], schemes["xi-api-key"]["in"]) == ("bearer", "header")
    keyed = {name for name, operation in operations(document) if "security" in operation}
    assert keyed == {name for name, _ in operations(document) if name.split()[1] not in OPEN_PATHS}
    for name, operation in operations(document):
        assert (name in keyed) == ({"400", "401"} <= set(operation["responses"])), name
        if name in keyed:
            assert operation["security"] == [{}, {"Bearer": []}, {"xi-api-key": []}], (
                "a route needs either header, or none on a service without keys"
            )


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    def references(part: object) -> Iterator[str]:
        if isinstance(part, dict):
            yield from [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert {"Reference", "SamplingFields", "Utterance"} <= names
    assert names <= set(document["components"]["schemas"])


def test_the_examples_are_valid(document: dict[str, Any]) -> None:
    bodies: dict[str, type[BaseModel]] = {
        "/v1/audio/speech": SpeechBody,
        "/v1/audio/speech/batch": BatchBody,
        "/v1/text-to-speech/{voice_id}": ConvertBody,
    }
    for path, kind in bodies.items():
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert len(content["examples"]) >= 1
        for example in content["examples"].values():
            parse_fields(kind, example["value"])

"""A service with API keys, over real sockets: access, owners of voices, and the log lines of a request."""

import asyncio
import concurrent.futures
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import websockets
import yaml
from openai import AuthenticationError, NotFoundError, OpenAI, RateLimitError
from ray import serve

from deployments.access.key_file import hash_key
from deployments.app import build_app
from deployments.settings import (
    ApiKeyArgs,
    AppArgs,
    CodecDecoderArgs,
    CodecEncoderArgs,
    IngressArgs,
    LoggingArgs,
    ModelArgs,
    TalkerArgs,
    VoiceStoreArgs,
)
from tests.recordings import wav
from tests.serve.calls import PATIENCE_S, fault, speak, stored, upload, wait_until
from tests.serve.conftest import BASE, DESIGN, Service
from tests.serve.test_live_text import slot_in_use

APP = "keys"
EMBEDDING = [0.5] * 128
NAMES = ("alice", "bob", "ops", "slow", "dana")
DESCRIBED = {"description": "A low voice.", "input": "Hello there, this is how I sound.", "max_new_tokens": 20}


def write(file: Path, *names: str) -> None:
    """Write keys of these names; each key is its name. The file is replaced at once, as a mounted Secret is."""
    limits: dict[str, dict[str, object]] = {
        "alice": {"max_concurrent": 1},
        "ops": {"voices": "all"},
        "slow": {"requests_per_minute": 2},
        "dana": {"requests_per_minute": 2},
    }
    entries = [{"name": name, "hash": hash_key(name), **limits.get(name, {})} for name in names]
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump(entries))
    os.replace(new, file)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    write(file, *NAMES)
    return file


@pytest.fixture(scope="module")
def keyed(
    ray_port: int, checkpoints: dict[str, Path], key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    args = AppArgs(
        models=(
            ModelArgs(name=BASE, checkpoint=str(checkpoints[BASE]), type="base"),
            ModelArgs(name=DESIGN, checkpoint=str(checkpoints[DESIGN]), type="voice_design"),
        ),
        talker=TalkerArgs(compile=False, slots=4, threads=1, graceful_shutdown_s=1, keep_pace=False),
        codec_decoder=CodecDecoderArgs(threads=1, graceful_shutdown_s=1),
        codec_encoder=CodecEncoderArgs(threads=1, graceful_shutdown_s=1),
        ingress=IngressArgs(graceful_shutdown_s=1, live_text_timeout_s=600),
        voices=VoiceStoreArgs(url=str(tmp_path_factory.mktemp("owned-voices"))),
        api_keys=ApiKeyArgs(file=key_file),
        logging=LoggingArgs(encoding="json"),
    )
    serve.run(build_app(args), name=APP, route_prefix="/keyed")
    yield Service(f"http://127.0.0.1:{ray_port}/keyed", APP)
    serve.delete(APP)


def client(service: Service, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=service.url, timeout=PATIENCE_S, trust_env=False, headers=headers)


def test_only_probes_come_without_a_key(keyed: Service) -> None:
    with keyed.client() as nobody:
        assert nobody.get("/healthz").status_code == 200
        assert nobody.get("/readyz").status_code == 200
        for answer in (nobody.get("/v1/models"), nobody.post("/v1/audio/speech", json={}), nobody.get("/nowhere")):
            assert fault(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert nobody.get("/v1/models", headers={"xi-api-key": "alice"}).status_code == 200


def test_openai_s_client_sends_a_key_and_understands_a_refusal(keyed: Service) -> None:
    def client_of(key: str) -> OpenAI:
        return OpenAI(base_url=f"{keyed.url}/v1", api_key=key, max_retries=0)

    with client_of("wrong") as wrong, pytest.raises(AuthenticationError, match="not known"):
        wrong.models.list()
    with client_of("alice") as alice:
        assert {model.id for model in alice.models.list()} == {BASE, DESIGN}
    with client_of("slow") as slow:
        for _ in range(2):  # a request that fails counts too
            with pytest.raises(NotFoundError):
                slow.audio.speech.create(model=BASE, voice="nobody", input="Hello", response_format="wav")
        with pytest.raises(RateLimitError, match="2 requests a minute") as refused:
            slow.audio.speech.create(model=BASE, voice="nobody", input="Hello", response_format="wav")
    assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 30


def test_a_stream_holds_its_key_s_place_until_it_ends_or_is_left(keyed: Service) -> None:
    body = {"input": "Hello there. " * 20, "speaker_embedding": EMBEDDING, "seed": 7, "max_new_tokens": 2000}
    short = {**body, "max_new_tokens": 3}
    with client(keyed, "alice") as alice, client(keyed, "bob") as bob:
        with alice.stream("POST", "/v1/audio/speech", json=body) as response:
            pieces = response.iter_raw()
            next(pieces)
            refused = alice.post("/v1/audio/speech", json=short)
            assert fault(refused, 429)["code"] == "rate_limit_exceeded"
            assert int(refused.headers["Retry-After"]) >= 1
            assert alice.get("/v1/models").status_code == 200
            assert bob.post("/v1/audio/speech", json=short).status_code == 200
        wait_until(lambda: alice.post("/v1/audio/speech", json=short).status_code == 200, "the place is still held")
        wait_until(lambda: alice.post("/v1/audio/speech", json=short).status_code == 200, "a finished request holds it")


def test_voices_belong_to_the_key_that_stored_them(keyed: Service) -> None:
    with client(keyed, "alice") as alice, client(keyed, "bob") as bob, client(keyed, "ops") as ops:
        assert upload(alice, "anna").json()["owner"] == "alice"
        assert (stored(alice), stored(bob), stored(ops)) == (["anna"], [], ["anna"])
        speech = speak(alice, voice="anna")
        assert speak(ops, voice="anna") == speech
        for name in ("anna", "nobody"):
            for refused in (
                bob.get(f"/v1/audio/voices/{name}"),
                bob.get(f"/v1/audio/voices/{name}/audio"),
                bob.delete(f"/v1/audio/voices/{name}"),
            ):
                assert fault(refused, 404)["message"] == f"there is no voice '{name}'"
            unknown = fault(bob.post("/v1/audio/speech", json={"input": "Hello", "voice": name}), 404)
            assert (unknown["code"], unknown["message"].count("anna")) == ("unknown_voice", int(name == "anna"))
        assert fault(upload(bob, "anna", None, overwrite="true"), 409)["code"] == "voice_exists"
        assert speak(alice, voice="anna") == speech, "bob's requests changed the voice"
        assert upload(bob, "bert").status_code == 200
        assert ops.delete("/v1/audio/voices/bert").status_code == 200
        assert alice.delete("/v1/audio/voices/anna").status_code == 200


def test_previews_are_for_their_maker(keyed: Service) -> None:
    with client(keyed, "alice") as alice, client(keyed, "bob") as bob:
        (preview,) = alice.post("/v1/audio/voices/design", json=DESCRIBED).json()["data"]
        path = f"/v1/audio/voices/design/{preview['id']}"
        assert fault(bob.post(path, json={"name": "warm"}), 404)["code"] == "preview_not_found"
        assert alice.post(path, json={"name": "warm"}).json()["owner"] == "alice"
        assert stored(bob) == []
        assert alice.delete("/v1/audio/voices/warm").status_code == 200


def test_consents_belong_to_the_key_that_stored_them(keyed: Service) -> None:
    path = "/v1/audio/voice_consents"
    with client(keyed, "alice") as alice, client(keyed, "bob") as bob, client(keyed, "ops") as ops:
        recording = {"recording": ("a.wav", wav(), "audio/wav")}
        made = alice.post(path, data={"name": "Anna", "language": "en"}, files=recording).json()
        assert made["owner"] == "alice"
        for one, ids in ((alice, [made["id"]]), (bob, []), (ops, [made["id"]])):
            assert [consent["id"] for consent in one.get(path).json()["data"]] == ids
        for id_ in (made["id"], f"cons_{'0' * 32}"):
            for refused in (
                bob.get(f"{path}/{id_}"),
                bob.post(f"{path}/{id_}", json={"name": "mine"}),
                bob.delete(f"{path}/{id_}"),
                upload(bob, "anna", None, consent=id_),
            ):
                assert fault(refused, 404, "consent")["message"] == f"there is no consent '{id_}'"
        assert upload(alice, "anna", None, consent=made["id"]).json()["consent"] == made["id"]
        assert alice.get(f"{path}/{made['id']}").json() == made, "bob's requests changed the consent"
        assert alice.delete("/v1/audio/voices/anna").status_code == 200
        assert alice.delete(f"{path}/{made['id']}").status_code == 200


def test_every_item_of_a_batch_is_one_of_the_minute_s(keyed: Service) -> None:
    items = [{"input": "Hello"}] * 4
    with client(keyed, "dana") as dana:
        body = {"items": items, "speaker_embedding": EMBEDDING, "max_new_tokens": 2, "response_format": "pcm"}
        answer = dana.post("/v1/audio/speech/batch", json=body).json()
    results = [(result["status"], result["error_code"]) for result in answer["results"]]
    assert results == [("success", None)] * 2 + [("error", "rate_limit_exceeded")] * 2
    with client(keyed, "alice") as alice:  # a batch is one request under way, with any number of items
        answer = alice.post("/v1/audio/speech/batch", json=body).json()
    assert answer["succeeded"] == 4


def test_an_item_of_a_batch_speaks_with_its_caller_s_voices(keyed: Service) -> None:
    body = {"items": [{"input": "Hello"}], "voice": "anna", "max_new_tokens": 2, "response_format": "pcm"}
    with client(keyed, "alice") as alice, client(keyed, "bob") as bob:
        assert upload(alice, "anna").status_code == 200
        answers = [one.post("/v1/audio/speech/batch", json=body).json()["results"][0] for one in (alice, bob)]
        assert [answer["error_code"] for answer in answers] == [None, "unknown_voice"]
        assert alice.delete("/v1/audio/voices/anna").status_code == 200


def test_a_key_is_revoked_and_another_given_without_a_restart(keyed: Service, key_file: Path) -> None:
    with client(keyed, "bob") as bob, client(keyed, "carol") as carol:
        try:
            write(key_file, "alice", "ops", "slow", "carol")
            wait_until(lambda: bob.get("/v1/models").status_code == 401, "a revoked key is still known")
            assert carol.get("/v1/models").status_code == 200
        finally:
            write(key_file, *NAMES)
            wait_until(lambda: bob.get("/v1/models").status_code == 200, "a key that was added again is not known")


@dataclass(frozen=True)
class Logs:
    """The logs of the service's replicas, in which every line is a JSON object."""

    ray_session: Path

    def lines(self, deployment: str) -> list[dict[str, object]]:
        logs = (self.ray_session / "logs" / "serve").glob(f"replica_{APP}_{deployment}_*.log")
        return [json.loads(line) for log in logs for line in log.read_text().splitlines()]

    def of(self, request_id: str, deployment: str) -> list[str]:
        """Wait for lines of a request. A client may have its answer before they are written. Return their messages."""

        def messages() -> list[str]:
            return [str(line["message"]) for line in self.lines(deployment) if line.get("request_id") == request_id]

        wait_until(lambda: len(messages()) > 0, f"{deployment} logs nothing of {request_id}")
        return messages()

    def ids(self, deployment: str, word: str) -> set[object]:
        """Return the request ids of all lines with `word`."""
        return {line.get("request_id") for line in self.lines(deployment) if word in str(line["message"])}


@pytest.fixture
def logs(ray_session: Path) -> Logs:
    return Logs(ray_session)


def test_one_id_finds_a_request_in_every_log(keyed: Service, logs: Logs) -> None:
    body = {"input": "Hello, a secret", "speaker_embedding": EMBEDDING, "max_new_tokens": 3}
    with client(keyed, "bob") as bob:
        answer = bob.post("/v1/audio/speech", json=body, headers={"X-Request-Id": "find-me-1"})
        assert answer.headers.get_list("X-Request-Id") == ["find-me-1"]
        ways: dict[str, dict[str, object]] = {"whole-1": {"stream": False}, "events-1": {"stream_format": "sse"}}
        for id_, fields in ways.items():
            bob.post("/v1/audio/speech", json=body | fields, headers={"X-Request-Id": id_}).raise_for_status()
        made = [bob.get("/v1/models").headers["X-Request-Id"], bob.get("/nowhere").headers["X-Request-Id"]]
        assert len(set(made)) == 2
        long = bob.get("/v1/models", headers={"X-Request-Id": "a" * 129})
        assert fault(long, 400)["code"] == "invalid_request_id"
    for id_ in ("find-me-1", *ways):
        (line,) = logs.of(id_, "ingress")
        assert line.startswith("POST /keyed/v1/audio/speech 200 ")
        assert line.endswith(f"ms key=bob model={BASE} finish=length")
        for deployment in ("codec-decoder", f"talker-{BASE}"):
            assert logs.of(id_, deployment)
    for id_, status in zip(made, ("GET /keyed/v1/models 200", "GET - 404"), strict=True):
        (line,) = logs.of(id_, "ingress")
        assert line.startswith(f"{status} ")
    for deployment in ("ingress", "codec-decoder", f"talker-{BASE}"):
        assert not any("secret" in str(line) for line in logs.lines(deployment))


def test_streams_that_tasks_open_have_the_id_of_their_request(keyed: Service, logs: Logs) -> None:
    """The pieces of a long text are spoken at the same time, each by a task of its own."""
    body = {"input": 3 * ("Hello there. " * 20 + "\n\n"), "speaker_embedding": EMBEDDING, "max_new_tokens": 2}
    with client(keyed, "bob") as bob:
        bob.post("/v1/audio/speech", json=body, headers={"X-Request-Id": "pieces-1"}).raise_for_status()
    assert len(logs.of("pieces-1", "ingress")) == 1
    for deployment, call in (("codec-decoder", "synthesize"), (f"talker-{BASE}", "generate")):
        assert logs.of("pieces-1", deployment)
        # A call from a task without the context of its request would get a new id.
        unknown = logs.ids(deployment, call) - logs.ids("ingress", "POST")
        assert not unknown, f"{deployment} has ids that no request has"


def test_a_websocket_needs_a_key_too(keyed: Service) -> None:
    async def connect(headers: dict[str, str]) -> int:
        url = f"{keyed.url.replace('http', 'ws')}/v1/nowhere"
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url, additional_headers=headers, proxy=None)
        return refused.value.response.status_code

    assert asyncio.run(connect({})) == 401
    assert asyncio.run(connect({"Authorization": "Bearer bob"})) == 403, "the gate refused a valid key"


def test_many_at_once_are_counted_one_by_one(keyed: Service) -> None:
    body = {"input": "Hello there", "speaker_embedding": EMBEDDING, "seed": 7, "max_new_tokens": 3}
    with client(keyed, "alice") as alice, concurrent.futures.ThreadPoolExecutor(6) as pool:

        def answers() -> list[int]:
            return list(pool.map(lambda _: alice.post("/v1/audio/speech", json=body).status_code, range(6)))

        with slot_in_use(keyed, "alice", voice=None, model=BASE, speaker_embedding=EMBEDDING):
            assert answers() == [429] * 6
        wait_until(lambda: alice.post("/v1/audio/speech", json=body).status_code == 200, "the place is still held")
        assert set(answers()) <= {200, 429}
        wait_until(lambda: alice.post("/v1/audio/speech", json=body).status_code == 200, "a place was not given back")

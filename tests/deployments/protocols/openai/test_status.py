"""GET /status: the numbers of all replicas together, and null where a number is not known."""

from types import SimpleNamespace
from typing import Any, cast

import httpx
from fastapi import FastAPI

from deployments.protocols.openai.status import CODEC_DECODER, CODEC_ENCODER, routes
from deployments.speech.edge_metrics import LineState
from deployments.wire.deployment_states import DeploymentState
from deployments.wire.load import Load

LINE = LineState(limit=12.5, in_use=3, waiting=2, expected_wait_s=0.4, refusals={"wait": 5, "expired": 0, "replica": 1})
HEALTHY = DeploymentState("HEALTHY", {"RUNNING": 2}, (Load(8, 3, 1, 0.25), Load(4, 2, 0, 1.5)))
UNKNOWN = DeploymentState(None, None, None)


async def answer(**states: DeploymentState) -> dict[str, Any]:
    shared = {name.replace("_", " "): state for name, state in states.items()}

    async def read() -> dict[str, DeploymentState]:
        return shared  # by all requests of a second

    service = SimpleNamespace(admission=SimpleNamespace(state=lambda _: LINE))
    app = FastAPI()
    app.include_router(routes(cast("Any", service), cast("Any", SimpleNamespace(read=read))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        got, again = [await client.get("/status") for _ in range(2)]
    assert got.status_code == 200
    assert got.json() == again.json()
    return cast("dict[str, Any]", got.json())


async def test_replicas_are_added_up() -> None:
    assert CODEC_DECODER == "codec decoder"
    assert CODEC_ENCODER == "codec encoder"
    found = await answer(model=HEALTHY, codec_decoder=UNKNOWN, codec_encoder=DeploymentState("UPDATING", {}, ()))
    (model,) = found["models"]
    assert model == {
        "name": "model",
        "streams": 3,
        "stream_limit": 12.5,
        "queue": 2,
        "expected_wait_s": 0.4,
        "refusals": {"wait": 5, "expired": 0, "replica": 1},
        "talker": {
            "status": "HEALTHY",
            "replicas": {"RUNNING": 2},
            "running": 5,
            "capacity": 12,
            "waiting": 1,
            "least_headroom_s": 0.25,
        },
    }
    assert set(found["codec_decoder"].values()) == {None}
    encoder = found["codec_encoder"]
    assert (encoder["status"], encoder["replicas"], encoder["running"]) == ("UPDATING", {}, 0)


async def test_a_service_without_an_encoder() -> None:
    assert (await answer(model=UNKNOWN, codec_decoder=HEALTHY))["codec_encoder"] is None

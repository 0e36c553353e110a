"""GET /status: what the service does now, for operators. `qwen-tts status` shows it as a table."""

from fastapi import APIRouter
from pydantic import BaseModel

from deployments.http.openapi import errors
from deployments.speech.service import SpeechService
from deployments.wire.deployment_states import DeploymentState, DeploymentStates

# Names of deployments beside those of models, which have no spaces.
CODEC_DECODER, CODEC_ENCODER = "codec decoder", "codec encoder"


class DeploymentStatus(BaseModel):
    """All replicas of a deployment together. `capacity` is the number of requests that they can serve in time.

    `status` and `replicas` are null if Serve's controller does not answer. The other numbers are null if a replica does
    not answer. `least_headroom_s` is null, too, if no listener is close to the end of the audio in hand.
    """

    status: str | None
    replicas: dict[str, int] | None
    running: int | None
    capacity: int | None
    waiting: int | None
    least_headroom_s: float | None


class ModelStatus(BaseModel):
    """A model: the streams of this ingress replica, and the talkers, which all ingress replicas share.

    `stream_limit` is null without a limit. `refusals` are counted since this ingress replica started.
    """

    name: str
    streams: int
    stream_limit: float | None
    queue: int
    expected_wait_s: float
    refusals: dict[str, int]
    talker: DeploymentStatus


class Status(BaseModel):
    models: list[ModelStatus]
    codec_decoder: DeploymentStatus
    codec_encoder: DeploymentStatus | None


def routes(service: SpeechService, deployments: DeploymentStates) -> APIRouter:
    router = APIRouter()

    @router.get("/status", responses=errors(500))
    async def status() -> Status:
        """Return the load of every model and deployment. A replica that hangs delays the answer by a second at most."""
        states = await deployments.read()
        shared = CODEC_DECODER, CODEC_ENCODER
        return Status(
            models=[_model(service, name, state) for name, state in states.items() if name not in shared],
            codec_decoder=_shown(states[CODEC_DECODER]),
            codec_encoder=_shown(states[CODEC_ENCODER]) if CODEC_ENCODER in states else None,
        )

    return router


def _model(service: SpeechService, name: str, talker: DeploymentState) -> ModelStatus:
    line = service.admission.state(name)
    return ModelStatus(
        name=name,
        streams=line.in_use,
        stream_limit=line.limit,
        queue=line.waiting,
        expected_wait_s=line.expected_wait_s,
        refusals=dict(line.refusals),
        talker=_shown(talker),
    )


def _shown(state: DeploymentState) -> DeploymentStatus:
    loads = state.loads
    headrooms = [load.headroom_s for load in loads or () if load.headroom_s is not None]
    return DeploymentStatus(
        status=state.status,
        replicas=None if state.replicas is None else dict(state.replicas),
        running=None if loads is None else sum(load.running for load in loads),
        capacity=None if loads is None else sum(load.capacity for load in loads),
        waiting=None if loads is None else sum(load.waiting for load in loads),
        least_headroom_s=min(headrooms, default=None),
    )

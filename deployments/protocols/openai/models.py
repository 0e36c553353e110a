"""Health, readiness and the loaded models."""

from fastapi import APIRouter

from deployments.http.openapi import errors
from deployments.protocols.openai.answers import Alive, Model, ModelList, Ready
from deployments.speech.service import SpeechService
from deployments.wire.messages import ModelCard


def routes(service: SpeechService) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", responses=errors(500))
    async def healthz() -> Alive:
        """Return 200 while the process is alive."""
        return Alive()

    @router.get("/readyz", responses=errors(500, 503))
    async def readyz() -> Ready:
        """Return 200 once every model has loaded and spoken, except those that start when they are used.

        Every request checks the replicas.
        """
        await service.models.check()
        return Ready(models=[card.name for card in service.models])

    @router.get("/v1/models", responses=errors(500, 503))
    async def models() -> ModelList:
        """List the loaded models."""
        await service.models.load()
        return ModelList(data=[_shown(card, service.started_s) for card in service.models])

    @router.get("/v1/models/{model:path}", responses=errors(404, 500, 503))
    async def model(model: str) -> Model:
        """Return a loaded model."""
        await service.models.load()
        return _shown(service.models.named(model), service.started_s)

    return router


def _shown(card: ModelCard, started_s: int) -> Model:
    return Model(id=card.name, created=started_s, type=card.model_type)

"""The HTTP edge: parse, resolve the model, hand over. No model code.

The first chunk is awaited before the status line is sent, so whatever can be refused is refused with its own status.
After that a failure can only cut the connection, or be a stream of events' last one.
"""

from ray import serve

from deployments.edge import app
from deployments.http.openapi import errors
from deployments.protocols.elevenlabs.routes import ElevenLabsRoutes
from deployments.protocols.openai.answers import Alive, Model, ModelList, Ready
from deployments.protocols.openai.consents import ConsentRoutes
from deployments.wire.messages import ModelCard
from deployments.wire.models import named_model


@serve.ingress(app)
class Ingress(ElevenLabsRoutes, ConsentRoutes):
    """All routes."""

    @app.get("/healthz", responses=errors(500))
    async def healthz(self) -> Alive:
        """The process is alive."""
        return Alive()

    @app.get("/readyz", responses=errors(500, 503))
    async def readyz(self) -> Ready:
        """200 once every model has loaded and spoken; asks the replicas each time."""
        return Ready(models=list(await self._describe()))

    @app.get("/v1/models", responses=errors(500, 503))
    async def models(self) -> ModelList:
        """The loaded models."""
        return ModelList(data=[self._shown(card) for card in (await self._loaded()).values()])

    @app.get("/v1/models/{model:path}", responses=errors(404, 500, 503))
    async def model(self, model: str) -> Model:
        """A loaded model."""
        return self._shown(named_model(model, await self._loaded()))

    def _shown(self, card: ModelCard) -> Model:
        return Model(id=card.name, created=self._started, type=card.model_type)

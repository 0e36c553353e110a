"""The loaded models: the one that a request names, or the one that its voice needs."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from ray.serve.exceptions import RayServeException

from deployments.errors import REPLICA_LOST, Unavailable
from deployments.wire.messages import ModelCard
from qwen_tts.config import ModelType
from qwen_tts.errors import InvalidRequest

log = logging.getLogger("ray.serve")

# Names that let the service choose: our own, and those that OpenAI's clients send.
AUTO_MODELS = frozenset(
    {"auto", "tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-03-20", "gpt-4o-mini-tts-2025-12-15"}
)
# A check that takes longer than this counts as "still loading".
_DESCRIBE_TIMEOUT_S = 2.0
# Busy replicas answer within this time. Replicas that do not are lost.
_PATIENCE_S = 30.0
_PAUSE_S = 1.0  # between two early checks

_KINDS: dict[ModelType, str] = {
    "base": "cloning a voice",
    "custom_voice": "a built-in voice",
    "voice_design": "a voice made from its description",
}


class Models:
    """Cards of the loaded models, in the order of the settings. They do not change once all models have loaded.

    Every look-up raises Unavailable until `load` or `check` has succeeded once.
    """

    def __init__(
        self, describe: Callable[[], Awaitable[Sequence[ModelCard]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`describe` calls the replicas and returns their cards when every model has loaded."""
        self._describe = describe
        self._clock = clock
        self._cards: dict[str, ModelCard] = {}
        self._check: asyncio.Task[Sequence[ModelCard]] | None = None
        self._called_s = self._answered_s = clock()

    async def load(self) -> None:
        """Wait for the cards, once. Raises Unavailable while models are loading."""
        if not self._cards:
            await self.check()

    async def check(self) -> None:
        """Call the replicas now. Raises Unavailable while models are loading, or the error of a lost replica.

        Checks at the same time share one call. Once the models have loaded, a call that takes too long is no error:
        busy replicas answer late. Replicas that have not answered for `_PATIENCE_S` are unavailable, and are called
        again.
        """
        if self._check is None or self._check.done() or self._clock() - self._called_s > _PATIENCE_S:
            self._called_s = self._clock()
            # A new context: Serve finds the calls of a request by its context, and cancels them with the request.
            self._check = asyncio.create_task(self._ask(), context=contextvars.Context())
            self._check.add_done_callback(lambda check: check.cancelled() or check.exception())
        try:
            await asyncio.wait_for(asyncio.shield(self._check), _DESCRIBE_TIMEOUT_S)
        except TimeoutError:
            self._all()
            if self._clock() - self._answered_s > _PATIENCE_S:
                message = f"the replicas have not answered for {_PATIENCE_S:g} s; see /readyz"
                raise Unavailable(message, "not_ready", 2.0) from None

    async def load_early(self) -> None:
        """Wait for the cards, however long models load.

        Serve looks up the replicas of a deployment at the first call, and needs the head node for it. A process that
        has made its first calls also works while the head is away.
        """
        while not self._cards:
            try:
                await self.check()
            except (Unavailable, RayServeException, *REPLICA_LOST) as error:
                log.info("the models are not loaded yet: %s", error)
                await asyncio.sleep(_PAUSE_S)

    async def _ask(self) -> Sequence[ModelCard]:
        cards = await self._describe()
        assert cards, "settings have one model at least"
        self._cards = {card.name: card for card in cards}
        self._answered_s = self._clock()
        return cards

    def _all(self) -> dict[str, ModelCard]:
        if not self._cards:
            raise Unavailable("the models are still loading; see /readyz", "not_ready", 2.0)
        return self._cards

    def __iter__(self) -> Iterator[ModelCard]:
        return iter(self._all().values())

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def is_auto(self, name: str | None) -> bool:
        """Return whether `name` leaves the choice to the service. The name of a loaded model never does."""
        if name is None:
            return True
        return (name in AUTO_MODELS or name.startswith("eleven_")) and name not in self

    def named(self, name: str) -> ModelCard:
        """Return the model `name`. Raises InvalidRequest `model_not_found`."""
        if name not in self:
            message = f"model {name!r} does not exist; models: {', '.join(self._all())}, or auto"
            raise InvalidRequest(message, "model", "model_not_found")
        return self._all()[name]

    def of(self, kind: ModelType) -> list[ModelCard]:
        """Return every model of a type."""
        return [card for card in self if card.model_type == kind]

    def first(self, kind: ModelType) -> ModelCard:
        """Return the first model of a type. Raises InvalidRequest naming the type that is missing."""
        if found := self.of(kind):
            return found[0]
        message = f"{_KINDS[kind]} needs a model of type {kind!r}, and none is loaded; loaded: " + ", ".join(
            f"{card.name} ({card.model_type})" for card in self
        )
        raise InvalidRequest(message, "model", "model_type_not_loaded")

    def require(self, card: ModelCard, kind: ModelType, param: str) -> ModelCard:
        """Return `card` if it is of type `kind`. Raises InvalidRequest of `param`, naming the models of that type."""
        if card.model_type == kind:
            return card
        able = ", ".join(other.name for other in self.of(kind)) or "none is loaded"
        message = (
            f"model {card.name} is of type {card.model_type!r}; {_KINDS[kind]} needs one of type {kind!r} ({able}); "
            "name another model or omit model"
        )
        raise InvalidRequest(message, param, "voice_not_supported")

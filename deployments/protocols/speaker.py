"""Speaker: the speech service for one WebSocket connection."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from deployments.access.caller import Caller
from deployments.access.limits import CallerLimits
from deployments.settings import IngressArgs
from deployments.speech.encoding import EncodedSpeech
from deployments.speech.fields import SpeechFields
from deployments.speech.live_speech import LiveText
from deployments.speech.service import ResolvedSpeech, SpeechService


class Speaker:
    """Counts every utterance of a connection but the first towards the caller's limits.

    The gate counted the first one with the connection.
    """

    def __init__(self, service: SpeechService, limits: CallerLimits, caller: Caller) -> None:
        self._service = service
        self._limits = limits
        self._caller = caller
        self._utterances = 0

    @property
    def args(self) -> IngressArgs:
        return self._service.args

    async def has_model(self, name: str) -> bool:
        await self._service.models.load()
        return name in self._service.models

    async def resolve(self, fields: SpeechFields, sent_as: Mapping[str, str] | None = None) -> ResolvedSpeech:
        """Check everything but the texts. `sent_as` maps this service's names of fields to the client's."""
        return await self._service.resolve(self._caller, fields, sent_as)

    def check_whole(self, text: str) -> None:
        """Check the length of a complete text. Raises InvalidRequest `input_too_long`."""
        self._service.limits.check_whole(text)

    def check_live(self, speech: ResolvedSpeech) -> None:
        """Raise InvalidRequest if the request asks for something that a live text does not support."""
        self._service.check_live(speech)

    def live_text(self) -> LiveText:
        return self._service.live_text()

    @asynccontextmanager
    async def speak(self, speech: ResolvedSpeech, text: str, *, whole: bool) -> AsyncIterator[EncodedSpeech]:
        """Speak a complete text: as one file at the end if `whole`, else in pieces."""
        request = await self._service.request(speech, text)
        self._count()
        async with self._service.speak(speech, request, whole=whole) as encoded:
            yield encoded

    @asynccontextmanager
    async def speak_live(
        self, speech: ResolvedSpeech, text: LiveText, *, pause_s: float | None = None
    ) -> AsyncIterator[EncodedSpeech]:
        """Speak a text while it is written. A pause of `pause_s` ends the text."""
        self._count()
        async with self._service.speak_live(speech, text, pause_s=pause_s) as encoded:
            yield encoded

    def _count(self) -> None:
        self._utterances += 1
        if self._utterances > 1:
            self._limits.count(self._caller)

"""SpeechService: the operations of one ingress replica, for every protocol."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ray.actor import ActorHandle
from ray.serve.handle import DeploymentHandle

from deployments.access.caller import Caller
from deployments.errors import renamed_fields
from deployments.settings import IngressArgs, ReferenceAudioArgs, VoiceStoreArgs
from deployments.speech.admission import Admission
from deployments.speech.design import VoiceDesigner
from deployments.speech.edge_metrics import EdgeMetrics
from deployments.speech.encoding import AudioOutput, BatchRoom, EncodedSpeech, SpeechEncoding
from deployments.speech.fields import SpeechFields
from deployments.speech.limits import TextLimits
from deployments.speech.live_speech import LiveText, speak_live_text
from deployments.speech.opener import SpeechOpener
from deployments.speech.speech_streams import SpeechStreams
from deployments.speech.terms import Priority, Terms
from deployments.speech.voice_choice import VoiceChoice
from deployments.text.numbers import numbers_in_words
from deployments.voices.consents import ConsentStore
from deployments.voices.library import VoiceLibrary
from deployments.wire.calls import answer
from deployments.wire.messages import ModelCard
from deployments.wire.models import Models
from deployments.wire.text_inbox import TextInbox
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import SpeechOptions, SpeechRequest


@dataclass(frozen=True)
class ResolvedSpeech:
    """Checked fields: the model, the options of the speech with its voice, and the kind of file.

    All texts that are spoken with these fields have one seed, which was drawn unless the caller sent one.
    """

    card: ModelCard
    options: SpeechOptions
    output: AudioOutput
    normalize_text: bool
    terms: Terms
    sent_as: Mapping[str, str] = field(default_factory=dict)  # the caller's names of fields, for refusals


class SpeechService:
    """The operations of one ingress replica. It keeps the cards of the loaded models and the voices that it has read.

    The methods raise errors that are in the table of `errors.refusal_of`.
    """

    def __init__(
        self,
        decoder: DeploymentHandle[Any],
        encoder: DeploymentHandle[Any] | None,
        inbox: ActorHandle[TextInbox],
        args: IngressArgs,
        voices: VoiceStoreArgs,
        reference_audio: ReferenceAudioArgs,
    ) -> None:
        self.args = args
        self._given = args, voices, reference_audio
        self.started_s = int(time.time())
        self.limits = TextLimits(args)
        self._decoder = decoder
        self._encoder = encoder
        self.models = Models(self._describe)
        self.library = VoiceLibrary(encoder, self.models, voices, reference_audio)
        metrics = EdgeMetrics()
        self.admission = Admission(metrics)
        self._streams = SpeechStreams(decoder, self.admission, args.silence_timeout_s, metrics)
        self.designer = VoiceDesigner(self._streams, self.library, self.models, voices)
        self.consents = ConsentStore(voices.url, limit=voices.max_consents)
        self._choice = VoiceChoice(self.models, self.library)
        self._opener = SpeechOpener(self._streams, self.library, self.models, args.long_text)
        self._encoding = SpeechEncoding(args.max_audio_bytes_under_way)
        self._inbox = inbox

    def reconfigure(self, live: Mapping[str, Mapping[str, object]]) -> None:
        """Accept live settings of `ingress`, `voices` and `reference_audio`. They apply to later requests.

        A setting that is missing has the value that the constructor received. Raises ValueError before any change.
        """
        args, voices, reference_audio = self._given
        args = args.changed(live.get("ingress", {}))
        voices = voices.changed(live.get("voices", {}))
        reference_audio = reference_audio.changed(live.get("reference_audio", {}))
        self.args = args
        self.limits = TextLimits(self.args)
        self.consents.limit = voices.max_consents
        self.library.reconfigure(voices, reference_audio)
        self._opener.args = self.args.long_text
        self._encoding.budget.most_bytes = self.args.max_audio_bytes_under_way

    @property
    def answers_under_way(self) -> int:
        """The number of answers that are being encoded and sent."""
        return self._encoding.budget.shares

    async def resolve(
        self,
        caller: Caller,
        fields: SpeechFields,
        sent_as: Mapping[str, str] | None = None,
        max_wait_s: float | None = None,
    ) -> ResolvedSpeech:
        """Check everything of a request but its text. Raises InvalidRequest, Overloaded or Unavailable.

        The request may wait `max_wait_s` for its place, or the time of the settings. `sent_as` maps this
        service's names of fields to the caller's, where they differ.
        """
        names = sent_as or {}
        with renamed_fields(names):
            await self.models.load()
            for name in ("instructions", "ref_text"):
                self.limits.check_other(name, getattr(fields, name))
            card, voice = await self._choice.choose(caller, fields)
            options = fields.options(card, voice)
            output = AudioOutput(fields.response_format, card.sample_rate_hz, fields.sample_rate, fields.speed)
        terms = self.terms(caller, fields.priority, max_wait_s, fields.voice, fields.instructions, fields.ref_text)
        return ResolvedSpeech(card, options, output, fields.normalize_text, terms, names)

    def terms(self, caller: Caller, priority: Priority, max_wait_s: float | None, *voice: str | None) -> Terms:
        """Return how long a request of `caller` may wait, and the digest by which it is recognised."""
        usual_s = self.args.max_wait_s if priority == "interactive" else self.args.max_batch_wait_s
        key = blake2b(repr((caller.name, voice)).encode(), digest_size=16).digest()
        return Terms(priority, usual_s if max_wait_s is None else max_wait_s, key, caller.name)

    async def request(self, speech: ResolvedSpeech, text: str) -> SpeechRequest:
        """Return the request to speak a complete text. Raises InvalidRequest."""
        with renamed_fields(speech.sent_as):
            self.limits.check_whole(text)
            if speech.normalize_text:
                text = await asyncio.to_thread(numbers_in_words, text, speech.options.language)
            return speech.options.request(text)

    async def prepare(
        self,
        caller: Caller,
        fields: SpeechFields,
        text: str,
        sent_as: Mapping[str, str] | None = None,
        max_wait_s: float | None = None,
    ) -> tuple[ResolvedSpeech, SpeechRequest]:
        """Check a request and its text. Raises as `resolve` and `request` do."""
        with renamed_fields(sent_as or {}):
            self.limits.check_whole(text)  # before the work of resolving a reference
        speech = await self.resolve(caller, fields, sent_as, max_wait_s)
        return speech, await self.request(speech, text)

    @asynccontextmanager
    async def speak(
        self, speech: ResolvedSpeech, request: SpeechRequest, *, whole: bool, room: BatchRoom | None = None
    ) -> AsyncIterator[EncodedSpeech]:
        """Speak a complete text: as one file at the end if `whole`, else in pieces. Leaving the context stops it."""
        with renamed_fields(speech.sent_as):
            chunks = self._opener.open(request, speech.card, speech.terms)
            async with self._encoding.open(chunks, speech.output, whole=whole, room=room) as encoded:
                yield encoded

    def check_live(self, speech: ResolvedSpeech) -> None:
        """Raise InvalidRequest if the request asks for something that a live text does not support."""
        if speech.normalize_text:
            message = "normalize_text is not supported for a text that is spoken while it is written; omit it"
            raise InvalidRequest(message, "normalize_text", "field_not_accepted")

    def live_text(self) -> LiveText:
        """Return an empty text, which the caller writes."""
        return LiveText(self.limits)

    @asynccontextmanager
    async def speak_live(
        self, speech: ResolvedSpeech, text: LiveText, *, pause_s: float | None = None
    ) -> AsyncIterator[EncodedSpeech]:
        """Speak a text while it is written. A pause of `pause_s` ends it. Leaving the context stops the speech."""
        with renamed_fields(speech.sent_as):
            self.check_live(speech)
            chunks = speak_live_text(
                self._streams,
                self._inbox,
                speech.card,
                speech.options,
                text,
                speech.terms,
                timeout_s=self.args.live_text_timeout_s,
                pause_s=pause_s,
            )
            async with self._encoding.open(chunks, speech.output, whole=False) as encoded:
                yield encoded

    async def _describe(self) -> list[ModelCard]:
        """Return the cards of all models, once the encoder has loaded too."""
        cards: list[ModelCard] = await answer(self._decoder.describe.remote)
        if self._encoder is not None:
            await answer(self._encoder.describe.remote)
        return cards

"""Voices at the HTTP edge: stored voices, inline references, and the prompts from which a Base model speaks them."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.access.caller import Caller
from deployments.errors import Exists, NotFound
from deployments.settings import ReferenceAudioArgs, VoiceStoreArgs
from deployments.voices.once_each import OnceEach
from deployments.voices.record import Source, VoiceName, VoiceRecord
from deployments.voices.store import VoiceStore
from deployments.voices.threads import StorageThreads
from deployments.wire.calls import answer
from deployments.wire.models import Models
from deployments.wire.tracing import span
from qwen_tts.audio import audio_type, decode_base64
from qwen_tts.errors import InvalidRequest, Overloaded
from qwen_tts.fetch import FetchLimits, fetch
from qwen_tts.voice import EncodedReference, VoicePrompt

_REFERENCES_REMEMBERED = 256  # about 10 kB each


class VoiceLibrary:
    """The voice store and the codec encoder, as one ingress replica uses them. `storage` runs the store's calls.

    A voice that a caller does not see does not exist for that caller, except that its name is taken.
    """

    def __init__(
        self,
        encoder: DeploymentHandle[Any] | None,
        models: Models,
        voices: VoiceStoreArgs,
        reference_audio: ReferenceAudioArgs,
    ) -> None:
        self._encoder = encoder
        self._models = models
        self.storage = StorageThreads(voices.timeout_s)
        self._store = VoiceStore(voices.url, cache_bytes=voices.cache_bytes, max_voices=voices.max_voices)
        # Separate threads, so that a slow host delays no other work.
        self._fetchers = ThreadPoolExecutor(reference_audio.max_fetches, thread_name_prefix="fetch")
        self._max_fetches = reference_audio.max_fetches
        self._fetches = 0
        self.reconfigure(voices, reference_audio)
        self._encoded = OnceEach[tuple[str, str], EncodedReference](_REFERENCES_REMEMBERED)
        self._fingerprints: dict[str, str] = {}

    def reconfigure(self, voices: VoiceStoreArgs, reference_audio: ReferenceAudioArgs) -> None:
        """Accept changed live settings. They apply to later requests."""
        self.aliases = voices.aliases
        self._store.max_voices = voices.max_voices
        self._limits = FetchLimits(
            max_bytes=reference_audio.max_bytes,
            timeout_s=reference_audio.url_timeout_s,
            allow_http=reference_audio.allow_http_urls,
        )

    @property
    def max_audio_bytes(self) -> int:
        return self._limits.max_bytes

    def named(self, name: str) -> VoiceName:
        """Return the name of the voice that `name`, perhaps an alias, stands for."""
        return VoiceName(self.aliases.get(VoiceName(name).key, name))

    async def list(self, caller: Caller) -> "list[VoiceRecord]":
        return [record for record in await self.storage.run(self._store.list) if caller.sees(record.owner)]

    async def names(self, caller: Caller) -> tuple[str, ...]:
        """Return the names of the caller's voices, in lower case."""
        if caller.all_voices:  # without reading every record
            return await self.storage.run(self._store.names)
        return tuple(VoiceName(record.name).key for record in await self.list(caller))

    async def get(self, caller: Caller, name: str) -> VoiceRecord:
        """Return the record of a stored voice. Raises NotFound."""
        return _seen(caller, name, await self.storage.run(self._store.get, name))

    async def delete(self, caller: Caller, name: str) -> None:
        """Delete a stored voice. Raises NotFound."""
        await self.get(caller, name)
        await self.storage.run(self._store.delete, name)

    async def audio(self, caller: Caller, name: str) -> tuple[VoiceRecord, bytes]:
        """Return a voice's record, and its recording as it was uploaded. Raises NotFound."""

        def read(record: VoiceRecord) -> tuple[VoiceRecord, bytes]:
            return _seen(caller, name, record), self._store.audio(record)

        return await self.storage.run(self._store.read, name, read)

    async def add(
        self,
        caller: Caller,
        name: str,
        audio: bytes,
        *,
        consent: str,
        ref_text: str | None,
        description: str | None,
        source: Source,
        overwrite: bool,
    ) -> VoiceRecord:
        """Encode a recording for every Base model and store it as a voice. Only an upload is checked.

        Raises InvalidRequest, Exists or Full.
        """
        await self.check_free(caller, name, overwrite=overwrite)
        prompts: dict[str, bytes] = {}
        for card in self._models.of("base"):
            if await self._fingerprint(card.name) not in prompts:  # models may share their encoders
                encoded = await self._encode(card.name, audio, check=source == "upload")
                prompts[encoded.fingerprint] = _prompt(encoded, ref_text).to_bytes()
        return await self.storage.run(
            self._store.add,
            name,
            audio=audio,
            mime_type=audio_type(audio),
            consent=consent,
            ref_text=ref_text,
            description=description,
            source=source,
            prompts=prompts,
            overwrite=overwrite,
            caller=caller,
        )

    async def check_free(self, caller: Caller, name: str, *, overwrite: bool) -> None:
        """Check that a voice may be stored as `name`, before the work of making it. Raises InvalidRequest or Exists.

        The store itself decides between two callers at the same time.
        """
        wanted = VoiceName(name)
        wanted.check()
        if wanted.key in self.aliases:
            message = f"{name!r} is an alias of the voice {self.aliases[wanted.key]!r}; choose another name"
            raise InvalidRequest(message, "name", "invalid_name")
        for card in self._models:
            if wanted in map(VoiceName, card.speakers):
                message = f"{name!r} is the name of a built-in voice of model {card.name}; choose another name"
                raise InvalidRequest(message, "name", "invalid_name")
        self._models.first("base")
        if not await self._is_free(caller, name, overwrite):
            raise Exists(name)

    async def stored_prompt(self, caller: Caller, name: str, model: str) -> VoicePrompt:
        """Return the prompt of a stored voice for `model`. Raises NotFound.

        The prompt is made now if the voice was stored before `model` was served.
        """
        fingerprint = await self._fingerprint(model)
        store = self._store

        def read(record: VoiceRecord) -> tuple[VoiceRecord, bytes | None, bytes]:
            prompt = store.prompt(_seen(caller, name, record), fingerprint)
            return record, prompt, b"" if prompt is not None else store.audio(record)

        record, data, audio = await self.storage.run(store.read, name, read)
        if data is None:
            encoded = await self._encode(model, audio, check=False)
            data = _prompt(encoded, record.ref_text).to_bytes()
            with suppress(NotFound):  # deleted or replaced meanwhile; this request still uses the prompt
                await self.storage.run(store.add_prompt, record, fingerprint, data)
        return VoicePrompt.from_bytes(data)

    async def inline_prompt(self, ref_audio: str, ref_text: str | None, model: str) -> VoicePrompt:
        """Return the prompt of a recording in the request. Equal recordings are encoded once.

        Raises InvalidRequest or Overloaded.
        """
        audio = await self._reference_bytes(ref_audio)
        key = (model, await asyncio.to_thread(_digest, audio))
        with span("encode"):  # the work itself belongs to no request, because several may wait for it
            encoded = await self._encoded.get(key, lambda: self._encode(model, audio, check=True))
        return _prompt(encoded, ref_text)

    async def prompt_of(self, audio: bytes, ref_text: str, model: str) -> VoicePrompt:
        """Return the prompt of speech that this service made. Raises InvalidRequest if it is unfit to clone from."""
        return _prompt(await self._encode(model, audio, check=True), ref_text)

    async def _reference_bytes(self, ref_audio: str) -> bytes:
        """Return the recording of an https URL, a data URL or base64. Raises InvalidRequest or Overloaded."""
        if ref_audio.startswith("data:") or "://" not in ref_audio[:32]:
            audio = await asyncio.to_thread(decode_base64, ref_audio)
        else:
            audio = await self._fetch(ref_audio)
        if len(audio) > self._limits.max_bytes:
            message = f"ref_audio has {len(audio)} bytes; the limit is {self._limits.max_bytes}"
            raise InvalidRequest(message, "ref_audio", "audio_too_large")
        return audio

    async def _fetch(self, url: str) -> bytes:
        """Download a recording. Raises InvalidRequest or Overloaded."""
        if self._fetches >= self._max_fetches:
            raise Overloaded(f"{self._fetches} reference URLs are being fetched already", self._limits.timeout_s)
        self._fetches += 1
        fetching = asyncio.get_running_loop().run_in_executor(self._fetchers, fetch, url, self._limits)
        fetching.add_done_callback(self._fetched)
        return await asyncio.shield(fetching)  # the thread runs on if the caller leaves

    def _fetched(self, fetching: "asyncio.Future[bytes]") -> None:
        self._fetches -= 1
        assert self._fetches >= 0, "a download ended twice"
        if not fetching.cancelled():
            fetching.exception()  # retrieved, in case no caller waits any more

    async def _encode(self, model: str, audio: bytes, *, check: bool) -> EncodedReference:
        assert self._encoder is not None, "an application with a Base model has an encoder"
        with span("encode"):
            return await answer(partial(self._encoder.encode.remote, model, audio, check=check))

    async def _fingerprint(self, model: str) -> str:
        if not self._fingerprints:
            assert self._encoder is not None, "an application with a Base model has an encoder"
            self._fingerprints = await answer(self._encoder.describe.remote)
        return self._fingerprints[model]

    async def _is_free(self, caller: Caller, name: str, overwrite: bool) -> bool:
        try:
            existing = await self.storage.run(self._store.get, name)
        except NotFound:
            return True
        return overwrite and caller.sees(existing.owner)


def _seen(caller: Caller, name: str, record: VoiceRecord) -> VoiceRecord:
    """Return `record` if the caller sees it. Raises NotFound, as for a voice that does not exist."""
    if not caller.sees(record.owner):
        raise NotFound("voice", name)
    return record


def _digest(audio: bytes) -> str:
    return hashlib.sha256(audio).hexdigest()


def _prompt(encoded: EncodedReference, ref_text: str | None) -> VoicePrompt:
    return encoded.x_vector_prompt() if ref_text is None else encoded.icl_prompt(ref_text)

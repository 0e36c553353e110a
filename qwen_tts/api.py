"""The public library: the reference's names and signatures, and a streaming form of each `generate_*`.

This is the only home of scalar-or-list input. Everything behind it takes one SpeechRequest at a time.
"""

import dataclasses
import threading
from collections.abc import Iterator
from typing import TypedDict, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from qwen_tts.checkpoint import DTYPES
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder, load_codec_decoder
from qwen_tts.config import LANGUAGE_AUTO, GenerationDefaults
from qwen_tts.engine.engine import Engine, load_engine
from qwen_tts.engine.sequence import CHUNK_SCHEDULE, Frame, Sequence, chunk_sizes
from qwen_tts.errors import EngineStopped, InvalidRequest, UnsupportedError
from qwen_tts.request import (
    CustomVoice,
    DesignedVoice,
    SamplingParams,
    SpeechRequest,
    Voice,
    default_sampling,
    draw_seed,
)

Samples = NDArray[np.float32]
T = TypeVar("T")

_LEAST_POSITIONS = 64
_DECODE_FRAMES = 64  # frames decoded at once when nobody is listening yet; bounds memory, changes no sample


class GenerationOptions(TypedDict, total=False):
    """Keyword arguments of every `generate_*` and `stream_*`. What is not given comes from generation_config.json.

    `subtalker_*` steer the code predictor. `max_new_tokens` counts frames of 80 ms (the reference stops one frame
    before it). `seed` makes the result repeatable: one seed for all texts, or one per text.
    """

    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    subtalker_dosample: bool
    subtalker_temperature: float
    subtalker_top_k: int
    subtalker_top_p: float
    max_new_tokens: int
    seed: int | list[int]


class Qwen3TTSModel:
    """A checkpoint ready to speak. One instance may be used from several threads; their requests share batches."""

    def __init__(
        self, engine: Engine, decoder: CodecDecoder, defaults: GenerationDefaults, sample_rate_hz: int
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._defaults = defaults
        self._device = decoder.pre_conv.conv.weight.device
        self._step_lock = threading.Lock()
        self.sample_rate_hz = sample_rate_hz

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *,
        device_map: str | int | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        slots: int = 8,
        positions: int = 4096,
    ) -> "Qwen3TTSModel":
        """Load a checkpoint directory or Hugging Face hub id.

        device_map: "cpu", "cuda", "cuda:1" or 1, ..., or "auto" (a GPU where there is one); default "cpu".
        dtype: of the talker: float32 (default, as the reference), bfloat16 or float16, as torch.dtype or by name. The
        codec computes in float32.
        attn_implementation: "sdpa" (default), or "flash_attention_2" with the flash-attn package on a GPU.
        slots: texts generated at once; more wait. positions: prompt rows plus frames (80 ms each) of one text.
        Their KV cache is allocated on a GPU at once: at the released shapes 56 KiB * slots * positions * 2 in 16 bits.
        Raises CheckpointError or UnsupportedError.
        """
        device, torch_dtype = _device(device_map), _dtype(dtype)
        if slots < 1 or positions < _LEAST_POSITIONS:
            raise UnsupportedError(
                f"slots is {slots} and positions {positions}; they must be at least 1 and {_LEAST_POSITIONS}"
            )
        loaded = load_engine(
            str(pretrained_model_name_or_path),
            device=device,
            dtype=torch_dtype,
            attn_implementation=attn_implementation or "sdpa",
            slots=slots,
            positions=positions,
            max_waiting=1_000_000,  # the caller's own list is the bound here
        )
        decoder = load_codec_decoder(loaded.codec_directory, device, torch.float32)
        return cls(loaded.engine, decoder, loaded.defaults, loaded.codec_config.output_sample_rate)

    def get_supported_speakers(self) -> list[str]:
        """Built-in speaker names, sorted; empty for models that have none."""
        return list(self._engine.config.speakers)

    def get_supported_languages(self) -> list[str]:
        """Language names a request may give, "auto" included, sorted."""
        return sorted(self._engine.config.languages)

    def generate_custom_voice(
        self,
        text: str | list[str],
        speaker: str | list[str],
        language: str | list[str] | None = None,
        instruct: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        **kwargs: Unpack[GenerationOptions],
    ) -> tuple[list[Samples], int]:
        """Speak each text with a built-in speaker: (one float32 array [S] per text, sample rate in Hz).

        Every other argument is one value for all texts or a list of the same length. Raises InvalidRequest.
        """
        texts = _as_list(text)
        speakers = _broadcast("speaker", speaker, len(texts))
        instructions = _broadcast("instruct", "" if instruct is None else instruct, len(texts))
        instructions = ["" if words is None else words for words in instructions]  # the reference lets some be None
        voices = [CustomVoice(one, words) for one, words in zip(speakers, instructions, strict=True)]
        return self._generate(self._requests(texts, voices, language, non_streaming_mode, kwargs))

    def generate_voice_design(
        self,
        text: str | list[str],
        instruct: str | list[str],
        language: str | list[str] | None = None,
        non_streaming_mode: bool = True,
        **kwargs: Unpack[GenerationOptions],
    ) -> tuple[list[Samples], int]:
        """Speak each text with a voice made from its description `instruct`; otherwise as generate_custom_voice."""
        texts = _as_list(text)
        voices = [DesignedVoice(description=words) for words in _broadcast("instruct", instruct, len(texts))]
        return self._generate(self._requests(texts, voices, language, non_streaming_mode, kwargs))

    def stream_custom_voice(
        self,
        text: str,
        speaker: str,
        language: str | None = None,
        instruct: str | None = None,
        non_streaming_mode: bool = True,
        **kwargs: Unpack[GenerationOptions],
    ) -> Iterator[tuple[Samples, int]]:
        """generate_custom_voice of one text, as (samples [S], sample rate) pieces while it is being generated.

        The pieces joined are the whole. Closing the iterator stops the generation. Raises InvalidRequest at once.
        """
        voice = CustomVoice(speaker=speaker, instructions="" if instruct is None else instruct)
        (request,) = self._requests([text], [voice], language, non_streaming_mode, kwargs)
        return self._stream(self._engine.prepare(request))

    def stream_voice_design(
        self,
        text: str,
        instruct: str,
        language: str | None = None,
        non_streaming_mode: bool = True,
        **kwargs: Unpack[GenerationOptions],
    ) -> Iterator[tuple[Samples, int]]:
        """generate_voice_design of one text, streamed as stream_custom_voice does."""
        (request,) = self._requests([text], [DesignedVoice(instruct)], language, non_streaming_mode, kwargs)
        return self._stream(self._engine.prepare(request))

    def _requests(
        self,
        texts: list[str],
        voices: list[CustomVoice] | list[DesignedVoice],
        language: str | list[str] | None,
        non_streaming_mode: bool,
        options: GenerationOptions,
    ) -> list[SpeechRequest]:
        count = len(texts)
        languages = _broadcast("language", LANGUAGE_AUTO if language is None else language, count)
        seed = options.get("seed")
        seeds = [draw_seed() for _ in texts] if seed is None else _broadcast("seed", seed, count)
        talker, predictor, repetition_penalty = self._sampling(options)
        all_voices: list[Voice] = list(voices)
        return [
            SpeechRequest(
                text=text,
                voice=voice,
                language=one_language,
                text_layout="whole" if non_streaming_mode else "streaming",
                sampling=talker,
                predictor_sampling=predictor,
                repetition_penalty=repetition_penalty,
                seed=_plain(one_seed),
                max_frames=_plain(options.get("max_new_tokens")),
            )
            for text, voice, one_language, one_seed in zip(texts, all_voices, languages, seeds, strict=True)
        ]

    def _sampling(self, options: GenerationOptions) -> tuple[SamplingParams, SamplingParams, float]:
        unknown = sorted(options.keys() - GenerationOptions.__annotations__.keys())
        if unknown:
            valid = ", ".join(GenerationOptions.__annotations__)
            raise InvalidRequest(f"unknown argument {', '.join(unknown)}; valid: {valid}", unknown[0], "unknown_field")
        for name in ("do_sample", "subtalker_dosample"):
            if not isinstance(options.get(name), bool | None):
                raise InvalidRequest(f"{name} must be True or False, not {options.get(name)!r}", name, "invalid_value")
        given = {name: _plain(value) for name, value in options.items() if value is not None}
        merged = dataclasses.asdict(self._defaults) | given
        names = {field.name for field in dataclasses.fields(GenerationDefaults)}
        defaults = GenerationDefaults(**{name: value for name, value in merged.items() if name in names})
        return (*default_sampling(defaults), defaults.repetition_penalty)

    def _generate(self, requests: list[SpeechRequest]) -> tuple[list[Samples], int]:
        sequences: list[Sequence] = []
        try:
            for request in requests:
                sequences.append(self._engine.add(request))
            for sequence in sequences:
                self._run_until(sequence, None)
        finally:
            for sequence in sequences:
                self._engine.cancel(sequence)
        return [self._decode_whole(sequence.frames) for sequence in sequences], self.sample_rate_hz

    def _stream(self, sequence: Sequence) -> Iterator[tuple[Samples, int]]:
        self._engine.submit(sequence)  # here, since a generator closed before it starts runs no `finally`
        try:
            sent, carry = 0, Carry()
            for size in chunk_sizes(CHUNK_SCHEDULE):
                self._run_until(sequence, sent + size)
                frames = sequence.frames[sent : sent + size]
                if frames:
                    yield self._decode(frames, carry), self.sample_rate_hz
                    sent, carry = sent + len(frames), Carry(carry.kept)
                if len(frames) < size:
                    return
        finally:
            self._engine.cancel(sequence)

    def _run_until(self, sequence: Sequence, frames: int | None) -> None:
        """Step the engine, for everyone in it, until `sequence` has that many frames or is finished."""
        while not sequence.finished and (frames is None or len(sequence.frames) < frames):
            with self._step_lock:
                if not sequence.finished:  # another thread's steps may have finished it meanwhile
                    self._engine.step()
        if sequence.finish_reason == "cancelled":
            raise EngineStopped("a step of the engine was interrupted; the utterance is not complete")

    def _decode_whole(self, frames: list[Frame]) -> Samples:
        pieces, carry = [np.zeros(0, dtype=np.float32)], Carry()
        for start in range(0, len(frames), _DECODE_FRAMES):
            pieces.append(self._decode(frames[start : start + _DECODE_FRAMES], carry))
            carry = Carry(carry.kept)
        return np.concatenate(pieces)

    @torch.inference_mode()
    def _decode(self, frames: list[Frame], carry: Carry) -> Samples:
        codes = torch.tensor(frames, device=self._device)[None]  # [1, F, G]
        samples: Samples = self._decoder(codes, carry)[0].float().cpu().numpy()
        return samples


def _device(device_map: str | int | torch.device | None) -> torch.device:
    if device_map == "auto":
        device_map = "cuda" if torch.cuda.is_available() else "cpu"
    elif isinstance(device_map, int):
        device_map = f"cuda:{device_map}"
    device: torch.device | None
    try:
        device = torch.device("cpu" if device_map is None else device_map)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UnsupportedError(f"device_map {device_map!r} is not offered; choose 'cpu', 'cuda', 'cuda:N' or 'auto'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError(f"device_map {device_map!r}: this machine has no CUDA device")
    return device


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if found not in DTYPES.values():
        raise UnsupportedError(f"dtype {dtype!r} is not offered; choose {', '.join(DTYPES)}")
    assert found is not None
    return found


def _as_list(text: str | list[str]) -> list[str]:
    if not isinstance(text, str | list | tuple):
        raise InvalidRequest(f"text must be a string or a list of strings, not {text!r}", "text", "invalid_value")
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise InvalidRequest("text is an empty list", "text")
    return texts


def _plain(value: T) -> T:
    """A NumPy number as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _broadcast(name: str, value: T | list[T], count: int) -> list[T]:
    """`value` for each of `count` texts. Raises InvalidRequest when a list has another length."""
    values = list(value) if isinstance(value, list | tuple | np.ndarray) else [value]
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise InvalidRequest(f"{name} has {len(values)} entries for {count} texts", name)
    return values

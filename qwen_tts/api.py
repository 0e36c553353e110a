"""The public library: the reference's names and signatures, and a streaming form of each `generate_*`.

Only this module accepts a scalar or a list. All other modules handle one SpeechRequest at a time.
"""

import dataclasses
import threading
from collections.abc import Iterable, Iterator
from typing import TypedDict, Unpack

import torch

from qwen_tts.arguments import as_list, broadcast, plain, spread, to_device, to_dtype
from qwen_tts.audio import AudioSource, Samples, load_audio
from qwen_tts.codec.carry import Carry
from qwen_tts.codec.decoder import CodecDecoder, load_codec_decoder
from qwen_tts.config import LANGUAGE_AUTO, GenerationDefaults
from qwen_tts.engine.engine import Engine, load_engine
from qwen_tts.engine.sequence import CHUNK_SCHEDULE, Frame, Sequence, chunk_sizes
from qwen_tts.errors import EngineStopped, InvalidRequest, UnsupportedError
from qwen_tts.reference_audio import LONGEST_S, check_reference
from qwen_tts.request import (
    ClonedVoice,
    CustomVoice,
    DesignedVoice,
    SamplingParams,
    SpeechRequest,
    Voice,
    default_sampling,
    draw_seed,
)
from qwen_tts.voice import VoicePrompt
from qwen_tts.voice_clone import VoiceClonePrompt, VoiceClonePromptItem, to_item, to_prompts
from qwen_tts.voice_encoder import VoiceEncoder, load_voice_encoder

_LEAST_POSITIONS = 64


class GenerationOptions(TypedDict, total=False):
    """Keyword arguments of every `generate_*` and `stream_*`. Defaults come from generation_config.json.

    `subtalker_*` control the code predictor. `max_new_tokens` counts frames of 80 ms (the reference stops one frame
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
    """A loaded checkpoint. Several threads may use one instance; their requests share batches."""

    def __init__(
        self,
        engine: Engine,
        decoder: CodecDecoder,
        voice_encoder: VoiceEncoder | None,
        defaults: GenerationDefaults,
        sample_rate_hz: int,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._voice_encoder = voice_encoder  # of models of type "base"
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
        dtype: the talker's type: float32 (default, as in the reference), bfloat16 or float16, as torch.dtype or by
        name. The codec computes in float32.
        attn_implementation: "sdpa" (default), or "flash_attention_2" with the flash-attn package on a GPU.
        slots: texts generated at once; further texts wait. positions: prompt rows plus frames (80 ms each) of one text.
        On a GPU the whole KV cache is allocated at once: 56 KiB * slots * positions * 2 in 16 bits at the released
        shapes.
        Raises CheckpointError or UnsupportedError.
        """
        torch_device, torch_dtype = to_device(device_map), to_dtype(dtype)
        if slots < 1 or positions < _LEAST_POSITIONS:
            raise UnsupportedError(
                f"slots is {slots} and positions {positions}; they must be at least 1 and {_LEAST_POSITIONS}"
            )
        loaded = load_engine(
            str(pretrained_model_name_or_path),
            device=torch_device,
            dtype=torch_dtype,
            attn_implementation=attn_implementation or "sdpa",
            slots=slots,
            positions=positions,
            max_waiting=1_000_000,  # the caller's own list is the bound here
        )
        decoder = load_codec_decoder(loaded.codec_directory, torch_device, torch.float32)
        clones = loaded.engine.config.tts_model_type == "base"
        voice_encoder = load_voice_encoder(loaded.codec_directory.parent, torch_device) if clones else None
        return cls(loaded.engine, decoder, voice_encoder, loaded.defaults, loaded.codec_config.output_sample_rate)

    def get_supported_speakers(self) -> list[str]:
        """Return the built-in speaker names, sorted; empty for models without built-in speakers."""
        return list(self._engine.config.speakers)

    def get_supported_languages(self) -> list[str]:
        """Return the accepted language names, "auto" included, sorted."""
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
        """Speak each text with a built-in speaker; return one float32 array [S] per text, and the sample rate in Hz.

        Every other argument is one value for all texts or a list of the same length. Raises InvalidRequest.
        """
        texts = as_list(text)
        speakers = broadcast("speaker", speaker, len(texts))
        instructions = broadcast("instruct", "" if instruct is None else instruct, len(texts))
        instructions = ["" if words is None else words for words in instructions]  # the reference allows None
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
        texts = as_list(text)
        voices = [DesignedVoice(description=words) for words in broadcast("instruct", instruct, len(texts))]
        return self._generate(self._requests(texts, voices, language, non_streaming_mode, kwargs))

    def create_voice_clone_prompt(
        self,
        ref_audio: AudioSource | list[AudioSource],
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
    ) -> list[VoiceClonePromptItem]:
        """Return a reusable prompt for generate_voice_clone from each reference recording.

        ref_audio: path, URL, base64, data URL or (samples, sample rate in Hz); 1 to 60 s of speech. ref_text: the words
        spoken in the recording. x_vector_only_mode: clone from the speaker embedding alone, without the words. The last
        two are one value for all recordings or a list of the same length. Raises InvalidRequest, also when a recording
        is unfit, with the reason.
        """
        if self._voice_encoder is None:
            raise InvalidRequest(
                f"this model is of type {self._engine.config.tts_model_type!r} and cannot clone a voice; "
                "a model of type 'base' can",
                "ref_audio",
                "voice_not_supported",
            )
        sources = ref_audio if isinstance(ref_audio, list) else [ref_audio]
        if not sources:
            raise InvalidRequest("ref_audio is an empty list", "ref_audio")
        texts = broadcast("ref_text", ref_text, len(sources))
        x_vectors = broadcast("x_vector_only_mode", x_vector_only_mode, len(sources))
        clips = [load_audio(source, LONGEST_S) for source in sources]
        for clip in clips:
            check_reference(clip)
        return [
            to_item(encoded.x_vector_prompt() if x_vector else encoded.icl_prompt(text or ""), text)
            for encoded, text, x_vector in zip(self._voice_encoder.encode(clips), texts, x_vectors, strict=True)
        ]

    def generate_voice_clone(
        self,
        text: str | list[str],
        language: str | list[str] | None = None,
        ref_audio: AudioSource | list[AudioSource] | None = None,
        ref_text: str | list[str | None] | None = None,
        x_vector_only_mode: bool | list[bool] = False,
        voice_clone_prompt: VoiceClonePrompt | None = None,
        non_streaming_mode: bool = False,
        **kwargs: Unpack[GenerationOptions],
    ) -> tuple[list[Samples], int]:
        """Speak each text with the voice of a recording, or of a prompt that was made from a recording earlier.

        The arguments for a recording are those of create_voice_clone_prompt; `voice_clone_prompt` is its result, or
        VoicePrompts. One recording or prompt serves all texts. Otherwise as generate_custom_voice.
        """
        texts = as_list(text)
        prompts = self._voice_prompts(ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        voices = [ClonedVoice(prompt) for prompt in spread("voice_clone_prompt", prompts, len(texts))]
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
        """Yield the result of generate_custom_voice for one text in pieces (samples [S], sample rate in Hz).

        The joined pieces equal the whole. Closing the iterator stops the generation. InvalidRequest is raised at once,
        before the first piece.
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
        """Yield the result of generate_voice_design for one text, as stream_custom_voice does."""
        (request,) = self._requests([text], [DesignedVoice(instruct)], language, non_streaming_mode, kwargs)
        return self._stream(self._engine.prepare(request))

    def stream_voice_clone(
        self,
        text: str,
        language: str | None = None,
        ref_audio: AudioSource | None = None,
        ref_text: str | None = None,
        x_vector_only_mode: bool = False,
        voice_clone_prompt: VoiceClonePrompt | None = None,
        non_streaming_mode: bool = False,
        **kwargs: Unpack[GenerationOptions],
    ) -> Iterator[tuple[Samples, int]]:
        """Yield the result of generate_voice_clone for one text, as stream_custom_voice does."""
        prompts = self._voice_prompts(ref_audio, ref_text, x_vector_only_mode, voice_clone_prompt)
        (prompt,) = spread("voice_clone_prompt", prompts, 1)
        (request,) = self._requests([text], [ClonedVoice(prompt)], language, non_streaming_mode, kwargs)
        return self._stream(self._engine.prepare(request))

    def _voice_prompts(
        self,
        ref_audio: AudioSource | list[AudioSource] | None,
        ref_text: str | list[str | None] | None,
        x_vector_only_mode: bool | list[bool],
        voice_clone_prompt: VoiceClonePrompt | None,
    ) -> list[VoicePrompt]:
        if voice_clone_prompt is None:
            if ref_audio is None:
                raise InvalidRequest("give ref_audio or voice_clone_prompt", "ref_audio", "missing_field")
            voice_clone_prompt = self.create_voice_clone_prompt(ref_audio, ref_text, x_vector_only_mode)
        return to_prompts(voice_clone_prompt)

    def _requests(
        self,
        texts: list[str],
        voices: Iterable[Voice],
        language: str | list[str] | None,
        non_streaming_mode: bool,
        options: GenerationOptions,
    ) -> list[SpeechRequest]:
        count = len(texts)
        languages = broadcast("language", LANGUAGE_AUTO if language is None else language, count)
        seed = options.get("seed")
        seeds = [draw_seed() for _ in texts] if seed is None else broadcast("seed", seed, count)
        talker, predictor, repetition_penalty = self._sampling(options)
        return [
            SpeechRequest(
                text=text,
                voice=voice,
                language=one_language,
                text_layout="whole" if non_streaming_mode else "streaming",
                sampling=talker,
                predictor_sampling=predictor,
                repetition_penalty=repetition_penalty,
                seed=plain(one_seed),
                max_frames=plain(options.get("max_new_tokens")),
            )
            for text, voice, one_language, one_seed in zip(texts, voices, languages, seeds, strict=True)
        ]

    def _sampling(self, options: GenerationOptions) -> tuple[SamplingParams, SamplingParams, float]:
        unknown = sorted(options.keys() - GenerationOptions.__annotations__.keys())
        if unknown:
            valid = ", ".join(GenerationOptions.__annotations__)
            raise InvalidRequest(f"unknown argument {', '.join(unknown)}; valid: {valid}", unknown[0], "unknown_field")
        for name in ("do_sample", "subtalker_dosample"):
            if not isinstance(options.get(name), bool | None):
                raise InvalidRequest(f"{name} must be True or False, not {options.get(name)!r}", name, "invalid_value")
        given = {name: plain(value) for name, value in options.items() if value is not None}
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
        return [self._decode_whole(sequence) for sequence in sequences], self.sample_rate_hz

    def _stream(self, sequence: Sequence) -> Iterator[tuple[Samples, int]]:
        self._engine.submit(sequence)  # here, because a generator that is closed before it starts runs no `finally`
        try:
            sent, carry = 0, self._start(sequence)
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
        """Step the engine, for all its sequences, until `sequence` has `frames` frames or is finished."""
        while not sequence.finished and (frames is None or len(sequence.frames) < frames):
            with self._step_lock:
                if not sequence.finished:  # the steps of another thread may have finished it
                    self._engine.step()
        if sequence.failure is not None:
            raise sequence.failure
        if sequence.finish_reason == "cancelled":
            raise EngineStopped("a step of the engine was interrupted; the utterance is not complete")

    @torch.inference_mode()
    def _start(self, sequence: Sequence) -> Carry:
        """Return the decoder's initial state: silence, or the end of the reference that the sequence continues."""
        carry, prompt = Carry(), sequence.layout.voice_prompt
        if prompt is None or prompt.ref_codes is None:
            return carry
        self._decoder.prime(torch.tensor(prompt.ref_codes, dtype=torch.int64, device=self._device)[None], carry)
        return Carry(carry.kept)

    @torch.inference_mode()
    def _decode_whole(self, sequence: Sequence) -> Samples:
        assert sequence.finished, "frames are still being generated"
        codes = torch.tensor(sequence.frames, device=self._device)  # [F, G]
        samples: Samples = self._decoder.decode_long(codes, self._start(sequence)).cpu().numpy()
        return samples

    @torch.inference_mode()
    def _decode(self, frames: list[Frame], carry: Carry) -> Samples:
        codes = torch.tensor(frames, device=self._device)[None]  # [1, F, G]
        samples: Samples = self._decoder(codes, carry)[0].float().cpu().numpy()
        return samples

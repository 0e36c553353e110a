"""The fields of a request for speech. Names and types are checked here, ranges where the fields are used."""

import dataclasses
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from deployments.audio.encoder import DEFAULT_FORMAT, AudioFormat
from deployments.speech.terms import Priority
from deployments.wire.messages import ModelCard
from qwen_tts.config import LANGUAGE_AUTO, GenerationDefaults
from qwen_tts.request import SpeechOptions, Voice, default_sampling, draw_seed

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Name = Annotated[StrictStr, Field(max_length=256)]
# An embedding is as wide as the talker. The widest has 2048.
SpeakerEmbedding = Annotated[list[Number], Field(min_length=1, max_length=16384, fail_fast=True)]


class SamplingFields(BaseModel):
    """Sampling parameters. The default of each is in the checkpoint's generation_config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: StrictInt | None = None
    do_sample: StrictBool | None = None
    temperature: Number | None = None
    top_k: StrictInt | None = None
    top_p: Number | None = None
    repetition_penalty: Number | None = None
    subtalker_dosample: StrictBool | None = None
    subtalker_temperature: Number | None = None
    subtalker_top_k: StrictInt | None = None
    subtalker_top_p: Number | None = None
    max_new_tokens: StrictInt | None = Field(None, description="the most frames of 80 ms")


class SpeechFields(SamplingFields):
    """Every field of a request for speech except its text, under this service's names.

    Each protocol translates its own fields into these.
    """

    model: Name | None = None
    voice: Name | None = Field(None, description="a built-in or stored voice")
    language: Name = LANGUAGE_AUTO
    normalize_text: StrictBool = Field(False, description="numbers to words of the language")
    instructions: StrictStr | None = Field(None, description="style of a built-in voice, or a voice's description")
    response_format: AudioFormat = DEFAULT_FORMAT
    sample_rate: StrictInt | None = Field(None, description="Hz; the model's own, or telephony's 8000, unless given")
    speed: Number = Field(1.0, description="0.25 to 4, the pitch kept")
    non_streaming_mode: StrictBool | None = Field(None, description="the prompt holds all of the text")
    initial_codec_chunk_frames: StrictInt | None = Field(None, description="frames of the first piece; 0: the server's")
    ref_audio: StrictStr | None = Field(None, description="a recording to clone: base64, a data: URL or an https: URL")
    ref_text: StrictStr | None = Field(None, description="the words spoken in ref_audio")
    x_vector_only_mode: StrictBool = Field(False, description="clone the sound of the voice alone")
    speaker_embedding: SpeakerEmbedding | None = None
    priority: Priority = Field("interactive", description="batch: may wait longer, behind all interactive requests")

    def options(self, card: ModelCard, voice: Voice) -> SpeechOptions:
        """Return these fields as a request to the model of `card`. Raises InvalidRequest naming the field at fault."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(GenerationDefaults)}
        given = {name: value for name, value in own.items() if value is not None}
        merged = dataclasses.replace(card.defaults, **given)
        talker, predictor = default_sampling(merged)
        # The defaults of the released models: clones read their text token by token, the others read all of it first.
        whole = card.model_type != "base" if self.non_streaming_mode is None else self.non_streaming_mode
        return SpeechOptions(
            voice=voice,
            language=self.language,
            text_layout="whole" if whole else "streaming",
            sampling=talker,
            predictor_sampling=predictor,
            repetition_penalty=merged.repetition_penalty,
            seed=draw_seed() if self.seed is None else self.seed,
            max_frames=self.max_new_tokens,
            first_chunk_frames=self.initial_codec_chunk_frames or None,
        )

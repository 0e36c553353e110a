"""Request -> PromptLayout: which text id and which codec id stand in every row. Integers only, no weights.

Every prompt row is the sum of a text part and, from the tag rows on, a codec part:

    rows          text part                       codec part
    instruction   <|im_start|>user\\n…<|im_end|>\\n   none            (only when there is an instruction)
    role          <|im_start|>assistant\\n          none
    tags          tts_pad … tts_pad, tts_bos      language tags, speaker, codec_pad
    "whole":      body, tts_eos                   codec_pad …
                  tts_pad                         codec_bos
    "streaming":  body[0]                         codec_bos       and body[1:], tts_eos trail behind, one per frame

Source: the reference's prompt assembly for custom voice and voice design, both text layouts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_tts.config import LANGUAGE_AUTO, ModelConfig, TalkerConfig
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import CustomVoice, DesignedVoice, SpeechRequest, Voice
from qwen_tts.text import SpokenText, TextTokenizer

NO_CODEC = -1  # this row has no codec part


@dataclass(frozen=True)
class PromptLayout:
    """`text_ids` [T], `codec_ids` [T] (NO_CODEC where a row has none), `trailing_text_ids` [N]; all int64.

    Row n of the trailing text is added to the input of decode step n; after the last, tts_pad is added for ever.
    """

    text_ids: NDArray[np.int64]
    codec_ids: NDArray[np.int64]
    trailing_text_ids: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.text_ids.shape == self.codec_ids.shape, (self.text_ids.shape, self.codec_ids.shape)

    def __len__(self) -> int:
        return len(self.text_ids)


def build_prompt(config: ModelConfig, tokenizer: TextTokenizer, request: SpeechRequest) -> PromptLayout:
    """Lay out `request` for this model. Raises InvalidRequest when the model cannot speak it, naming what it can."""
    talker = config.talker_config
    instructions, speaker = _resolve_voice(config, request.voice)
    spoken = tokenizer.spoken(request.text)

    text_ids = tokenizer.instruction(instructions) if instructions else []
    text_ids += spoken.role
    codec_ids = [NO_CODEC] * len(text_ids)

    tags = _language_tags(talker, _language_id(config, request.language, speaker))
    if speaker is not None:
        tags.append(talker.spk_id[speaker])
    text_ids += [config.tts_pad_token_id] * len(tags) + [config.tts_bos_token_id]
    codec_ids += [*tags, talker.codec_pad_id]

    match request.text_layout:
        case "whole":
            rows, trailing = _whole_text(config, spoken)
        case "streaming":
            rows, trailing = _streaming_text(config, spoken)
    return PromptLayout(
        text_ids=np.array(text_ids + [text for text, _ in rows], dtype=np.int64),
        codec_ids=np.array(codec_ids + [codec for _, codec in rows], dtype=np.int64),
        trailing_text_ids=np.array(trailing, dtype=np.int64),
    )


def _whole_text(config: ModelConfig, spoken: SpokenText) -> tuple[list[tuple[int, int]], list[int]]:
    talker = config.talker_config
    rows = [(text, talker.codec_pad_id) for text in (*spoken.body, config.tts_eos_token_id)]
    return [*rows, (config.tts_pad_token_id, talker.codec_bos_id)], []


def _streaming_text(config: ModelConfig, spoken: SpokenText) -> tuple[list[tuple[int, int]], list[int]]:
    rows = [(spoken.body[0], config.talker_config.codec_bos_id)]
    return rows, [*spoken.body[1:], config.tts_eos_token_id]


def _resolve_voice(config: ModelConfig, voice: Voice) -> tuple[str, str | None]:
    """Instruction text and built-in speaker name of `voice`, the name as the config spells it."""
    match voice:
        case CustomVoice(speaker=name, instructions=instructions):
            if config.tts_model_type != "custom_voice":
                raise InvalidRequest(
                    f"voice {name!r} cannot be used: this model is of type {config.tts_model_type!r} "
                    "and has no built-in voices",
                    "voice",
                    "voice_not_supported",
                )
            by_lower_case = {known.lower(): known for known in config.speakers}
            if name.lower() not in by_lower_case:
                raise InvalidRequest(
                    f"voice {name!r} is unknown; this model's voices: {', '.join(config.speakers)}",
                    "voice",
                    "unknown_voice",
                )
            return (instructions if config.follows_instructions else ""), by_lower_case[name.lower()]
        case DesignedVoice(description=description):
            if config.tts_model_type != "voice_design":
                raise InvalidRequest(
                    f"this model is of type {config.tts_model_type!r} and cannot design a voice; "
                    + (f"give one of its voices: {', '.join(config.speakers)}" if config.speakers else "clone one"),
                    "voice",
                    "voice_required",
                )
            return description, None


def _language_id(config: ModelConfig, language: str, speaker: str | None) -> int | None:
    """Codec id of the language tag; None for "auto". A dialect speaker speaks their dialect of Chinese."""
    name = language.lower()
    if name not in config.languages:
        raise InvalidRequest(
            f"language {language!r} is unknown; this model's languages: {', '.join(config.languages)}",
            "language",
            "unknown_language",
        )
    talker = config.talker_config
    dialect = talker.spk_is_dialect.get(speaker, False) if speaker is not None else False
    if isinstance(dialect, str) and name in ("chinese", LANGUAGE_AUTO):
        return talker.codec_language_id[dialect]
    return None if name == LANGUAGE_AUTO else talker.codec_language_id[name]


def _language_tags(talker: TalkerConfig, language_id: int | None) -> list[int]:
    if language_id is None:
        return [talker.codec_nothink_id, talker.codec_think_bos_id, talker.codec_think_eos_id]
    return [talker.codec_think_id, talker.codec_think_bos_id, language_id, talker.codec_think_eos_id]

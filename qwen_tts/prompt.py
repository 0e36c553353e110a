"""Request -> PromptLayout: the text id and the codec id of every row. Integers only, no weights.

Every prompt row is the sum of a text part and, from the tag rows on, a codec part:

    rows          text part                       codec part
    instruction   <|im_start|>user\\n…<|im_end|>\\n   none            (only when there is an instruction)
    role          <|im_start|>assistant\\n          none
    tags          tts_pad … tts_pad, tts_bos      language tags, speaker, codec_pad
    "whole":      body, tts_eos                   codec_pad …
                  tts_pad                         codec_bos
    "streaming":  body[0]                         codec_bos       (body[1:] and tts_eos follow, one per frame)

A cloned voice has its speaker embedding where a built-in one has its speaker id. With reference codes the last part is
as follows. "text" is the reference's body, the body and tts_eos; "frames" is codec_bos and the reference's frames:

    "whole":      text, then tts_pad …            codec_pad …, then frames
    "streaming":  text                            frames          (the rest of a longer text follows, one per frame;
                                                                  tts_pad fills up a shorter one)

Source: the reference's prompt assembly for custom voice, voice design and voice clone, both text layouts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_tts.config import LANGUAGE_AUTO, ModelConfig, TalkerConfig
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import ClonedVoice, CustomVoice, DesignedVoice, SpeechRequest, Voice
from qwen_tts.text import SpokenText, TextTokenizer
from qwen_tts.voice import VoicePrompt

# Values in place of a codec id:
NO_CODEC = -1  # the row has no codec part
SPEAKER_EMBEDDING = -2  # the codec part is the speaker embedding
REFERENCE_FRAME = -3  # the codec part is the next frame of the reference codes

Rows = list[tuple[int, int]]  # text id, codec id


@dataclass(frozen=True)
class PromptLayout:
    """`text_ids` [T], `codec_ids` [T] (ids, or the values above), `trailing_text_ids` [N]; all int64.

    Row n of the trailing text is added to the input of decode step n; after the last row, tts_pad is added.
    SPEAKER_EMBEDDING and REFERENCE_FRAME refer to `voice_prompt`. `text_tokens` counts the ids of the caller's texts,
    without the templates around them. The first `shared_rows` rows do not depend on the text to be spoken.
    """

    text_ids: NDArray[np.int64]
    codec_ids: NDArray[np.int64]
    trailing_text_ids: NDArray[np.int64]
    voice_prompt: VoicePrompt | None = None
    text_tokens: int = 0
    shared_rows: int = 0

    def __post_init__(self) -> None:
        assert self.text_ids.shape == self.codec_ids.shape, (self.text_ids.shape, self.codec_ids.shape)
        assert (self.codec_ids == REFERENCE_FRAME).sum() == self.reference_frames

    @property
    def reference_frames(self) -> int:
        codes = None if self.voice_prompt is None else self.voice_prompt.ref_codes
        return 0 if codes is None else len(codes)

    def __len__(self) -> int:
        return len(self.text_ids)


def build_prompt(config: ModelConfig, tokenizer: TextTokenizer, request: SpeechRequest) -> PromptLayout:
    """Lay out `request` for this model. Raises InvalidRequest, naming what is possible, when the model cannot."""
    spoken = tokenizer.spoken(request.text)
    text = [*reference_text(tokenizer, request.voice), *spoken.body, config.tts_eos_token_id]
    return lay_out(config, tokenizer, request, SpokenText(spoken.role, text))


def lay_out(config: ModelConfig, tokenizer: TextTokenizer, request: SpeechRequest, spoken: SpokenText) -> PromptLayout:
    """Do what build_prompt does, for ids: the role, and a body of the reference's body, the text's and tts_eos."""
    talker = config.talker_config
    instructions, speaker = _resolve_voice(config, request.voice)
    voice_prompt = request.voice.prompt if isinstance(request.voice, ClonedVoice) else None

    text_ids = tokenizer.instruction(instructions) if instructions else []
    text_tokens = len(tokenizer.encode(instructions)) + sum(one != config.tts_eos_token_id for one in spoken.body)
    text_ids += spoken.role
    codec_ids = [NO_CODEC] * len(text_ids)

    tags = _language_tags(talker, _language_id(config, request.language, speaker))
    if speaker is not None:
        tags.append(talker.spk_id[speaker])
    if voice_prompt is not None:
        tags.append(SPEAKER_EMBEDDING)
    text_ids += [config.tts_pad_token_id] * len(tags) + [config.tts_bos_token_id]
    codec_ids += [*tags, talker.codec_pad_id]

    before = len(text_ids)
    frames = [talker.codec_bos_id] + [REFERENCE_FRAME] * (rows_beside(request.voice) - 1)
    if request.text_layout == "whole":
        rows, trailing = _text_before(config, spoken.body, frames), []
    else:
        rows, trailing = _text_beside(config, spoken.body, frames), spoken.body[len(frames) :]
    return PromptLayout(
        text_ids=np.array(text_ids + [text for text, _ in rows], dtype=np.int64),
        codec_ids=np.array(codec_ids + [codec for _, codec in rows], dtype=np.int64),
        trailing_text_ids=np.array(trailing, dtype=np.int64),
        voice_prompt=voice_prompt,
        text_tokens=text_tokens,
        shared_rows=before + min(len(reference_text(tokenizer, request.voice)), len(rows)),
    )


def reference_text(tokenizer: TextTokenizer, voice: Voice) -> list[int]:
    """Return the ids of the words of a cloned voice's reference. They stand before those of the text."""
    match voice:
        case ClonedVoice(prompt=VoicePrompt(ref_codes=np.ndarray(), ref_text=str(ref_text))):
            return tokenizer.spoken(ref_text).body
    return []


def rows_beside(voice: Voice) -> int:
    """Return how many text rows "streaming" reads before the first frame: one, plus one per reference frame."""
    match voice:
        case ClonedVoice(prompt=VoicePrompt(ref_codes=np.ndarray() as codes)):
            return 1 + len(codes)
    return 1


def _text_before(config: ModelConfig, text: list[int], frames: list[int]) -> Rows:
    talker, pad = config.talker_config, config.tts_pad_token_id
    return [*((one, talker.codec_pad_id) for one in text), *((pad, frame) for frame in frames)]


def _text_beside(config: ModelConfig, text: list[int], frames: list[int]) -> Rows:
    beside = text[: len(frames)] + [config.tts_pad_token_id] * (len(frames) - len(text))
    return list(zip(beside, frames, strict=True))


def _resolve_voice(config: ModelConfig, voice: Voice) -> tuple[str, str | None]:
    """Return the instruction text and the built-in speaker's name, as the config spells it."""
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
        case ClonedVoice(prompt=prompt):
            _check_prompt(config, prompt)
            return "", None


def _check_prompt(config: ModelConfig, prompt: VoicePrompt) -> None:
    talker = config.talker_config
    if config.tts_model_type != "base":
        raise InvalidRequest(
            f"this model is of type {config.tts_model_type!r} and cannot clone a voice; a model of type 'base' can",
            "voice",
            "voice_not_supported",
        )
    width = len(prompt.speaker_embedding)
    if width != talker.hidden_size:
        raise InvalidRequest(
            f"the voice prompt was made with another model: its speaker embedding has {width} numbers, and this model "
            f"needs {talker.hidden_size}",
            "voice",
            "voice_of_another_model",
        )
    if prompt.ref_codes is None:
        return
    groups, codes = prompt.ref_codes.shape[1], talker.code_predictor_config.vocab_size
    if groups != talker.num_code_groups or prompt.ref_codes.max() >= codes:
        raise InvalidRequest(
            f"the voice prompt was made with another codec: its frames have {groups} codes up to "
            f"{prompt.ref_codes.max()}, and this model needs {talker.num_code_groups} below {codes}",
            "voice",
            "voice_of_another_model",
        )


def _language_id(config: ModelConfig, language: str, speaker: str | None) -> int | None:
    """Return the codec id of the language tag; None for "auto". A dialect speaker speaks a dialect of Chinese."""
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

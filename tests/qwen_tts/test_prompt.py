"""Prompt rows with the released ids, written out by hand from the reference's layout rules."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from qwen_tts.config import ModelConfig
from qwen_tts.errors import InvalidRequest
from qwen_tts.prompt import NO_CODEC, REFERENCE_FRAME, SPEAKER_EMBEDDING, PromptLayout, build_prompt
from qwen_tts.request import ClonedVoice, CustomVoice, DesignedVoice, SpeechRequest, TextLayout, Voice
from qwen_tts.seeded import SHAPES
from qwen_tts.text import TextTokenizer
from qwen_tts.voice import VoicePrompt
from tests.qwen_tts.released_vocabulary import released_config

# Text ids.
TTS_PAD, TTS_BOS, TTS_EOS = 151671, 151672, 151673
IM_START, IM_END, NEWLINE, ASSISTANT, USER = 151644, 151645, 198, 77091, 872
HELLO, WORLD, HI = 9707, 1879, 13048  # "Hello", " world", "Hi"
# Codec ids.
PAD, BOS, THINK, NOTHINK, THINK_BOS, THINK_EOS = 2148, 2149, 2154, 2155, 2156, 2157
ENGLISH, CHINESE, SICHUAN, BEIJING = 2050, 2055, 2062, 2074
RYAN, ERIC, DYLAN = 3061, 2875, 2878

Rows = list[tuple[int, int]]

ROLE: Rows = [(IM_START, NO_CODEC), (ASSISTANT, NO_CODEC), (NEWLINE, NO_CODEC)]
SAY_HI: Rows = [(id_, NO_CODEC) for id_ in (IM_START, USER, NEWLINE, HI, IM_END, NEWLINE)]
AUTO: Rows = [(TTS_PAD, NOTHINK), (TTS_PAD, THINK_BOS), (TTS_PAD, THINK_EOS)]
WHOLE_TEXT: Rows = [(TTS_BOS, PAD), (HELLO, PAD), (WORLD, PAD), (TTS_EOS, PAD), (TTS_PAD, BOS)]
STREAMING_TEXT: Rows = [(TTS_BOS, PAD), (HELLO, BOS)]

CUSTOM = released_config("custom_voice", SHAPES["1.7B"])
CUSTOM_SMALL = released_config("custom_voice", SHAPES["0.6B"])
DESIGN = released_config("voice_design", SHAPES["1.7B"])
BASE = released_config("base", SHAPES["1.7B"])


def language(code: int) -> Rows:
    return [(TTS_PAD, THINK), (TTS_PAD, THINK_BOS), (TTS_PAD, code), (TTS_PAD, THINK_EOS)]


def speaker(code: int) -> Rows:
    return [(TTS_PAD, code)]


@pytest.fixture(scope="module")
def tokenizer(released_vocabulary: Path) -> TextTokenizer:
    return TextTokenizer(released_vocabulary, CUSTOM)


def rows(layout: PromptLayout) -> Rows:
    assert layout.text_ids.dtype == layout.codec_ids.dtype == layout.trailing_text_ids.dtype == np.int64
    return list(zip(layout.text_ids.tolist(), layout.codec_ids.tolist(), strict=True))


def request(
    voice: Voice, language: str = "auto", layout: TextLayout = "whole", text: str = "Hello world"
) -> SpeechRequest:
    return SpeechRequest(text, voice, language, layout, seed=0)


@pytest.mark.parametrize(
    ("config", "voice", "language_name", "tags"),
    [
        (CUSTOM, CustomVoice("ryan"), "auto", ROLE + AUTO + speaker(RYAN)),
        (CUSTOM, CustomVoice("ryan"), "english", ROLE + language(ENGLISH) + speaker(RYAN)),
        (CUSTOM, CustomVoice("ryan", "Hi"), "auto", SAY_HI + ROLE + AUTO + speaker(RYAN)),
        (CUSTOM, CustomVoice("ryan", "Hi"), "english", SAY_HI + ROLE + language(ENGLISH) + speaker(RYAN)),
        (CUSTOM_SMALL, CustomVoice("ryan", "Hi"), "auto", ROLE + AUTO + speaker(RYAN)),
        (CUSTOM, CustomVoice("RyAn"), "EngLISH", ROLE + language(ENGLISH) + speaker(RYAN)),
        (DESIGN, DesignedVoice("Hi"), "Auto", SAY_HI + ROLE + AUTO),
        (DESIGN, DesignedVoice("Hi"), "chinese", SAY_HI + ROLE + language(CHINESE)),
        (DESIGN, DesignedVoice(""), "auto", ROLE + AUTO),
    ],
    ids=[
        "custom voice", "language", "instruction", "instruction and language", "0.6B drops the instruction",
        "names in any case", "designed voice", "designed voice and language", "no description",
    ],
)  # fmt: skip
def test_rows(tokenizer: TextTokenizer, config: ModelConfig, voice: Voice, language_name: str, tags: Rows) -> None:
    whole = build_prompt(config, tokenizer, request(voice, language_name))
    assert rows(whole) == tags + WHOLE_TEXT
    assert whole.trailing_text_ids.tolist() == []

    streaming = build_prompt(config, tokenizer, request(voice, language_name, "streaming"))
    assert rows(streaming) == tags + STREAMING_TEXT
    assert streaming.trailing_text_ids.tolist() == [WORLD, TTS_EOS]


def test_streaming_a_single_token_leaves_only_the_end_to_trail(tokenizer: TextTokenizer) -> None:
    layout = build_prompt(CUSTOM, tokenizer, request(CustomVoice("ryan"), layout="streaming", text="Hello"))
    assert rows(layout) == ROLE + AUTO + speaker(RYAN) + STREAMING_TEXT
    assert layout.trailing_text_ids.tolist() == [TTS_EOS]


def reference(words: str, frames: int) -> ClonedVoice:
    """A voice whose recording says `words` in so many frames."""
    width = BASE.talker_config.hidden_size
    return ClonedVoice(VoicePrompt(np.zeros(width, np.float32), np.zeros((frames, 16), np.int16), words))


EMBEDDING: Rows = [(TTS_PAD, SPEAKER_EMBEDDING)]
FRAME = REFERENCE_FRAME


def test_a_cloned_voice_stands_where_a_built_in_one_does(tokenizer: TextTokenizer) -> None:
    voice = ClonedVoice(VoicePrompt(np.zeros(BASE.talker_config.hidden_size, np.float32)))
    assert rows(build_prompt(BASE, tokenizer, request(voice))) == ROLE + AUTO + EMBEDDING + WHOLE_TEXT
    streaming = build_prompt(BASE, tokenizer, request(voice, "english", "streaming"))
    assert rows(streaming) == ROLE + language(ENGLISH) + EMBEDDING + STREAMING_TEXT
    assert streaming.trailing_text_ids.tolist() == [WORLD, TTS_EOS]
    assert streaming.voice_prompt is voice.prompt


def test_the_whole_text_stands_before_the_frames_of_the_reference(tokenizer: TextTokenizer) -> None:
    layout = build_prompt(BASE, tokenizer, request(reference("Hi", frames=3), "english"))
    assert rows(layout) == [
        *ROLE, *language(ENGLISH), *EMBEDDING, (TTS_BOS, PAD),
        (HI, PAD), (HELLO, PAD), (WORLD, PAD), (TTS_EOS, PAD),
        (TTS_PAD, BOS), (TTS_PAD, FRAME), (TTS_PAD, FRAME), (TTS_PAD, FRAME),
    ]  # fmt: skip
    assert layout.trailing_text_ids.tolist() == []


@pytest.mark.parametrize(
    ("frames", "beside", "trailing"),
    [
        (1, [(HI, BOS), (HELLO, FRAME)], [WORLD, TTS_EOS]),
        (2, [(HI, BOS), (HELLO, FRAME), (WORLD, FRAME)], [TTS_EOS]),
        (3, [(HI, BOS), (HELLO, FRAME), (WORLD, FRAME), (TTS_EOS, FRAME)], []),
        (4, [(HI, BOS), (HELLO, FRAME), (WORLD, FRAME), (TTS_EOS, FRAME), (TTS_PAD, FRAME)], []),
    ],
)
def test_streamed_text_stands_beside_the_frames_of_the_reference(
    tokenizer: TextTokenizer, frames: int, beside: Rows, trailing: list[int]
) -> None:
    layout = build_prompt(BASE, tokenizer, request(reference("Hi", frames), layout="streaming"))
    assert rows(layout) == [*ROLE, *AUTO, *EMBEDDING, (TTS_BOS, PAD), *beside]
    assert layout.trailing_text_ids.tolist() == trailing


@pytest.mark.parametrize("layout", ["whole", "streaming"])
@pytest.mark.parametrize(
    ("config", "voice", "shared"),
    [
        (CUSTOM, CustomVoice("ryan", "Hi"), 14),
        (CUSTOM_SMALL, CustomVoice("ryan", "Hi"), 8),
        (DESIGN, DesignedVoice("Hi"), 13),
        (BASE, ClonedVoice(VoicePrompt(np.zeros(BASE.talker_config.hidden_size, np.float32))), 8),
        (BASE, reference("Hi", frames=3), 9),
        (BASE, reference("Hi Hello world", frames=1), None),
    ],
)
def test_shared_rows_are_those_before_the_text(
    tokenizer: TextTokenizer, config: ModelConfig, voice: Voice, layout: TextLayout, shared: int | None
) -> None:
    """Prompts of one voice are alike for so many rows, and for no more."""
    one, other = (build_prompt(config, tokenizer, request(voice, layout=layout, text=t)) for t in ("Hi", "world"))
    if shared is None:  # the reference's words go on beside the frames and after them
        shared = 8 + (2 if layout == "streaming" else 3)
    assert one.shared_rows == other.shared_rows == shared
    assert rows(one)[:shared] == rows(other)[:shared]
    assert rows(one)[shared:] != rows(other)[shared:] or shared == len(one) == len(other)


@pytest.mark.parametrize(
    ("name", "code", "language_name", "tag"),
    [
        ("eric", ERIC, "auto", SICHUAN),
        ("eric", ERIC, "chinese", SICHUAN),
        ("eric", ERIC, "english", ENGLISH),
        ("Dylan", DYLAN, "Auto", BEIJING),
        ("Dylan", DYLAN, "Chinese", BEIJING),
        ("Dylan", DYLAN, "English", ENGLISH),
        ("ryan", RYAN, "chinese", CHINESE),
    ],
)
def test_a_dialect_speaker_speaks_their_dialect_of_chinese(
    tokenizer: TextTokenizer, name: str, code: int, language_name: str, tag: int
) -> None:
    layout = build_prompt(CUSTOM, tokenizer, request(CustomVoice(name), language_name))
    assert rows(layout) == ROLE + language(tag) + speaker(code) + WHOLE_TEXT


SPEAKERS = "aiden, dylan, eric, ono_anna, ryan, serena, sohee, uncle_fu, vivian"
LANGUAGES = (
    "auto, chinese, english, french, german, italian, japanese, korean, portuguese, russian, spanish"  # and no dialect
)


@pytest.mark.parametrize(
    ("config", "bad", "param", "code", "says"),
    [
        (CUSTOM, request(CustomVoice("nobody")), "voice", "unknown_voice", f"'nobody' is unknown; .*: {SPEAKERS}$"),
        (CUSTOM, request(CustomVoice("")), "voice", "unknown_voice", f"'' is unknown; .*: {SPEAKERS}$"),
        (CUSTOM, request(DesignedVoice("x")), "voice", "voice_required", f"cannot design a voice; .*: {SPEAKERS}$"),
        (DESIGN, request(CustomVoice("ryan")), "voice", "voice_not_supported", "'ryan' .* 'voice_design'"),
        (BASE, request(CustomVoice("ryan")), "voice", "voice_not_supported", "'ryan' .* 'base'"),
        (BASE, request(DesignedVoice("x")), "voice", "voice_required", "'base' and cannot design a voice; clone one"),
        (CUSTOM, request(CustomVoice("ryan"), "elvish"), "language", "unknown_language", f"'elvish' .*: {LANGUAGES}$"),
        (
            CUSTOM, request(CustomVoice("eric"), "sichuan_dialect"), "language", "unknown_language",
            f"'sichuan_dialect' is unknown; .*: {LANGUAGES}$",
        ),
        (DESIGN, request(DesignedVoice("x"), ""), "language", "unknown_language", f"'' is unknown; .*: {LANGUAGES}$"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_speak_is_refused_naming_what_it_can(
    tokenizer: TextTokenizer, config: ModelConfig, bad: SpeechRequest, param: str, code: str, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        build_prompt(config, tokenizer, bad)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_a_speaker_may_be_spelt_in_any_case(tokenizer: TextTokenizer) -> None:
    """In the request and in the config: a fine-tuned checkpoint's speaker has the name its owner gave it."""
    tuned = dataclasses.replace(
        CUSTOM, talker_config=dataclasses.replace(CUSTOM.talker_config, spk_id={"MyVoice": RYAN}, spk_is_dialect={})
    )
    for name in ("MyVoice", "myvoice", "MYVOICE"):
        assert rows(build_prompt(tuned, tokenizer, request(CustomVoice(name))))[6] == (TTS_PAD, RYAN)


@pytest.mark.parametrize("layout", ["whole", "streaming"])
def test_the_words_of_the_caller_are_counted(tokenizer: TextTokenizer, layout: TextLayout) -> None:
    """Not the templates around them: "Hello world" has two tokens, "Hi" one."""
    for config, voice, tokens, frames in (
        (CUSTOM, CustomVoice("ryan"), 2, 0),
        (CUSTOM, CustomVoice("ryan", "Hi"), 3, 0),
        (DESIGN, DesignedVoice("Hi"), 3, 0),
        (BASE, reference("Hi", 7), 3, 7),
    ):
        laid_out = build_prompt(config, tokenizer, request(voice, layout=layout))
        assert (laid_out.text_tokens, laid_out.reference_frames) == (tokens, frames)

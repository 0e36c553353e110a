"""Draws the tasks of training: the model type that a clip is an example for, and the form of the request."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from qwen_tts.config import LANGUAGE_AUTO, ModelConfig, ModelType
from qwen_tts.prompt import build_prompt
from qwen_tts.request import ClonedVoice, CustomVoice, DesignedVoice, SpeechRequest, TextLayout, Voice
from qwen_tts.text import TextTokenizer
from qwen_tts.train.clips import SOUNDS_PER_FRAME, Clip, ClipSet
from qwen_tts.train.talker_batch import Example
from qwen_tts.voice import VoicePrompt

_CLONED = 0.2  # share of the clips that also have a speaker or a description
_CONTINUED = 0.5  # share of the clones with the reference's codes and words; the others have its embedding alone
_STREAMING = 0.35
_AUTO_LANGUAGE = 0.15
_LONGEST_REFERENCE_FRAMES = 50


class TaskSource:
    """Draws examples for all model types from one data set. The types differ in their prompts only."""

    def __init__(self, clips: ClipSet, models: Mapping[ModelType, ModelConfig], tokenizer: TextTokenizer) -> None:
        self.clips = clips
        self.models = models
        self.tokenizer = tokenizer
        by_voice = defaultdict(list)
        for index, clip in enumerate(clips.clips):
            if not clip.instructions and not clip.description and clip.frames <= _LONGEST_REFERENCE_FRAMES:
                by_voice[clip.voice].append(index)
        self._references = {voice: np.array(found) for voice, found in by_voice.items()}
        self.sounds = sorted({sound for clip in clips.clips for sound in set(clip.sounds.split())})
        self._sound_numbers = {sound: number for number, sound in enumerate(self.sounds)}

    def example(self, index: int, rng: np.random.Generator, layout: TextLayout | None = None) -> Example:
        clip = self.clips.clips[index]
        voice: Voice
        reference = None
        cloned = not (clip.speaker or clip.description)
        if not clip.instructions and not clip.description and clip.voice in self._references:
            cloned = cloned or rng.random() < _CLONED
        if cloned:
            chosen = int(rng.choice(self._references.get(clip.voice, np.array([index]))))
            voice = ClonedVoice(self._voice_prompt(chosen, rng))
            reference = self.clips.samples(chosen)
        elif clip.speaker:
            voice = CustomVoice(clip.speaker, clip.instructions)
        else:
            voice = DesignedVoice(clip.description)
        request = SpeechRequest(
            clip.text,
            voice,
            language=LANGUAGE_AUTO if rng.random() < _AUTO_LANGUAGE else clip.language,
            text_layout=layout or ("streaming" if rng.random() < _STREAMING else "whole"),
            seed=0,
        )
        prompt = build_prompt(self.models[_model_type(voice)], self.tokenizer, request)
        return Example(prompt, self.clips.codes(index), reference, self._spoken(clip))

    def _spoken(self, clip: Clip) -> NDArray[np.int64] | None:
        """Return the numbers of a clip's sounds, [F, SOUNDS_PER_FRAME]."""
        if not clip.sounds:
            return None
        numbers = np.array([self._sound_numbers[sound] for sound in clip.sounds.split()])
        return numbers.reshape(clip.frames, SOUNDS_PER_FRAME)

    def _voice_prompt(self, index: int, rng: np.random.Generator) -> VoicePrompt:
        """Return a prompt without its speaker embedding, which the trainer fills in."""
        unknown = np.zeros(self.models["base"].talker_config.hidden_size, np.float32)
        if rng.random() >= _CONTINUED:
            return VoicePrompt(unknown)
        return VoicePrompt(unknown, self.clips.codes(index).astype(np.int16), self.clips.clips[index].text)


def _model_type(voice: Voice) -> ModelType:
    match voice:
        case CustomVoice():
            return "custom_voice"
        case DesignedVoice():
            return "voice_design"
        case ClonedVoice():
            return "base"

"""The text of one utterance while it is being written: what of it is certain, as rows of the "streaming" layout."""

from dataclasses import replace

from qwen_tts.config import ModelConfig
from qwen_tts.errors import InvalidRequest
from qwen_tts.prompt import PromptLayout, lay_out, reference_text, rows_beside
from qwen_tts.request import MIN_FRAMES, SpeechRequest, check_text, frame_limit
from qwen_tts.text import ROLE_ROWS, SpokenText, TextTokenizer

# Longer than any text is on average; a token is seldom more than ten characters.
MAX_CHARACTERS_PER_ROW = 64


class LiveText:
    """Written by one thread and read by the engine's without a lock: its rows only grow, and `ended` comes after them.

    What is spoken is what the whole text in the "streaming" layout gives, code by code. That layout has one row of text
    in the prompt, and with a reference recording one more for each of its frames; a clone of that kind begins to speak
    when so much of its text is there, or all of it.
    """

    def __init__(
        self, config: ModelConfig, tokenizer: TextTokenizer, request: SpeechRequest, *, positions: int, max_frames: int
    ) -> None:
        """request: its layout is "streaming", its text the beginning. positions: of a slot. max_frames: of anybody."""
        assert request.text_layout == "streaming"
        self.request = request
        self.ended = False
        self._config = config
        self._tokenizer = tokenizer
        self._positions = positions
        self._max_frames = max_frames
        self._text = ""
        self._growing = tokenizer.growing()
        self._role = [config.im_start_token_id]
        self._rows = reference_text(tokenizer, request.voice)
        self._beside = rows_beside(request.voice)
        self.append(request.text)

    def append(self, text: str) -> None:
        """Raises InvalidRequest when that is no text, or more than the model has room for."""
        assert not self.ended
        check_text("input", text)
        self._text += text
        if len(self._text) > (most := MAX_CHARACTERS_PER_ROW * self._positions):
            raise InvalidRequest(f"input has more than {most} characters", "input", "input_too_long")
        self._extend(self._growing.append(text))

    def end(self) -> None:
        """Nothing follows. Raises InvalidRequest when it is more than the model has room for."""
        assert not self.ended
        self._extend([*self._growing.finish(), self._config.tts_eos_token_id])
        self.request = replace(self.request, text=self._text)
        self.ended = True

    @property
    def ready(self) -> bool:
        """The prompt is certain."""
        return self.ended or (len(self._role) == ROLE_ROWS and len(self._rows) >= self._beside)

    def layout(self) -> PromptLayout:
        """The prompt; see `trailing` for what trails behind it."""
        assert self.ready
        beside = SpokenText(self._role, self._rows[: self._beside])
        return lay_out(self._config, self._tokenizer, self.request, beside)

    def trailing(self, row: int) -> int | None:
        """Text id of a row that trails behind the prompt, tts_pad after the end; None while it is not certain."""
        assert row >= 0, "the row of a frame that does not exist"
        ended = self.ended  # asked first: what is missing then will never be there
        if self._beside + row < len(self._rows):
            return self._rows[self._beside + row]
        return self._config.tts_pad_token_id if ended else None

    @property
    def trailing_tokens(self) -> int:
        """Of the text behind the prompt."""
        return max(0, len(self._rows) - self._beside - (1 if self.ended else 0))

    @property
    def max_frames(self) -> int:
        """The most frames it may run to. While it is being written its own length is no bound."""
        if not self.ended and self.request.max_frames is None:
            return self._max_frames
        return frame_limit(self.request, self._max_frames)

    def _extend(self, ids: list[int]) -> None:
        of_role = ROLE_ROWS - len(self._role)
        self._role += ids[:of_role]
        rows = len(self._rows) + len(ids[of_role:]) - self._beside
        if self._positions - rows < MIN_FRAMES:
            most = self._positions - MIN_FRAMES
            raise InvalidRequest(f"input too long: the model has room for {most} rows of it", "input", "input_too_long")
        self._rows += ids[of_role:]

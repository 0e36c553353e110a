"""The text of one utterance while it is being written: its certain part, as rows of the "streaming" layout."""

from dataclasses import replace

from qwen_tts.config import ModelConfig
from qwen_tts.errors import InvalidRequest
from qwen_tts.prompt import PromptLayout, lay_out, reference_text, rows_beside
from qwen_tts.request import MIN_FRAMES, SpeechRequest, check_text, frame_limit
from qwen_tts.text import ROLE_ROWS, SpokenText, TextTokenizer

# More than the average of any text: few tokens have more than ten characters.
MAX_CHARACTERS_PER_ROW = 64


class LiveText:
    """A text that one thread writes and the engine's thread reads, without a lock.

    That is safe because rows are only added, and `ended` is set after the last of them.

    The codes are exactly those of the whole text in the "streaming" layout. That layout has one row of text in the
    prompt. With a reference recording it has one more for each frame of the recording, so such a clone begins to speak
    when that many rows of text have been written, or the text has ended.
    """

    def __init__(
        self, config: ModelConfig, tokenizer: TextTokenizer, request: SpeechRequest, *, positions: int, max_frames: int
    ) -> None:
        """request: in the "streaming" layout, with the beginning of the text. positions: of a slot. max_frames: of any
        request."""
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
        """Add text. Raises InvalidRequest if it is no valid text, or more than the model has room for."""
        assert not self.ended
        check_text("input", text)
        self._text += text
        if len(self._text) > (most := MAX_CHARACTERS_PER_ROW * self._positions):
            raise InvalidRequest(f"input has more than {most} characters", "input", "input_too_long")
        self._extend(self._growing.append(text))

    def end(self) -> None:
        """End the text. Raises InvalidRequest if it is more than the model has room for."""
        assert not self.ended
        self._extend([*self._growing.finish(), self._config.tts_eos_token_id])
        self.request = replace(self.request, text=self._text)
        self.ended = True

    def ready(self, frames: int = 0) -> bool:
        """Whether the prompt is certain, and the rows beside the first `frames` frames are too."""
        return self.ended or (len(self._role) == ROLE_ROWS and len(self._rows) >= self._beside + frames)

    def layout(self) -> PromptLayout:
        """Return the prompt. The text behind it is in `trailing`."""
        assert self.ready(), "the prompt of this text is not certain yet"
        beside = SpokenText(self._role, self._rows[: self._beside])
        return lay_out(self._config, self._tokenizer, self.request, beside)

    def trailing(self, row: int) -> int | None:
        """Return the text id of a row behind the prompt, tts_pad after the end, None while it is not certain."""
        assert row >= 0, "the row of a frame that does not exist"
        ended = self.ended  # read first: a row that is missing then will never be added
        if self._beside + row < len(self._rows):
            return self._rows[self._beside + row]
        return self._config.tts_pad_token_id if ended else None

    @property
    def trailing_tokens(self) -> int:
        """The number of tokens behind the prompt."""
        return max(0, len(self._rows) - self._beside - (1 if self.ended else 0))

    @property
    def max_frames(self) -> int:
        """The most frames that it may have. While it is being written its own length is no bound."""
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

"""The longest texts that a request may have: one check for every protocol."""

from deployments.settings import IngressArgs
from qwen_tts.errors import InvalidRequest
from qwen_tts.request import check_text


class TextLimits:
    """The limits of one ingress replica.

    `whole_characters` bounds a complete text to speak. `live_characters` bounds a text that is spoken while it is
    written, and every other text of a request.
    """

    def __init__(self, args: IngressArgs) -> None:
        self.whole_characters = args.long_text.max_characters
        self.live_characters = args.max_input_characters

    def check_whole(self, text: str) -> None:
        """Check the text to speak. Raises InvalidRequest `input_too_long`."""
        self._check("input", text, self.whole_characters)

    def check_live(self, text: str, before: int) -> None:
        """Check an addition to a live text of `before` characters. Raises InvalidRequest `input_too_long`."""
        check_text("input", text)
        self._check("input", text, self.live_characters, before)

    def check_other(self, name: str, text: str | None) -> None:
        """Check any text but the one to speak. Raises InvalidRequest `{name}_too_long`."""
        self._check(name, text or "", self.live_characters)

    def _check(self, name: str, text: str, limit: int, before: int = 0) -> None:
        if before + len(text) > limit:
            message = f"{name} has {before + len(text)} characters; the limit is {limit}"
            raise InvalidRequest(message, name, f"{name}_too_long")

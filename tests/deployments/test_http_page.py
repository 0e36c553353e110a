"""docs/http.md names every field of a speech request and every code of an error."""

import re

from deployments.speech.utterance import SpeechBody
from tests.documents import ROOT, read_page

PAGE = read_page("docs/http.md")
# Codes of WebSocket events, which docs/clients.md and the protocols' own modules explain.
_OF_SOCKETS = {
    "protocol_error", "message_too_large", "field_not_accepted", "field_not_supported", "input_text_buffer_empty",
    "response_cancel_not_active", "unknown_event", "invalid_output_format", "unsupported_language",
}  # fmt: skip


def test_every_field_of_a_speech_request_has_a_row() -> None:
    fields = PAGE.partition("## Fields of a speech request")[2].partition("\n### ")[0]
    named = {name for row in fields.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row[:120])}
    assert set(SpeechBody.model_fields) <= named


def test_every_code_of_an_error_is_named() -> None:
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "deployments").rglob("*.py"))]
    codes = {code for source in sources for code in re.findall(r'\bcode="(\w+)"', source)}
    assert len(codes) > 30
    assert {code for code in codes - _OF_SOCKETS if f"`{code}`" not in PAGE} == set()

"""docs/http.md names every field of a speech request, and the status of every error code that it names."""

import re

from deployments.errors import refusal_of
from deployments.metrics import METRICS
from deployments.protocols.openai.bodies import SpeechBody
from qwen_tts.errors import InvalidRequest
from tests.documents import read_page

PAGE = read_page("docs/http.md")
# Codes of errors that are not the caller's mistakes.
_OF_THE_SERVER = {
    "rate_limit_exceeded",
    "replica_failed",
    "request_failed",
    "internal_error",
    "not_ready",
    "model_starting",
    "storage_failed",
    "storage_timeout",
}


def test_every_field_of_a_speech_request_has_a_row() -> None:
    fields = PAGE.partition("## Fields of a speech request")[2].partition("\n### ")[0]
    named = {name for row in fields.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row[:120])}
    assert set(SpeechBody.model_fields) <= named


def test_codes_of_errors_stand_beside_their_status() -> None:
    errors = PAGE.partition("## Errors")[2].partition("\n## ")[0]
    rows = [
        (int(status), re.findall(r"`(\w+)`", row)) for status, row in re.findall(r"\| (\d{3}) \| ([^|]*) \|", errors)
    ]
    stated = {code: status for status, codes in rows for code in codes if code not in _OF_THE_SERVER}
    assert len(stated) > 40
    assert {code: refusal_of(InvalidRequest("", None, code)).status for code in stated} == stated


def test_every_metric_has_a_row_and_every_row_a_metric() -> None:
    rows = [
        row.split("|")[1]
        for row in PAGE.partition("## Metrics")[2].partition("\n## ")[0].splitlines()
        if row.startswith("| `")
    ]
    shown = [f"ray_qwen_tts_{name}" for cell in rows for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(shown) == sorted(metric.exported for metric in METRICS)

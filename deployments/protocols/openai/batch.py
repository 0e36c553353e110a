"""POST /v1/audio/speech/batch: many utterances, each of which succeeds or fails by itself."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from deployments.errors import HttpError
from deployments.protocols.openai.answers import BatchResult
from deployments.speech.utterance import Utterance, UtteranceFields, parse_fields, parse_object

MAX_ITEMS = 32

Fields = dict[str, Any]


class BatchBody(UtteranceFields):
    """Up to 32 items, and fields that all of them share but those that have their own. (For /openapi.json: items are
    parsed one by one.)"""

    items: Annotated[list[Utterance], Field(min_length=1, max_length=MAX_ITEMS)]


def parse_batch(content: bytes) -> list[Fields]:
    """The fields of every item, shared ones included, not checked yet. Raises HttpError for what is no batch."""
    shared = parse_object(content)
    items = shared.pop("items", None)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        code = "missing_field" if items is None else "invalid_value"
        raise HttpError(400, "items must be a list of objects", param="items", code=code)
    if not 1 <= len(items) <= MAX_ITEMS:
        message = f"items has {len(items)} entries; it must have 1 to {MAX_ITEMS}"
        raise HttpError(400, message, param="items", code="out_of_range")
    parse_fields(UtteranceFields, shared)
    return [{**shared, **item} for item in items]


def parse_item(fields: Mapping[str, Any]) -> Utterance:
    """Raises HttpError."""
    return parse_fields(Utterance, fields).resolved()


def failed(index: int, error: HttpError) -> BatchResult:
    return BatchResult(index=index, status="error", error=error.message, error_param=error.param, error_code=error.code)

"""The header by which a client says how long its request may wait."""

import pytest
from starlette.requests import Request

from deployments.http.max_wait import max_wait_of
from qwen_tts.errors import InvalidRequest


def request(value: str | None) -> Request:
    headers = [] if value is None else [(b"x-max-wait-ms", value.encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(("value", "seconds"), [(None, None), ("0", 0.0), ("1500", 1.5), ("60000", 60.0)])
def test_the_time_in_seconds(value: str | None, seconds: float | None) -> None:
    assert max_wait_of(request(value)) == seconds


@pytest.mark.parametrize("value", ["", "-1", "1.5", "60001", "soon", "9" * 5000, "\xb2"])
def test_another_value_is_refused_by_the_name_of_the_header(value: str) -> None:
    with pytest.raises(InvalidRequest, match="X-Max-Wait-Ms") as refused:
        max_wait_of(request(value))
    assert (refused.value.param, refused.value.code) == ("X-Max-Wait-Ms", "out_of_range")

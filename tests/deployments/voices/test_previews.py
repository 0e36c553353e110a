"""Designed voices that wait to be stored."""

from pathlib import Path

import pytest

from deployments.errors import NotFound
from deployments.voices.files import SharedFiles
from deployments.voices.previews import PreviewStore
from tests.deployments.voices.storage import Clock, leaves


def test_previews(url: str) -> None:
    preview_id = PreviewStore(url).add({"instruct": "a low voice", "seed": 7}, b"RIFF")
    store = PreviewStore(url)
    assert store.get(preview_id) == ({"instruct": "a low voice", "seed": 7}, b"RIFF")
    store.delete(preview_id)
    store.delete(preview_id)
    with pytest.raises(NotFound):
        store.get(preview_id)
    assert leaves(url, "previews") == set()


def test_previews_expire(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store = Clock(monkeypatch), PreviewStore(url, ttl_s=60)
    old = store.add({}, b"old")
    stray = store.add({}, b"alone")
    files = SharedFiles(url)
    files.delete(f"previews/{stray}.json")
    files.put(f"previews/.{stray}.json.0123.tmp", b"{")
    clock.now_s += 59
    store.get(old)
    with pytest.raises(NotFound):
        store.get(stray)
    clock.now_s += 2
    with pytest.raises(NotFound):
        store.get(old)
    new = store.add({}, b"new")
    assert leaves(url, "previews") == {f"{new}.json", f"{new}.wav"}


@pytest.mark.parametrize(
    "preview_id", ["", "..", "preview_", "preview_" + "g" * 32, "preview_" + "f" * 32 + "\n", "a/b"]
)
def test_bad_preview_ids(preview_id: str, tmp_path: Path) -> None:
    for call in (PreviewStore(str(tmp_path)).get, PreviewStore(str(tmp_path)).delete):
        with pytest.raises(NotFound):
            call(preview_id)


def test_a_meta_that_is_not_json_writes_nothing(url: str) -> None:
    with pytest.raises(TypeError):
        PreviewStore(url).add({"wav": b""}, b"RIFF")
    assert leaves(url, "previews") == set()


def test_surplus_previews_make_way_oldest_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store = Clock(monkeypatch), PreviewStore(url, limit=2)
    previews = []
    for content in (b"one", b"two", b"three"):
        previews.append(store.add({}, content))
        clock.now_s += 1
    assert [store.get(preview)[1] for preview in previews[1:]] == [b"two", b"three"]
    with pytest.raises(NotFound):
        store.get(previews[0])
    assert len(leaves(url, "previews")) == 4

"""Recorded consents on shared storage."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.consent_store import ConsentNotFound, ConsentStore
from deployments.voice_store import StoreFull
from tests.unit.storage import leaves


def test_a_consent_from_upload_to_deletion(url: str) -> None:
    record = ConsentStore(url, limit=5).add("Anna", "en-US", b"RIFF", "audio/wav")
    store = ConsentStore(url, limit=5)
    assert store.get(record.id) == record
    assert (record.name, record.language, record.audio_bytes) == ("Anna", "en-US", 4)
    renamed = store.rename(record.id, "Anna B.")
    assert store.get(record.id) == renamed
    assert (renamed.name, renamed.created_at) == ("Anna B.", record.created_at)
    store.delete(record.id)
    for call in (store.get, store.delete, lambda id_: store.rename(id_, "x")):
        with pytest.raises(ConsentNotFound):
            call(record.id)
    assert leaves(url, "consents") == set()


def test_pages_go_from_the_latest_to_the_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1_800_000_000)
    monkeypatch.setattr("deployments.consent_store.time", SimpleNamespace(time=lambda: next(clock)))
    store = ConsentStore(url, limit=5)
    ids = [store.add(name, "en", b"RIFF", "audio/wav").id for name in "abcde"]
    seen: list[str] = []
    more = True
    while more:
        records, more = store.page(seen[-1] if seen else None, 2)
        assert len(records) == min(2, 5 - len(seen))
        seen += [record.id for record in records]
    assert seen == ids[::-1]
    with pytest.raises(StoreFull, match="5 consents"):
        store.add("f", "en", b"RIFF", "audio/wav")


@pytest.mark.parametrize("consent_id", ["", "..", "cons_", "cons_" + "g" * 32, "cons_" + "f" * 32 + "\n", "a/b"])
def test_bad_ids(consent_id: str, tmp_path: Path) -> None:
    store = ConsentStore(str(tmp_path), limit=1)
    for call in (store.get, store.delete):
        with pytest.raises(ConsentNotFound):
            call(consent_id)

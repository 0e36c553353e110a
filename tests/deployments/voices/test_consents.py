"""Recorded consents on shared storage."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments.access.caller import EVERYONE, Caller
from deployments.errors import Full, NotFound
from deployments.voices.consents import ConsentStore
from tests.deployments.voices.storage import leaves

ALICE, BOB, OPS = Caller("alice", False), Caller("bob", False), Caller("ops", True)


def test_a_consent_from_upload_to_deletion(url: str) -> None:
    record = ConsentStore(url, limit=5).add(EVERYONE, "Anna", "en-US", b"RIFF", "audio/wav")
    store = ConsentStore(url, limit=5)
    assert store.get(EVERYONE, record.id) == record
    assert (record.name, record.language, record.audio_bytes) == ("Anna", "en-US", 4)
    renamed = store.rename(EVERYONE, record.id, "Anna B.")
    assert store.get(EVERYONE, record.id) == renamed
    assert (renamed.name, renamed.created_at) == ("Anna B.", record.created_at)
    store.delete(EVERYONE, record.id)
    for call in (store.get, store.delete, lambda caller, id_: store.rename(caller, id_, "x")):
        with pytest.raises(NotFound):
            call(EVERYONE, record.id)
    assert leaves(url, "consents") == set()


def test_pages_go_from_the_latest_to_the_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1_800_000_000)
    monkeypatch.setattr("deployments.voices.consents.time", SimpleNamespace(time=lambda: next(clock)))
    store = ConsentStore(url, limit=5)
    ids = [store.add(EVERYONE, name, "en", b"RIFF", "audio/wav").id for name in "abcde"]
    seen: list[str] = []
    more = True
    while more:
        records, more = store.page(EVERYONE, seen[-1] if seen else None, 2)
        assert len(records) == min(2, 5 - len(seen))
        seen += [record.id for record in records]
    assert seen == ids[::-1]
    with pytest.raises(Full, match="5 consents"):
        store.add(EVERYONE, "f", "en", b"RIFF", "audio/wav")


def test_another_s_consent_is_as_unknown_as_nobody_s(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1_800_000_000)
    monkeypatch.setattr("deployments.voices.consents.time", SimpleNamespace(time=lambda: next(clock)))
    store = ConsentStore(url, limit=9)
    owners = (ALICE, BOB, ALICE, EVERYONE, ALICE)
    first, second, third, nobody_s, last = [store.add(owner, "x", "en", b"RIFF", "audio/wav") for owner in owners]
    for call in (store.get, store.delete, lambda caller, id_: store.rename(caller, id_, "y")):
        for id_ in (second.id, nobody_s.id):
            with pytest.raises(NotFound) as caught:
                call(ALICE, id_)
            assert str(caught.value) == str(NotFound("consent", id_))
    assert store.page(ALICE, None, 2) == ([last, third], True)
    assert store.page(ALICE, third.id, 2) == ([first], False)
    assert store.page(BOB, None, 1) == ([second], False)
    assert store.page(Caller("carol", False), None, 1) == ([], False)
    assert store.page(OPS, None, 5) == store.page(EVERYONE, None, 5)
    assert [record.owner for record in store.page(OPS, None, 5)[0]] == ["alice", None, "alice", "bob", "alice"]
    assert store.rename(OPS, second.id, "z").owner == "bob", "a rename changes the owner"
    store.delete(BOB, second.id)


def test_records_of_before_there_were_owners_are_read(tmp_path: Path) -> None:
    store = ConsentStore(str(tmp_path), limit=1)
    record = store.add(EVERYONE, "Anna", "en", b"RIFF", "audio/wav")
    file = tmp_path / "consents" / f"{record.id}.json"
    old = file.read_bytes().replace(b',"owner":null', b"")
    assert old != file.read_bytes()
    file.write_bytes(old)
    assert ConsentStore(str(tmp_path), limit=1).get(EVERYONE, record.id) == record


@pytest.mark.parametrize("consent_id", ["", "..", "cons_", "cons_" + "g" * 32, "cons_" + "f" * 32 + "\n", "a/b"])
def test_bad_ids(consent_id: str, tmp_path: Path) -> None:
    store = ConsentStore(str(tmp_path), limit=1)
    for call in (store.get, store.delete):
        with pytest.raises(NotFound):
            call(EVERYONE, consent_id)

"""Voices belong to the key that stored them. For other keys without `voices: all` they do not exist."""

from pathlib import Path
from typing import Any

import pytest

from deployments.access.caller import EVERYONE, Caller
from deployments.errors import Exists, NotFound
from deployments.settings import ReferenceAudioArgs, VoiceStoreArgs
from deployments.speech.design import VoiceDesigner
from deployments.voices.library import VoiceLibrary
from deployments.voices.previews import PreviewStore
from deployments.voices.record import VoiceRecord
from deployments.voices.store import VoiceStore
from tests.deployments.loaded import loaded

ALICE, BOB, OPS = Caller("alice", False), Caller("bob", False), Caller("ops", True)


def add(store: VoiceStore, caller: Caller, name: str, *, overwrite: bool = False) -> VoiceRecord:
    return store.add(
        name, audio=b"audio", mime_type="audio/wav", consent="given", ref_text=None, description=None, source="upload",
        prompts={"ab12": b"prompt"}, overwrite=overwrite, caller=caller,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    store = VoiceStore(str(tmp_path), cache_bytes=0)
    add(store, ALICE, "anna")
    add(store, BOB, "bert")
    add(store, EVERYONE, "of-old")
    return store


@pytest.fixture
async def library(store: VoiceStore, tmp_path: Path) -> VoiceLibrary:
    library = VoiceLibrary(None, await loaded(), VoiceStoreArgs(url=str(tmp_path)), ReferenceAudioArgs())
    library._fingerprints = {"base": "ab12"}
    return library


@pytest.mark.parametrize(
    ("caller", "names"),
    [
        (ALICE, ["anna"]),
        (BOB, ["bert"]),
        (Caller("carol", False), []),
        (OPS, ["anna", "bert", "of-old"]),
        (EVERYONE, ["anna", "bert", "of-old"]),
    ],
)
async def test_who_sees_what(library: VoiceLibrary, caller: Caller, names: list[str]) -> None:
    assert [record.name for record in await library.list(caller)] == names
    assert list(await library.names(caller)) == names


async def test_another_s_voice_is_as_unknown_as_nobody_s(library: VoiceLibrary, store: VoiceStore) -> None:
    for name in ("anna", "nobody"):
        for ask in (
            library.get(BOB, name),
            library.audio(BOB, name),
            library.delete(BOB, name),
            library.stored_prompt(BOB, name, "base"),
        ):
            with pytest.raises(NotFound) as caught:
                await ask
            assert str(caught.value) == f"there is no voice {name!r}"
    assert (await library.get(ALICE, "anna")).owner == "alice"
    assert (await library.audio(OPS, "anna"))[1] == b"audio"
    await library.delete(ALICE, "anna")
    await library.delete(OPS, "bert")
    assert store.names() == ("of-old",)


async def test_a_name_of_another_s_is_taken_and_not_for_replacing(library: VoiceLibrary, store: VoiceStore) -> None:
    for overwrite in (False, True):
        with pytest.raises(Exists):
            add(store, BOB, "Anna", overwrite=overwrite)
        assert not await library._is_free(BOB, "Anna", overwrite)
    assert store.get("anna").owner == "alice"
    assert await library._is_free(ALICE, "anna", True)
    assert add(store, ALICE, "anna", overwrite=True).owner == "alice"
    assert add(store, OPS, "bert", overwrite=True).owner == "ops"


def test_records_of_before_there_were_owners_are_read(store: VoiceStore) -> None:
    record = store.get("of-old")
    old = record.to_json().replace(b',"owner":null', b"")
    assert old != record.to_json()
    assert VoiceRecord.from_json(old) == record


async def test_previews_are_the_caller_s_own(library: VoiceLibrary, tmp_path: Path) -> None:
    previews = PreviewStore(str(tmp_path))
    mine = previews.add({"description": "low", "ref_text": None, "owner": "alice"}, b"wav")
    decoder: Any = None
    designer = VoiceDesigner(decoder, library, await loaded(), VoiceStoreArgs(url=str(tmp_path)))
    with pytest.raises(NotFound) as caught:
        await designer.keep_preview(BOB, mine, "low", overwrite=True)
    assert str(caught.value) == str(NotFound("preview", mine))
    assert previews.get(mine)[1] == b"wav", "the owner's preview is lost"

"""The library of voices: all stores on one URL see the same voices, each complete or not at all, after any crash."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.errors import Exists, Full, NotFound
from deployments.voices.files import SharedFiles
from deployments.voices.record import VoiceName, VoiceRecord
from deployments.voices.store import VoiceStore
from qwen_tts.errors import InvalidRequest
from tests.deployments.voices.storage import Clock, leaves

FINGERPRINT = "0123abcd"
CROWD = 16


def opened(url: str | Path, cache_bytes: int = 1_000_000) -> VoiceStore:
    return VoiceStore(str(url), cache_bytes=cache_bytes)


def add(store: VoiceStore, name: str = "Alice", tag: str = "one", *, overwrite: bool = False) -> VoiceRecord:
    """Store a voice whose audio, prompt and text all contain `tag`."""
    return store.add(
        name,
        audio=f"audio {tag}".encode(),
        mime_type="audio/wav",
        consent="consent-1",
        ref_text=tag,
        description=None,
        source="upload",
        prompts={FINGERPRINT: f"prompt {tag}".encode()},
        overwrite=overwrite,
    )


def tag_of(store: VoiceStore, record: VoiceRecord) -> str:
    """Return the tag of a voice, and check that its audio, prompt and text have the same one."""
    audio, prompt = store.audio(record), store.prompt(record, FINGERPRINT)
    assert audio == f"audio {record.ref_text}".encode()
    assert prompt == f"prompt {record.ref_text}".encode()
    assert record.audio_bytes == len(audio)
    return str(record.ref_text)


# Names

BAD_NAMES = {
    "empty": "",
    "parent": "..",
    "leading dot": ".hidden",
    "leading dash": "-rf",
    "slash": "a/b",
    "backslash": "a\\b",
    "NUL": "a\0b",
    "space": "a b",
    "65 characters": "a" * 65,
    "trailing newline": "alice\n",
    "Cyrillic": "\u0430lice",
    "full width": "\uff41lice",
    "Kelvin sign": "\u212aate",
    "other digits": "a\u0661",
    "right-to-left override": "a\u202eb",
    "lone surrogate": "a\ud800",
    "a preview's": "preview_" + "0" * 32,
    "a preview's in capitals": "PREVIEW_x",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_bad_names_are_refused_and_touch_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        VoiceName(name).check()
    assert (refusal.value.param, refusal.value.code) == ("name", "invalid_name")
    store = opened(tmp_path / "library")
    with pytest.raises(InvalidRequest):
        add(store, name)
    for look in (store.get, store.delete):
        with pytest.raises(NotFound):
            look(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "7", "a..b", "A_b-c.d", "x" * 64, "previews"])
def test_good_names(name: str, url: str) -> None:
    store = opened(url)
    add(store, name)
    assert [record.name for record in store.list()] == [name]


@pytest.mark.parametrize("part", ["", "..", "a/b", "ABCD", "abcd\n", "xyz"])
def test_fingerprints_and_upload_ids_are_lowercase_hex(part: str, url: str) -> None:
    store = opened(url)
    record = add(store)
    with pytest.raises(ValueError, match="hex"):
        store.prompt(record, part)
    with pytest.raises(ValueError, match="hex"):
        store.add_prompt(record, part, b"")
    with pytest.raises(ValueError, match="hex"):
        VoiceRecord("Alice", 0, part, "audio/wav", 0, "", None, None, "upload")


@pytest.mark.parametrize("error", [Exists("Alice"), NotFound("voice", "Alice"), Full("voice", 3)])
def test_errors_survive_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))


# One store beside another


def test_an_empty_library(url: str) -> None:
    assert opened(url).names() == ()
    store = opened(url)
    assert store.list() == []
    with pytest.raises(NotFound):
        store.get("Alice")


def test_all_that_one_store_does_is_seen_by_another_at_once(url: str) -> None:
    here, there = opened(url), opened(url)
    record = add(here, "Bob")
    add(here, "Alice")
    assert there.get("bOB") == record, "names differ by case"
    assert [voice.name for voice in there.list()] == ["Alice", "Bob"]
    assert tag_of(there, record) == "one"
    here.delete("BOB")
    assert [voice.name for voice in there.list()] == ["Alice"]
    with pytest.raises(NotFound):
        there.get("Bob")
    with pytest.raises(NotFound):
        there.delete("Bob")
    assert len(leaves(url, "content")) == 1, "the content of a deleted voice is left"


def test_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    add(opened("~/library"))
    assert (tmp_path / "library/voices/alice.json").exists()


def test_a_taken_name(url: str) -> None:
    store = opened(url)
    add(store, "Alice")
    with pytest.raises(Exists):
        add(store, "ALICE", "two")
    assert tag_of(store, store.get("alice")) == "one"
    add(store, "ALICE", "two", overwrite=True)
    assert [(voice.name, tag_of(store, voice)) for voice in store.list()] == [("ALICE", "two")]
    assert len(leaves(url, "content")) == 1, "the replaced content is left"


def test_a_full_library_takes_replacements_only(url: str) -> None:
    store = VoiceStore(url, cache_bytes=0, max_voices=1)
    add(store, "Alice")
    with pytest.raises(Full):
        add(store, "Bob", overwrite=True)
    add(store, "Alice", "two", overwrite=True)
    store.delete("Alice")
    add(store, "Bob")


def test_what_was_read_of_a_replaced_voice_is_never_of_its_successor(url: str) -> None:
    store = opened(url)
    old = add(store)
    new = add(opened(url), tag="two", overwrite=True)
    for read in (store.audio, lambda record: store.prompt(record, FINGERPRINT)):
        with pytest.raises(NotFound):
            read(old)
    assert tag_of(store, new) == "two"


def test_a_voice_whose_content_was_lost(url: str) -> None:
    store = opened(url)
    SharedFiles(url).discard(f"content/{add(store).upload_id}")
    with pytest.raises(NotFound):
        store.read("Alice", store.audio)


def test_reading_begins_again_when_the_voice_is_replaced_meanwhile(url: str) -> None:
    store = opened(url)
    add(store)
    seen = []

    def use(record: VoiceRecord) -> str:
        seen.append(record.ref_text)
        if len(seen) == 1:
            add(opened(url), tag="two", overwrite=True)
        return tag_of(store, record)

    assert store.read("Alice", use) == "two"
    assert seen == ["one", "two"]


# Prompts


def test_prompts_of_further_models(url: str) -> None:
    store, other = opened(url), opened(url)
    record = add(store)
    assert other.prompt(record, "beef") is None
    store.add_prompt(record, "beef", b"of the other model")
    assert other.prompt(record, "beef") == b"of the other model"


def test_a_prompt_for_a_voice_that_is_gone_leaves_nothing(url: str) -> None:
    store = opened(url)
    deleted, replaced = add(store, "Alice"), add(store, "Bob")
    store.delete("Alice")
    current = add(store, "Bob", "two", overwrite=True)
    for record in (deleted, replaced):
        with pytest.raises(NotFound):
            store.add_prompt(record, "beef", b"late")
        with pytest.raises(NotFound):
            store.prompt(record, "beef")
    assert leaves(url, "content") == {current.upload_id}


def test_a_cached_prompt_does_not_keep_a_deleted_voice(url: str) -> None:
    store = opened(url)
    assert store.prompt(add(store), FINGERPRINT) == b"prompt one"
    opened(url).delete("Alice")
    with pytest.raises(NotFound):
        store.get("Alice")


def test_the_prompts_used_last_are_kept(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = opened(url)
    voices = {tag: add(writer, tag, tag) for tag in "abc"}
    writer.add_prompt(voices["a"], "beef", b"much too large" * 10)
    store = opened(url, cache_bytes=2 * len("prompt a"))
    reads: Counter[str] = Counter()
    read = SharedFiles.read

    def counting(files: SharedFiles, path: str) -> bytes:
        reads[path] += 1
        return read(files, path)

    monkeypatch.setattr(SharedFiles, "read", counting)
    for tag in "abacbacc":
        assert store.prompt(voices[tag], FINGERPRINT) == f"prompt {tag}".encode()
        assert store.prompt(voices["a"], "beef")
    counts = {tag: reads[f"content/{voices[tag].upload_id}/{FINGERPRINT}.safetensors"] for tag in "abc"}
    #       a b a c b a c c     cached after each: a, ab, ba, ac, cb, ba, ac, ac
    assert counts == {"a": 2, "b": 2, "c": 2}
    assert reads[f"content/{voices['a'].upload_id}/beef.safetensors"] == 8, "a prompt larger than the cache was cached"


# Interruptions


def test_an_exclusive_write_leaves_what_is_there(url: str) -> None:
    files = SharedFiles(url)
    files.put("folder/file", b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        files.put("folder/file", b"second", exclusive=True)
    assert files.read("folder/file") == b"first"
    files.put("folder/file", b"third")
    assert files.read("folder/file") == b"third"
    assert files.names("folder") == ["file"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_write_that_fails(failing: int, overwrite: bool, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(url)
    before = [add(store)] if overwrite else []
    put, calls = SharedFiles.put, iter(range(1, 4))

    def fragile(files: SharedFiles, path: str, data: bytes, *, exclusive: bool = False) -> None:
        if next(calls) == failing:
            raise OSError("no space left")
        put(files, path, data, exclusive=exclusive)

    with monkeypatch.context() as patch:
        patch.setattr(SharedFiles, "put", fragile)
        with pytest.raises(OSError, match="no space left"):
            add(store, tag="two", overwrite=overwrite)
    assert store.list() == before
    assert leaves(url, "content") == {record.upload_id for record in before}
    add(store, tag="three", overwrite=overwrite)
    assert tag_of(store, store.get("Alice")) == "three"


@pytest.mark.parametrize("error", [FileExistsError("refused because of itself"), TimeoutError("no answer")])
def test_a_record_whose_answer_was_lost_is_stored(error: OSError, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put = SharedFiles.put

    def deaf(files: SharedFiles, path: str, data: bytes, *, exclusive: bool = False) -> None:
        put(files, path, data, exclusive=exclusive)
        if path.startswith("voices/"):
            raise error

    monkeypatch.setattr(SharedFiles, "put", deaf)
    store = opened(url)
    assert tag_of(store, add(store)) == "one"
    assert tag_of(store, store.get("Alice")) == "one"


@pytest.mark.parametrize("failing", range(1, 10))
def test_every_failing_fsync(failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, calls = os.fsync, iter(range(1, 100))

    def fragile(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError("input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fragile)
    store = opened(tmp_path)
    if failing < 8:
        with pytest.raises(OSError, match="input/output"):
            add(store)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        add(store)
    else:
        add(store)  # the record was visible by then
    assert tag_of(store, store.get("Alice")) == "one"


DIES = """
import itertools, os, sys
from tests.deployments.voices.test_store import add, opened
calls, fsync = itertools.count(1), os.fsync
os.fsync = lambda descriptor: os._exit(9) if next(calls) == int(sys.argv[2]) else fsync(descriptor)
add(opened(sys.argv[1]), tag="of the dead")
"""


@pytest.mark.parametrize("at", [1, 4, 7, 8])
def test_a_writer_that_dies(at: int, tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIES, str(tmp_path), str(at)]).returncode == 9
    assert len(list(tmp_path.rglob(".*.tmp"))) == (1 if at < 8 else 0)
    store = opened(tmp_path)
    if at < 8:
        assert store.list() == []
        with pytest.raises(NotFound):
            store.get("Alice")
        add(store)
    else:
        assert [tag_of(store, record) for record in store.list()] == ["of the dead"]
        add(store, overwrite=True)
    assert [tag_of(store, record) for record in store.list()] == ["one"]


def garbage() -> dict[str, bytes]:
    good = VoiceRecord("Alice", 0, "ab" * 16, "audio/wav", 0, "", None, None, "upload").to_json()
    return {
        "empty": b"",
        "cut short": good[:-9],
        "null": b"null",
        "not text": b"\xff\xfe\0",
        "nested": b"[" * 100_000,
        "of another voice": good.replace(b"Alice", b"Bob"),
        "a bad name": good.replace(b"Alice", b"../a"),
        "a bad upload id": good.replace(b"ab" * 16, b"../../etc"),
        "a bad type": good.replace(b'"audio_bytes":0', b'"audio_bytes":"0"'),
        "a bad source": good.replace(b'"upload"', b'"theft"'),
    }


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("data", garbage().values(), ids=garbage().keys())
def test_a_malformed_record_is_passed_over_and_replaced(data: bytes, overwrite: bool, url: str) -> None:
    store, files = opened(url), SharedFiles(url)
    add(store, "Carol")
    files.put("voices/alice.json", data)
    for stray in (".alice.json.0123.tmp", "notes.txt", "Not a voice.json", "UPPER.json"):
        files.put(f"voices/{stray}", b"stray")
    assert [record.name for record in store.list()] == ["Carol"]
    with pytest.raises(NotFound):
        store.get("Alice")
    add(store, overwrite=overwrite)
    assert [tag_of(store, record) for record in store.list()] == ["one", "one"]


def test_records_of_a_newer_release_can_be_read() -> None:
    record = VoiceRecord("Alice", 7, "ab" * 16, "audio/wav", 5, "consent-1", "text \u4f60", "a voice", "design")
    assert VoiceRecord.from_json(record.to_json()) == record
    assert VoiceRecord.from_json(record.to_json().replace(b"{", b'{"mood":"warm",', 1)) == record


def test_a_record_replaced_while_it_is_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(url)
    record = add(store)
    read, cuts = SharedFiles.read, iter([10])
    monkeypatch.setattr(SharedFiles, "read", lambda files, path: read(files, path)[: next(cuts, None)])
    assert store.get("Alice") == record


def test_errors_of_storage_pass_through(tmp_path: Path) -> None:
    store = opened(tmp_path)
    (tmp_path / "voices/alice.json").mkdir(parents=True)
    for look in (store.list, lambda: store.get("Alice"), lambda: add(store)):
        with pytest.raises(IsADirectoryError):
            look()


# Writers at the same time (directories only: memory:// does not create exclusively)


def contend(url: str, number: int, overwrite: bool) -> bool:
    try:
        add(opened(url), "Alice", str(number), overwrite=overwrite)
    except Exists:
        return False
    return True


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_adding_one_voice_together(overwrite: bool, processes: bool, tmp_path: Path) -> None:
    url, count = str(tmp_path), 4 if processes else CROWD
    with (
        ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
        if processes
        else ThreadPoolExecutor(count) as pool
    ):
        outcomes = list(pool.map(contend, [url] * CROWD, range(CROWD), [overwrite] * CROWD))
    assert outcomes.count(True) == (CROWD if overwrite else 1)
    store = opened(url)
    (record,) = store.list()
    tag = tag_of(store, record)
    if not overwrite:
        assert outcomes.index(True) == int(tag)
        assert leaves(url, "content") == {record.upload_id}, "a refused writer left its content"


def test_readers_of_a_voice_that_is_replaced_all_the_time(tmp_path: Path) -> None:
    add(opened(tmp_path), tag="0")
    over = threading.Event()

    def replace() -> None:
        store = opened(tmp_path)
        try:
            for number in range(1, 101):
                add(store, tag=str(number), overwrite=True)
        finally:
            over.set()

    def read() -> list[int]:
        store, tags, last = opened(tmp_path, cache_bytes=40), [], False
        while not last:
            last = over.is_set()
            tags.append(int(store.read("Alice", lambda record: tag_of(store, record))))
            assert len(store.list()) == 1
        return tags

    with ThreadPoolExecutor(5) as pool:
        writer, *readers = [pool.submit(replace), *(pool.submit(read) for _ in range(4))]
        writer.result()
        for reader in readers:
            tags = reader.result()
            assert tags == sorted(tags), "a reader saw an older voice after a newer one"
            assert tags[-1] == 100, "a read after the last replacement missed it"
    assert len(leaves(tmp_path, "content")) == 1


# Content that is removed after a time


def orphan(url: str, clock: Clock, age_s: float) -> str:
    """Write content that no record names, as a writer that died leaves it."""
    upload_id = f"{int(clock.now_s - age_s):08x}{uuid.uuid4().hex[:24]}"
    SharedFiles(url).put(f"content/{upload_id}/audio", b"left behind")
    return upload_id


@pytest.mark.parametrize("malformed", [False, True])
def test_content_that_nobody_names_is_swept_away_when_it_is_old(
    url: str, malformed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, store = Clock(monkeypatch), opened(url)
    add(store, "old")
    add(store, "kept")
    clock.now_s += 7200
    old, fresh = orphan(url, clock, age_s=3700), orphan(url, clock, age_s=60)
    SharedFiles(url).put("content/notes/by-hand", b"somebody else's")
    if malformed:
        SharedFiles(url).put("voices/bob.json", b"{}")
    store.delete("old")
    kept = {record.upload_id for record in store.list()} | {fresh, "notes"}
    assert leaves(url, "content") == (kept | {old} if malformed else kept)
    assert tag_of(store, store.get("kept")) == "one"

    another = orphan(url, clock, age_s=3700)
    add(store, "carol")
    assert another in leaves(url, "content"), "a sweep runs at every add"
    clock.now_s += 601
    add(store, "dave")
    assert (another in leaves(url, "content")) is malformed

"""API keys: the contents of the file, the caller of a header, and the limits of a key."""

import logging
import os
import threading
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from deployments.access import api_keys
from deployments.access.api_keys import ApiKeys
from deployments.access.caller import EVERYONE, Caller
from deployments.access.key_file import KeyFileError, hash_key, new_key, read_keys
from deployments.access.limits import CallerLimits
from deployments.commands.main import main
from deployments.errors import Refusal, refusal_of
from deployments.http.errors import error_response
from qwen_tts.errors import InvalidRequest, Overloaded

HASH = hash_key("alice's key")


def write(file: Path, *keys: dict[str, object]) -> Path:
    """Replace the whole file by one with another inode, as Kubernetes replaces a mounted Secret."""
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump(list(keys)))
    os.replace(new, file)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.yaml", {"name": "alice", "hash": HASH}, {"name": "bob", "hash": hash_key("bob's")})


def refusal(keys: ApiKeys, headers: dict[str, str]) -> Refusal:
    with pytest.raises(InvalidRequest) as caught:
        keys.authenticate(headers)
    refused = refusal_of(caught.value)
    assert (refused.status, refused.type, refused.code) == (401, "invalid_request_error", "invalid_api_key")
    assert error_response(refused).headers["WWW-Authenticate"] == "Bearer"
    return refused


def test_what_create_prints_lets_its_key_in(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys = {}
    for name in ("alice", "bob"):
        result = CliRunner().invoke(main, ["api-key", "create", name])
        assert result.exit_code == 0
        with file.open("a") as entries:
            entries.write(result.stdout)
        keys[name] = result.stderr.split()[-1]
        assert keys[name] not in result.stdout
    assert len(set(keys.values())) == 2
    assert [key.name for key in read_keys(file)] == ["alice", "bob"]
    for name, key in keys.items():
        assert ApiKeys(file).authenticate({"authorization": f"Bearer {key}"}) == Caller(name, all_voices=False)


def test_create_refuses_a_name_the_file_could_not_hold() -> None:
    result = CliRunner().invoke(main, ["api-key", "create", "a b"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "ASCII letters" in result.stderr


def test_keys_are_long_and_never_the_same() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 43 and key.isascii() and key.isprintable() for key in keys)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer alice's key"},
        {"authorization": "bearer  alice's key "},
        {"xi-api-key": "alice's key"},
        {"authorization": "Basic YTpi", "xi-api-key": "alice's key"},
    ],
)
def test_either_header_will_do(file: Path, headers: dict[str, str]) -> None:
    assert ApiKeys(file).authenticate(headers).name == "alice"


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({}, "missing"),
        ({"authorization": "Bearer"}, "missing"),
        ({"authorization": "Basic YTpi"}, "missing"),
        ({"xi-api-key": ""}, "missing"),
        ({"authorization": "Bearer alice"}, "not known"),
        ({"authorization": f"Bearer {HASH}"}, "not known"),
        ({"authorization": "Bearer alice's kéy"}, "not known"),
        ({"xi-api-key": "x" * 60_000}, "not known"),
        ({"authorization": "Bearer wrong", "xi-api-key": "alice's key"}, "not known"),
    ],
)
def test_nothing_else_will(file: Path, headers: dict[str, str], word: str) -> None:
    refused = refusal(ApiKeys(file), headers)
    assert word in refused.message
    assert "wrong" not in refused.message, "the message repeats the key that was sent"


def test_without_a_file_everyone_is_welcome_and_an_empty_one_lets_nobody_in(tmp_path: Path) -> None:
    assert ApiKeys(None).authenticate({}) is EVERYONE
    assert "open to everyone" in ApiKeys(None).describe()
    empty = tmp_path / "keys.yaml"
    empty.write_text("")
    refusal(ApiKeys(empty), {"authorization": "Bearer x"})


def test_limits_and_voices_come_from_the_file(tmp_path: Path) -> None:
    entry: dict[str, object] = {"name": "ops", "hash": HASH, "max_concurrent": 2, "requests_per_minute": 5}
    file = write(tmp_path / "keys.yaml", entry | {"voices": "all"})
    caller = ApiKeys(file).authenticate({"xi-api-key": "alice's key"})
    assert caller == Caller("ops", True, 2, 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {name: a", ["not YAML", "line"]),
        ("name: a", ["not a list"]),
        ("- {name: a}", ["0.hash", "required"]),
        (f'- {{name: a, hash: "{HASH}", max_concurent: 1}}', ["0.max_concurent", "not permitted"]),
        (f'- {{name: a, hash: "{HASH}", max_concurrent: 0}}', ["0.max_concurrent", "greater"]),
        (f'- {{name: a, hash: "{HASH}", voices: some}}', ["0.voices", "'own' or 'all'"]),
        ('- {name: a, hash: "qtts-a-key-in-the-clear"}', ["0.hash"]),
        (f'- {{name: "a b", hash: "{HASH}"}}', ["0.name"]),
        (f'- {{name: a, hash: "{HASH}"}}\n- {{name: a, hash: "{hash_key("b")}"}}', ["names a twice"]),
        (f'- {{name: a, hash: "{HASH}"}}\n- {{name: b, hash: "{HASH}"}}', ["the key of another entry"]),
        ("\x00", ["not YAML"]),
    ],
)
def test_a_bad_file_is_named_with_its_fault_and_not_quoted(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(KeyFileError) as caught:
        ApiKeys(file)
    for word in (str(file), *words):
        assert word in str(caught.value)
    assert "in-the-clear" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_serve_does_not_start_without_its_keys(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"api_keys: {{file: {tmp_path}/none.yaml}}")
    result = CliRunner().invoke(main, ["serve", "--config", str(settings)])
    assert result.exit_code == 1
    assert result.stderr == f"Error: the API keys in {tmp_path}/none.yaml cannot be read: No such file or directory\n"


def look(keys: ApiKeys) -> None:
    """Look at the file twice: a file that has just changed may still be being written."""
    keys.look()
    keys.look()


def test_a_changed_file_counts_once_it_has_looked_the_same_twice(file: Path) -> None:
    keys = ApiKeys(file)
    write(file, {"name": "carol", "hash": hash_key("carol's")})
    keys.look()
    assert keys.authenticate({"xi-api-key": "alice's key"}).name == "alice", "a file that may be half written was read"
    keys.look()
    assert keys.authenticate({"xi-api-key": "carol's"}).name == "carol"
    refusal(keys, {"xi-api-key": "alice's key"})
    write(file)
    look(keys)
    refusal(keys, {"xi-api-key": "carol's"})


def test_the_beginning_of_a_file_drops_no_keys(file: Path) -> None:
    """The first half of a YAML list of one-line entries is a YAML list too."""
    keys, text = ApiKeys(file), file.read_text()
    file.write_text(text[: text.index("\n") + 1])
    keys.look()
    file.write_text(text)
    look(keys)
    assert keys.authenticate({"xi-api-key": "bob's"}).name == "bob"


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("- {name: a"), Path.unlink])
def test_a_spoiled_file_changes_nothing_and_is_logged_once(
    file: Path, spoil: object, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeys(file)
    assert callable(spoil)
    spoil(file)
    with caplog.at_level(logging.ERROR, "ray.serve"):
        for _ in range(3):
            look(keys)
            assert keys.authenticate({"xi-api-key": "alice's key"}).name == "alice"
    (record,) = caplog.records
    assert "remain in force" in record.getMessage()
    write(file, {"name": "bob", "hash": hash_key("bob's")})
    look(keys)
    refusal(keys, {"xi-api-key": "alice's key"})


def test_a_file_that_no_parser_understands_does_not_end_the_watch(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """YAML's tags raise errors of every kind, such as IndexError for `!!int ""`."""
    monkeypatch.setattr(api_keys, "_LOOK_EVERY_S", 0.001)
    keys, read = ApiKeys(file), threading.Event()

    def noted(path: Path) -> object:
        try:
            return read_keys(path)
        finally:
            read.set()

    monkeypatch.setattr(api_keys, "read_keys", noted)
    file.write_text('- !!int ""')
    keys.watch()
    assert read.wait(60)
    read.clear()
    write(file, {"name": "carol", "hash": hash_key("carol's")})
    assert read.wait(60), "it looks on"
    assert "remain in force" in caplog.text


def test_storage_that_hangs_keeps_no_request_waiting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, looked, go = ApiKeys(file), threading.Event(), threading.Event()

    def hang(path: Path) -> None:
        looked.set()
        go.wait(60)

    monkeypatch.setattr(api_keys, "_stamp", hang)
    keys.watch()
    assert looked.wait(60)
    assert keys.authenticate({"xi-api-key": "alice's key"}).name == "alice"
    go.set()


def test_a_key_has_no_more_under_way_than_its_limit() -> None:
    limits, alice, bob = CallerLimits(), Caller("alice", False, max_concurrent=2), Caller("bob", False)
    with limits.admit(alice):
        with limits.admit(alice):
            with pytest.raises(Overloaded, match="2 requests of this API key are under way"):
                limits.admit(alice).__enter__()
            for _ in range(5):
                limits.admit(bob).__enter__()
        with limits.admit(alice), pytest.raises(Overloaded):
            limits.admit(alice).__enter__()
    with pytest.raises(ZeroDivisionError), limits.admit(alice):
        raise ZeroDivisionError
    with limits.admit(alice), limits.admit(alice):
        pass


def test_a_minute_has_so_many_requests_however_they_fall() -> None:
    now = [1000.0]
    limits, caller = CallerLimits(lambda: now[0]), Caller("alice", False, requests_per_minute=6)
    for _ in range(6):
        limits.count(caller)
    with pytest.raises(Overloaded) as caught:
        limits.count(caller)
    assert caught.value.retry_after_s == pytest.approx(10)
    now[0] += 4
    with pytest.raises(Overloaded) as caught:
        limits.count(caller)
    assert caught.value.retry_after_s == pytest.approx(6)
    now[0] += 6.001
    limits.count(caller)
    with pytest.raises(Overloaded):
        limits.count(caller)
    limits.count(Caller("bob", False, requests_per_minute=6))
    now[0] += 3600
    for _ in range(6):
        limits.count(caller)
    with pytest.raises(Overloaded):
        limits.count(caller)


def test_what_is_refused_for_one_limit_does_not_count_towards_the_other() -> None:
    limits, caller = CallerLimits(lambda: 0.0), Caller("alice", False, max_concurrent=1, requests_per_minute=2)
    with limits.admit(caller):
        for _ in range(5):
            with pytest.raises(Overloaded, match="under way"):
                limits.admit(caller).__enter__()
    with limits.admit(caller):
        pass
    with pytest.raises(Overloaded, match="2 requests a minute"), limits.admit(caller):
        pass


def test_the_open_service_has_no_limits() -> None:
    limits = CallerLimits()
    for _ in range(100):
        limits.admit(EVERYONE).__enter__()

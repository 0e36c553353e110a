"""The file of API keys: a YAML list, made by `qwen-tts api-key create`. It holds hashes, never a key.

- {name: alice, hash: "sha256:...", max_concurrent: 4, requests_per_minute: 60, voices: own}
"""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from deployments.settings import PositiveInt, Settings, describe_faults
from qwen_tts.errors import QwenTTSError

KEY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class KeyFileError(QwenTTSError):
    """The file of API keys cannot be used. The message says where and why, and never quotes the file."""


class ApiKey(Settings):
    """An entry of the file. Uploads with a key belong to its `name`. Its limits hold in each ingress replica.

    A key with `voices: all` also sees, uses and deletes the voices of other keys.
    """

    name: Annotated[str, StringConstraints(pattern=KEY_NAME)]
    hash: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    max_concurrent: PositiveInt | None = None
    requests_per_minute: PositiveInt | None = None
    voices: Literal["own", "all"] = Field("own")


_KEYS = TypeAdapter(tuple[ApiKey, ...])


def new_key() -> str:
    """Return a new key of 256 random bits."""
    return f"qtts-{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    """Return the hash of a key, as the file holds it.

    A fast hash is enough: unlike a password, a key is random and too long to guess.
    """
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file. Raises KeyFileError."""
    try:
        keys = _KEYS.validate_python(yaml.safe_load(file.read_text(encoding="utf-8")) or [])
    except OSError as error:
        raise KeyFileError(f"the API keys in {file} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise KeyFileError(f"{file} is not YAML: {error.problem}{line}") from None
    except ValidationError as error:
        faults = describe_faults(error.errors(include_url=False)).replace("\n", "; ")
        raise KeyFileError(f"{file} is not a list of API keys: {faults}") from None
    except (yaml.YAMLError, ValueError):  # not UTF-8, or characters or dates that YAML does not allow
        raise KeyFileError(f"{file} is not YAML in UTF-8") from None
    names = [key.name for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise KeyFileError(f"{file} names {twice} twice; the names of API keys must differ")
    hashes = [key.hash for key in keys]
    if twice := next((key.name for key in keys if hashes.count(key.hash) > 1), None):
        raise KeyFileError(f"{file} gives {twice} the key of another entry; the keys must differ")
    return keys

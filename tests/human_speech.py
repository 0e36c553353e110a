"""A person reading: five LibriVox clips (public domain) of Debian's package pocketsphinx-testdata, with their words."""

import hashlib
import io
import lzma
import tarfile
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from qwen_tts.audio import decode_audio

_POOL = "http://deb.debian.org/debian/pool/main/p/pocketsphinx"
_PACKAGE = "pocketsphinx-testdata_0.8+5prealpha+1-15_all.deb"  # 1.8 MB
_SHA256 = "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0"
_CACHE = Path("~/.cache/qwen-tts/tests").expanduser()
_CLIPS = "./usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-{}.wav"
_WORDS = {
    "0870": "And Mister John Dashwood had then leisure to consider how much there might be prudently in his power to "
    "do for them.",
    "0880": "He was not an ill-disposed young man.",
    "0890": "Unless to be rather cold-hearted and rather selfish is to be ill-disposed.",
    "0920": "Had he married a more amiable woman, he might have been made still more respectable than he was.",
    "0930": "He might even have been made amiable himself.",
}


@dataclass(frozen=True)
class Reading:
    samples: NDArray[np.float32]  # [S]
    rate_hz: int
    words: str
    wav: bytes


def readings() -> list[Reading]:
    """3 to 7 s each, 16 kHz mono; the calling test is skipped where Debian's archive cannot be reached."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(_member(_package(), b"data.tar.xz")))) as files:
        found = []
        for number, words in _WORDS.items():
            file = files.extractfile(_CLIPS.format(number))
            assert file is not None
            wav = file.read()
            clip = decode_audio(wav)
            found.append(Reading(clip.samples, clip.sample_rate_hz, words, wav))
    return found


def _package() -> bytes:
    cached = _CACHE / _PACKAGE
    if not cached.exists():
        try:
            package = (
                httpx.get(f"{_POOL}/{_PACKAGE.replace('+', '%2b')}", timeout=30.0, follow_redirects=True)
                .raise_for_status()
                .content
            )
        except httpx.HTTPError as error:
            pytest.skip(f"no recordings: {error}")
        _CACHE.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(package)
    package = cached.read_bytes()
    assert hashlib.sha256(package).hexdigest() == _SHA256, f"{cached} is damaged; delete it"
    return package


def _member(archive: bytes, name: bytes) -> bytes:
    """Of an ar archive: a magic of 8 bytes, then for every file a header of 60 and its content, padded to be even."""
    position = 8
    while position < len(archive):
        header = archive[position : position + 60]
        size = int(header[48:58])
        position += 60
        if header[:16].strip().rstrip(b"/") == name:
            return archive[position : position + size]
        position += size + size % 2
    raise AssertionError(f"{name!r} is not in the package")

"""Secrets in Kubernetes' protobuf encoding, in which Helm sends the records of its releases.

Sources: k8s.io/apimachinery/pkg/runtime/generated.proto (Unknown), meta/v1 (ObjectMeta), k8s.io/api/core/v1 (Secret).
"""

import base64
from collections.abc import Iterator

from tests.deployments.commands.cluster.fields import Json

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


def secret(message: bytes) -> Json:
    """Return the Secret with its name, labels, type and data."""
    assert message.startswith(_MAGIC), "not an object of Kubernetes"
    unknown = dict(_fields(message[len(_MAGIC) :]))
    kind = dict(_fields(unknown[1]))[2].decode()
    assert kind == "Secret", f"a {kind} is sent as protobuf"
    fields = list(_fields(unknown[2]))
    metadata: Json = {"labels": {}}
    for number, value in _fields(dict(fields)[1]):
        if number == 1:
            metadata["name"] = value.decode()
        if number == 11:
            label, text = _entry(value)
            metadata["labels"][label] = text.decode()
    data = dict(_entry(value) for number, value in fields if number == 2)
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": metadata,
        "type": dict(fields)[3].decode(),
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def _entry(message: bytes) -> tuple[str, bytes]:
    """Return the key and the value of an entry of a map."""
    both = dict(_fields(message))
    return both[1].decode(), both[2]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of every field that has a length; numbers are skipped."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 2:
            length, at = _varint(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            assert tag & 7 == 0, f"wire type {tag & 7} is in no Secret"
            _, at = _varint(message, at)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, at

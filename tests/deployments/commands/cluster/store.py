"""The objects of a Kubernetes API server, in memory: versions, generations, field ownership, finalizers, history."""

import asyncio
import contextlib
import copy
import itertools
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.deployments.commands.cluster.fields import (
    Json,
    Owner,
    Owners,
    differ,
    leaves,
    managed_fields,
    updated_owners,
    value_at,
    with_values,
    without,
)

Key = tuple[str, str, str]  # plural and group version, namespace, name


@dataclass(frozen=True)
class Kind:
    """A kind of the server. has_status: whether it has a status subresource."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    has_status: bool = False

    def key(self, namespace: str, name: str) -> Key:
        return f"{self.plural}.{self.api_version}", namespace if self.namespaced else "", name


@dataclass(frozen=True)
class Entry:
    body: Json
    owners: Owners


@dataclass(frozen=True)
class Change:
    version: int
    type: str  # ADDED, MODIFIED, DELETED
    kind: Kind
    body: Json


@dataclass
class Refused(Exception):
    """An error answer, with the fields of a Status object."""

    status: int
    reason: str
    message: str
    causes: list[Json] = field(default_factory=list)


# Returns the faults of a body: paths of unknown fields, and messages about the others.
Validate = Callable[[Kind, Json], tuple[list[tuple[str, ...]], list[str]]]


class Store:
    """The store belongs to one event loop. Callers must copy the objects it returns before they change them."""

    def __init__(self, kinds: list[Kind], validate: Validate) -> None:
        self.kinds = kinds
        self.history: list[Change] = []
        self.forgotten = 0  # versions up to this one cannot be watched from any more
        self.version = 100
        self._entries: dict[Key, Entry] = {}
        self._validate = validate
        self._next_change = asyncio.Event()

    async def next_change(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._next_change.wait(), timeout_s)

    def kind(self, name: str) -> Kind:
        return next(kind for kind in self.kinds if kind.kind == name)

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    def get(self, kind: Kind, namespace: str, name: str) -> Json:
        entry = self._entries.get(kind.key(namespace, name))
        if entry is None:
            raise Refused(404, "NotFound", f'{kind.plural} "{name}" not found')
        return entry.body

    def find(self, kind: Kind, namespace: str, labels: str = "", fields: str = "") -> list[Json]:
        prefix = kind.key("", "")[0]
        found = [entry.body for key, entry in self._entries.items() if key[0] == prefix and namespace in ("", key[1])]
        return [body for body in found if matches(body, labels, fields)]

    def create(self, kind: Kind, namespace: str, body: Json, writer: Owner, strict: bool, dry_run: bool) -> Json:
        name = body["metadata"]["name"]
        body = _of_subresource(kind, {}, body, "")
        if kind.key(namespace, name) in self._entries:
            raise Refused(409, "AlreadyExists", f'{kind.plural} "{name}" already exists')
        owners = updated_owners({}, {}, body, writer)
        return self._write(kind, namespace, name, None, body, owners, strict, dry_run)

    def replace(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Json,
        writer: Owner,
        strict: bool = False,
        dry_run: bool = False,
    ) -> Json:
        """Replace the subresource that the writer names, or everything else. Raises Refused for an outdated `body`."""
        old = self.get(kind, namespace, name)
        given = body["metadata"].get("resourceVersion", old["metadata"]["resourceVersion"])
        if given != old["metadata"]["resourceVersion"]:
            raise Refused(
                409, "Conflict", f"{name}: the object has been modified; please apply your changes to the latest"
            )
        entry = self._entries[kind.key(namespace, name)]
        body = _of_subresource(kind, old, body, writer[2])
        owners = updated_owners(entry.owners, old, body, writer)
        return self._write(kind, namespace, name, entry, body, owners, strict, dry_run)

    def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        config: Json,
        manager: str,
        force: bool,
        strict: bool,
        dry_run: bool,
    ) -> Json:
        entry = self._entries.get(kind.key(namespace, name))
        old: Json = (
            entry.body if entry else {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
        )
        owners = dict(entry.owners) if entry else {}
        writer: Owner = (manager, "Apply", "")
        own = leaves({key: value for key, value in config.items() if key != "status" or not kind.has_status})
        disputed = {
            owner: {path for path in paths & own if differ(old, config, path)}
            for owner, paths in owners.items()
            if owner != writer
        }
        if any(disputed.values()) and not force:
            raise _conflict(kind, disputed)
        before = owners.pop(writer, frozenset())
        owners = {owner: paths - disputed[owner] for owner, paths in owners.items()}
        others = frozenset(itertools.chain.from_iterable(owners.values()))
        body = with_values(without(old, before - own - others), config, own)
        owners[writer] = own
        return self._write(kind, namespace, name, entry, body, {o: p for o, p in owners.items() if p}, strict, dry_run)

    def delete(self, kind: Kind, namespace: str, name: str) -> Json:
        """Delete the object at once, or mark it as deleted while it has finalizers."""
        body = copy.deepcopy(self.get(kind, namespace, name))
        entry = self._entries[kind.key(namespace, name)]
        if body["metadata"].get("finalizers"):
            if "deletionTimestamp" not in body["metadata"]:
                body["metadata"]["deletionTimestamp"] = _now()
                self._record(kind, "MODIFIED", kind.key(namespace, name), Entry(body, entry.owners))
            return body
        self._record(kind, "DELETED", kind.key(namespace, name), Entry(body, entry.owners))
        return body

    def changes_after(self, version: int, kind: Kind, namespace: str) -> Iterator[Change]:
        for change in self.history:
            inside = namespace in ("", change.body["metadata"].get("namespace", ""))
            if change.version > version and change.kind == kind and inside:
                yield change

    def _write(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        old: Entry | None,
        body: Json,
        owners: Owners,
        strict: bool,
        dry: bool,
    ) -> Json:
        body = self._admitted(kind, namespace, body, strict)
        metadata = body["metadata"]
        if old and _content(body) == _content(old.body) and owners == old.owners:
            return old.body
        new: Json = {"creationTimestamp": _now(), "uid": str(uuid.uuid4()), "generation": 0}
        before = old.body["metadata"] if old else new
        metadata |= {key: before[key] for key in ("creationTimestamp", "uid")} | {"name": name}
        if "deletionTimestamp" in before:
            metadata["deletionTimestamp"] = before["deletionTimestamp"]
        same = old is not None and _specification(body) == _specification(old.body)
        metadata["generation"] = before["generation"] + (0 if same else 1)
        metadata["managedFields"] = managed_fields(owners, kind.api_version, _now())
        if dry:
            return body | {"metadata": metadata | {"resourceVersion": before.get("resourceVersion", "")}}
        gone = "deletionTimestamp" in metadata and not metadata.get("finalizers")
        type_ = "DELETED" if gone else "MODIFIED" if old else "ADDED"
        return self._record(kind, type_, kind.key(namespace, name), Entry(body, owners))

    def _admitted(self, kind: Kind, namespace: str, body: Json, strict: bool) -> Json:
        body = copy.deepcopy(body)
        if kind.namespaced:
            if not any(found["metadata"]["name"] == namespace for found in self.find(_NAMESPACE, "")):
                raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
            body["metadata"]["namespace"] = namespace
        unknown, invalid = self._validate(kind, body)
        name = body["metadata"]["name"]
        if unknown and strict:
            listed = ", ".join(f'unknown field "{".".join(path)}"' for path in unknown)
            raise Refused(
                400, "BadRequest", f"{kind.kind} in version {kind.api_version!r}: strict decoding error: {listed}"
            )
        if invalid:
            raise Refused(422, "Invalid", f'{kind.kind} "{name}" is invalid: {"; ".join(invalid)}')
        return without(body, unknown)

    def _record(self, kind: Kind, type_: str, key: Key, entry: Entry) -> Json:
        self.version += 1
        entry.body["metadata"]["resourceVersion"] = str(self.version)
        if type_ == "DELETED":
            del self._entries[key]
        else:
            self._entries[key] = entry
        self.history.append(Change(self.version, type_, kind, entry.body))
        self.wake()
        return entry.body

    def wake(self) -> None:
        """Wake up everything that waits for the next change."""
        self._next_change.set()
        self._next_change = asyncio.Event()


_NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)


def matches(body: Json, labels: str, fields: str) -> bool:
    """Match label selectors `a=b`, `a in (b,c)` and field selectors `a.b=c`, joined by commas."""
    own = body["metadata"].get("labels", {})
    for term in re.findall(r"[^,(]+(?:\([^)]*\))?", labels):
        if found := re.fullmatch(r"\s*(\S+) in \((.*)\)", term):
            if own.get(found[1]) not in re.split(r"\s*,\s*", found[2]):
                return False
        elif own.get(term.partition("=")[0].strip()) != term.partition("=")[2].lstrip("=").strip():
            return False
    terms = [term.partition("=") for term in fields.split(",") if term]
    return all(value_at(body, tuple(path.split("."))) == value.lstrip("=") for path, _, value in terms)


def _conflict(kind: Kind, disputed: dict[Owner, set[tuple[str, ...]]]) -> Refused:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{owner[0]}"' + (f" using {kind.api_version}" if owner[1] == "Update" else ""),
            "field": "." + ".".join(path),
        }
        for owner, paths in disputed.items()
        for path in sorted(paths)
    ]
    listed = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
    return Refused(409, "Conflict", f"Apply failed with {len(causes)} conflicts: {listed}", causes)


def _of_subresource(kind: Kind, old: Json, new: Json, subresource: str) -> Json:
    """Return `new`, except for the parts that a write to this subresource cannot change."""
    if subresource == "status":
        return copy.deepcopy(old) | {"status": new.get("status", {})}
    if kind.has_status:
        new = {key: value for key, value in new.items() if key != "status"}
        return new | ({"status": old["status"]} if "status" in old else {})
    return new


def _content(body: Json) -> Json:
    metadata = {
        k: v for k, v in body["metadata"].items() if k not in ("managedFields", "resourceVersion", "generation")
    }
    return body | {"metadata": {k: v for k, v in metadata.items() if k not in ("uid", "creationTimestamp")}}


def _specification(body: Json) -> Json:
    return {key: value for key, value in body.items() if key not in ("metadata", "status")}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

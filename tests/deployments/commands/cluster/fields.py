"""Field ownership of server-side apply: which manager has set which leaf of an object.

A list is owned as a whole, as in custom resources. A real API server merges some lists of built-in kinds by a key; this
one does not. Source: Kubernetes documentation, "Server-Side Apply".
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]
Path = tuple[str, ...]
Owner = tuple[str, str, str]  # manager, Apply or Update, subresource
Owners = dict[Owner, frozenset[Path]]

_ABSENT = object()
_NOT_OWNED = {
    ("apiVersion",),
    ("kind",),
    *(("metadata", name) for name in ("name", "namespace", "uid", "resourceVersion", "generation")),
    *(("metadata", name) for name in ("creationTimestamp", "deletionTimestamp", "managedFields")),
}


def leaves(body: Json) -> frozenset[Path]:
    """Return the paths of all leaves, which can be owned. Empty mappings and all lists are leaves."""
    return frozenset(path for path in _leaves(body, ()) if not any(path[: len(own)] == own for own in _NOT_OWNED))


def _leaves(value: object, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif path:
        yield path


def value_at(body: object, path: Path) -> object:
    """Return the value at `path`, or a mark of absence that equals nothing else."""
    for key in path:
        if not isinstance(body, dict) or key not in body:
            return _ABSENT
        body = body[key]
    return body


def differ(one: Json, other: Json, path: Path) -> bool:
    """Return whether two objects differ at `path`. Two mappings never count as different."""
    values = value_at(one, path), value_at(other, path)
    return values[0] != values[1] and not all(isinstance(value, dict) for value in values)


def with_values(body: Json, source: Json, paths: Iterable[Path]) -> Json:
    """Return a copy of `body` whose leaves at `paths` come from `source`."""
    result = copy.deepcopy(body)
    for path in paths:
        parent = result
        for key in path[:-1]:
            if not isinstance(parent.get(key), dict):
                parent[key] = {}
            parent = parent[key]
        value = value_at(source, path)
        if not (value == {} and isinstance(parent.get(path[-1]), dict)):  # what others have in it stays
            parent[path[-1]] = copy.deepcopy(value)
    return result


def without(body: Json, paths: Iterable[Path]) -> Json:
    """Return a copy of `body` without the leaves at `paths`, and without the mappings that become empty."""
    result = copy.deepcopy(body)
    for path in paths:
        for length in range(len(path), 0, -1):
            parent = value_at(result, path[: length - 1]) if length > 1 else result
            if not isinstance(parent, dict) or path[length - 1] not in parent:
                break
            if length < len(path) and parent[path[length - 1]]:
                break
            del parent[path[length - 1]]
    return result


def merge_patch(body: object, patch: object) -> Any:
    """Return `body` with a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result: Json = copy.deepcopy(body) if isinstance(body, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def updated_owners(owners: Owners, old: Json, new: Json, writer: Owner) -> Owners:
    """Return the owners after a write other than apply: the writer owns what it changed; deleted leaves have none."""
    changed = {path for path in leaves(new) if value_at(old, path) != value_at(new, path)}
    kept = {owner: (paths & leaves(new)) - changed for owner, paths in owners.items()}
    kept[writer] = kept.get(writer, frozenset()) | changed
    return {owner: paths for owner, paths in kept.items() if paths}


def managed_fields(owners: Owners, api_version: str, time: str) -> list[Json]:
    """Return metadata.managedFields; all entries have the same time."""
    entries = []
    for (manager, operation, subresource), paths in sorted(owners.items()):
        tree: Json = {}
        for path in sorted(paths):
            at = tree
            for key in path:
                at = at.setdefault(f"f:{key}", {})
        entry: Json = {"manager": manager, "operation": operation, "apiVersion": api_version, "time": time}
        entry |= {"fieldsType": "FieldsV1", "fieldsV1": tree}
        entries.append(entry | ({"subresource": subresource} if subresource else {}))
    return entries

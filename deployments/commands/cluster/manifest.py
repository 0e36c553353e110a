"""The reader of manifest files: the objects with their first lines, or one error with all faults."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import yaml

from deployments.commands.cluster.errors import BadManifest
from deployments.commands.cluster.objects import Object, RayService

_HOOK = "helm.sh/hook"


@dataclass(frozen=True)
class Document:
    """One object of a file. line: the first line of the object, counted from 1."""

    body: Object
    line: int

    def __post_init__(self) -> None:
        assert self.line >= 1, f"lines count from 1, but this object is in line {self.line}"
        assert self.kind, f"the object in line {self.line} passed the checks without a kind"
        assert self.name, f"the object in line {self.line} passed the checks without a name"

    @property
    def kind(self) -> str:
        return self.body["kind"]

    @property
    def name(self) -> str:
        return self.body["metadata"]["name"]

    @property
    def hook(self) -> str | None:
        """The event that Helm runs this object for (for example `test`), or None. A hook is not part of a release."""
        return (self.body["metadata"].get("annotations") or {}).get(_HOOK)  # an empty `annotations:` is null


class _Loader(yaml.SafeLoader):
    """A YAML loader that, like Kubernetes, keeps a date as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_manifest(text: str, source: str) -> list[Document]:
    """Return the objects of all documents: namespaces first, RayServices last, otherwise in the order of the file.

    source: the name of the file in messages. Raises BadManifest, which lists every fault.
    """
    faults: list[str] = []
    documents: list[Document] = []
    for node, value in _documents(text, source):
        line = node.start_mark.line + 1
        found = [f"{source}:{number}: {fault}" for number, fault in (*_repeated_keys(node), *_faults(value, line))]
        faults += found
        if not found:
            documents.append(Document(cast(Object, value), line))
    faults += _twice(documents, source)
    if faults:
        raise BadManifest("\n".join(faults))
    if not documents:
        raise BadManifest(f"{source} holds no objects")
    return sorted(documents, key=lambda document: {"Namespace": 0, "RayService": 2}.get(document.kind, 1))


def _documents(text: str, source: str) -> Iterator[tuple[yaml.Node, object]]:
    """Yield every document that is not empty. Raises BadManifest if the text is not YAML."""
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            value = loader.construct_document(node)
            if value is not None:
                yield node, value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise BadManifest(f"{source}{where}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise BadManifest(f"{source}: not YAML: {' '.join(str(error).split())}") from None


def _faults(value: object, line: int) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every fault of one object."""
    if not isinstance(value, dict):
        yield line, f"an object is a mapping, but this is a {type(value).__name__}"
        return
    for field in ("apiVersion", "kind"):
        if not _is_text(value.get(field)):
            yield line, f"{field} is missing or is not text"
    metadata = value.get("metadata")
    kind = value.get("kind") or "object"
    if not isinstance(metadata, dict) or not _is_text(metadata.get("name")):
        yield line, f"metadata.name of this {kind} is missing or is not text"
        return
    if not isinstance(metadata.get("namespace", ""), str):
        yield line, f"metadata.namespace of {kind} {metadata['name']} is not text"
    for field in ("labels", "annotations"):
        if not isinstance(metadata.get(field) or {}, dict):
            yield line, f"metadata.{field} of {kind} {metadata['name']} is not a mapping"
    if kind == "RayService" and isinstance(value.get("spec"), dict):
        yield from _serve_config_faults(cast(RayService, value), line)


def _serve_config_faults(service: RayService, line: int) -> Iterator[tuple[int, str]]:
    """Yield faults of serveConfigV2: Kubernetes sees only text there, and Ray would report broken YAML much later."""
    try:
        config = yaml.safe_load(str(service["spec"].get("serveConfigV2", "{}")))
    except yaml.YAMLError as error:
        yield line, f"spec.serveConfigV2 is not YAML: {' '.join(str(error).split())}"
        return
    if not isinstance(config, dict):
        yield line, "spec.serveConfigV2 is not the text of a mapping"


def _repeated_keys(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """Yield keys that appear twice in one mapping: YAML would silently keep the last one."""
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if key.value in keys:
                yield key.start_mark.line + 1, f"{key.value} is given twice"
            keys.add(str(key.value))
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)


def _twice(documents: list[Document], source: str) -> Iterator[str]:
    """Yield a fault for every object that the file holds a second time."""
    seen: dict[tuple[str, str, str], int] = {}
    for document in documents:
        key = (document.kind, document.body["metadata"].get("namespace", ""), document.name)
        first = seen.setdefault(key, document.line)
        if first != document.line:
            yield f"{source}:{document.line}: {document.kind} {document.name} is in line {first} already"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)

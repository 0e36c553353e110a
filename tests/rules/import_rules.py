"""Who may import whom. Judges one source text at a time, so that the rules can be tried on made-up ones."""

import ast
from collections.abc import Iterator

# The modules of qwen_tts, lowest layer first; a name stands for a module or for all modules below it.
# A module imports from its own layer and from lower ones.
LAYERS = (
    ("errors", "config", "voice", "recently_used", "cpus"),
    ("request", "fetch"),
    (
        "text",
        "growing_text",
        "audio",
        "reference_audio",
        "prompt",
        "layers",
        "packed_linear",
        "native",
        "checkpoint",
        "seeded_tokenizer",
        "arguments",
    ),
    ("models", "codec"),
    ("engine", "seeded", "voice_encoder", "voice_clone", "embedded"),
    ("api", "tokenizer", "train"),
    ("evaluation",),
)
# Layers whose members do not know each other.
APART = (3, 4)
NO_TORCH = (
    "qwen_tts.engine.sequence",
    "qwen_tts.engine.scheduler",
    "qwen_tts.engine.pace",
    "qwen_tts.engine.playback",
    "qwen_tts.engine.prefix",
    "qwen_tts.request",
    "qwen_tts.errors",
)
# The rooms of deployments, and the other rooms that each of them may import. There is no circle.
ROOMS: dict[str, frozenset[str]] = {
    "settings": frozenset(),
    "errors": frozenset(),
    "metrics": frozenset(),
    "text": frozenset(),
    "audio": frozenset(),
    "wire": frozenset({"errors"}),
    "replicas": frozenset({"errors", "metrics", "settings", "wire"}),
    "access": frozenset({"errors", "settings"}),
    "voices": frozenset({"errors", "settings", "wire", "access"}),
    "speech": frozenset({"errors", "metrics", "settings", "text", "audio", "wire", "access", "voices"}),
    "http": frozenset({"errors", "settings", "wire", "access", "speech"}),
    "protocols": frozenset({"errors", "settings", "text", "audio", "wire", "access", "voices", "speech", "http"}),
    "ingress": frozenset({"settings", "wire", "speech", "http", "protocols"}),
    "app": frozenset({"settings", "replicas", "ingress"}),
    "commands": frozenset({"settings", "wire", "access", "app"}),
}
# Packages that only some rooms of deployments may import.
ONLY_IN = {
    "torch": frozenset({"replicas"}),
    "fastapi": frozenset({"http", "protocols", "ingress"}),
    "starlette": frozenset({"http", "protocols", "ingress"}),
    "ray.serve.metrics": frozenset({"metrics"}),  # a metric that is not in the table would be in no document
}
NEVER = ("pickle", "cloudpickle", "torch.load")  # nothing is ever unpickled
PROTOCOLS = ("openai", "nari", "omni", "dashscope", "elevenlabs")
NEVER_IN_LIBRARY = ("ray", "fastapi", "starlette", "pydantic", "deployments", "loadtest")
PEER = "loadtest.peer.server"  # a script for another environment, whose qwen_tts is PyPI's
CLUSTER = "deployments.commands.cluster"
NEVER_IN_CLUSTER = ("torch", "ray", "qwen_tts", "deployments")  # it speaks to the Kubernetes API only
ENVIRONMENT = ("os.environ", "os.environb", "os.getenv")
READS_ENVIRONMENT = "deployments.settings"
CPU_COUNTS = ("os.cpu_count", "os.process_cpu_count", "multiprocessing.cpu_count")  # those of the machine
COUNTS_CPUS = "qwen_tts.cpus"


def faults(module: str, source: str) -> list[str]:
    """What `source`, being `module`, does and may not do."""
    found = [f"imports {name}" for name in sorted(imports(source)) if not _may_import(module, name)]
    if "torch.load" in _attributes(source):
        found.append("calls torch.load")
    if module != COUNTS_CPUS:
        found += [f"calls {name}" for name in CPU_COUNTS if name in _attributes(source)]
    if module != READS_ENVIRONMENT and not within(module, "loadtest"):
        found += [f"reads {text}" for text in _environment_reads(source)]
    return found


def imports(source: str) -> set[str]:
    """Every module that `source` names in an import, wherever it stands; `from a import b` names a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _may_import(module: str, name: str) -> bool:
    if any(within(name, banned) for banned in NEVER):
        return False
    if within(module, "loadtest"):
        return (module == PEER or not within(name, "qwen_tts")) and not within(name, "deployments")
    if within(module, CLUSTER):
        return within(name, CLUSTER) or not any(within(name, banned) for banned in NEVER_IN_CLUSTER)
    if within(module, "deployments"):
        return _may_room_import(module, name)
    if not within(module, "qwen_tts"):
        return True
    if any(within(name, banned) for banned in NEVER_IN_LIBRARY):
        return False
    if module in NO_TORCH and within(name, "torch"):
        return False
    return module == "qwen_tts" or _is_downward(module, name)  # the front door opens api on demand


def _may_room_import(module: str, name: str) -> bool:
    own = _room(module)
    assert own is None or own in ROOMS, f"{module} is in no room of ROOMS"
    for package, rooms in ONLY_IN.items():
        if within(name, package):
            return own in rooms
    found = _room(name)
    if own is None or found is None or found == own:
        return not _is_of_another_protocol(module, name)
    return found in ROOMS[own]


def _room(name: str) -> str | None:
    """The room of deployments that a module belongs to; None for other packages and for deployments itself."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "deployments" and rest else None


def _is_of_another_protocol(module: str, name: str) -> bool:
    """Modules of one protocol know no other protocol; modules that lie in protocols itself are shared by all."""
    own, other = module.split(".")[2:3], name.split(".")[2:3]
    return (
        within(name, "deployments.protocols")
        and within(module, "deployments.protocols")
        and other[0:1] != []
        and other[0] in PROTOCOLS
        and own != other
    )


def _is_downward(module: str, name: str) -> bool:
    (own, own_member), found = _place(module) or (None, None), _place(name)
    assert own is not None, f"{module} has no place in LAYERS"
    if found is None:  # another package, or qwen_tts itself
        return True
    layer, member = found
    return layer < own or (layer == own and (own not in APART or member == own_member))


def _place(name: str) -> tuple[int, str] | None:
    """Layer of a name in qwen_tts and the member of the layer it belongs to."""
    places = ((layer, member) for layer, members in enumerate(LAYERS) for member in members)
    return next((place for place in places if within(name, f"qwen_tts.{place[1]}")), None)


def _attributes(source: str) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]


def _environment_reads(source: str) -> Iterator[str]:
    """Uses of the environment; setting a variable for a child process is no read."""
    tree = ast.parse(source)
    set_on = {id(written) for written in map(_written, ast.walk(tree)) if written is not None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ENVIRONMENT and id(node) not in set_on:
            yield ast.unparse(node)
    yield from sorted(imports(source) & set(ENVIRONMENT))


def _written(node: ast.AST) -> ast.expr | None:
    """The x of `x[...] = ...` and of `x.setdefault`."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        return node.value
    return node.value if isinstance(node, ast.Attribute) and node.attr == "setdefault" else None

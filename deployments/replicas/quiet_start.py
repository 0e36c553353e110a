"""Importing at a low priority: a replica that replaces a dead one must not take the time of those that serve."""

import os
import sys
import threading
from contextlib import suppress
from importlib import import_module

_NICENESS = 5  # on top of the niceness of the process


def import_quietly(module: str) -> None:
    """Import `module` in a thread of low priority. An import that fails here is told by the one that follows.

    Only Linux has a priority for each thread, so elsewhere the priority is that of the caller. A process without
    privileges can lower its priority, but not raise it again, so the whole process would stay slow.
    """
    importer = threading.Thread(target=_import, args=(module,), name="import")
    importer.start()
    importer.join()


def _import(module: str) -> None:
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
    with suppress(ImportError):
        import_module(module)

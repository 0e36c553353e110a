"""A replica imports at a low priority, and works at its own priority afterwards."""

import os
import sys
from pathlib import Path

import pytest

from deployments.replicas.quiet_start import import_quietly


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_only_the_import_has_a_low_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_module.py").write_text("import os\nNICENESS = os.getpriority(os.PRIO_PROCESS, 0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    import_quietly("heavy_module")
    seen = sys.modules.pop("heavy_module").NICENESS
    assert seen == min(19, own + 5)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_a_failed_import_is_told_by_the_import_that_follows() -> None:
    import_quietly("no_such_module_exists")

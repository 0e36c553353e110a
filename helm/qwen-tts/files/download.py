"""Download checkpoints of the hub to HF_HOME, each one once: `python download.py OWNER/NAME ...`.

A file in HF_HOME/complete marks a checkpoint that was downloaded completely. A marked checkpoint is not compared with
the hub again, so all replicas load the same weights.
"""

import os
import sys
from pathlib import Path

from qwen_tts.checkpoint import resolve_checkpoint

for name in sys.argv[1:]:
    complete = Path(os.environ["HF_HOME"], "complete", name.replace("/", "--"))
    if not complete.exists():
        directory = resolve_checkpoint(name)
        complete.parent.mkdir(exist_ok=True)
        complete.write_text(f"{directory}\n", encoding="utf-8")
    print(name, "is in", complete.read_text(encoding="utf-8").strip(), flush=True)

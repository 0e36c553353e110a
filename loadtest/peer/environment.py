"""An environment of its own for PyPI's qwen-tts 0.1.1, which pins what we do not: .venv-reference, made when missing.

python -m benchmarks.reference_environment
"""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_NEEDS = ("qwen-tts==0.1.1",)
_ALSO_NEEDS = (
    "transformers==4.57.3",
    "accelerate==1.12.0",
    "librosa",
    "soundfile",
    "sox",
    "einops",
    "onnxruntime",
    # benchmarks/peer.py
    "fastapi",
    "uvicorn",
)


def reference_environment() -> str:
    """Its python, which has our version of torch."""
    directory = Path(".venv-reference")
    python = str(directory / "bin" / "python")
    needs = "\n".join((*_NEEDS, *_ALSO_NEEDS))
    complete = directory / "complete"
    if not complete.exists() or complete.read_text() != needs:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"torch=={version('torch').split('+')[0]}"], check=True)
        # Its own requirements ask for a torchaudio and a gradio that nothing here uses.
        subprocess.run([*pip, "--no-deps", *_NEEDS], check=True)
        subprocess.run([*pip, *_ALSO_NEEDS], check=True)
        complete.write_text(needs)
    return python


if __name__ == "__main__":
    print(reference_environment())

"""The virtual environment of PyPI's qwen-tts 0.1.1, the reference: .venv-reference, created when it is missing.

The reference pins versions that this project does not. To create the environment: python -m loadtest.peer.environment
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
    # server.py beside this file
    "fastapi",
    "uvicorn",
)


# The reference imports torchaudio, for a tokenizer that is not used here. Empty modules take its place.
_EMPTY_MODULES = (
    "torchaudio/__init__.py",
    "torchaudio/compliance/__init__.py",
    "torchaudio/compliance/kaldi.py",
    "torchaudio/transforms/__init__.py",
)


def reference_environment() -> str:
    """Return the path of the environment's python. Its torch has the version of this process's torch."""
    directory = Path(".venv-reference")
    python = str(directory / "bin" / "python")
    needs = "\n".join((*_NEEDS, *_ALSO_NEEDS, *_EMPTY_MODULES))
    complete = directory / "complete"
    if not complete.exists() or complete.read_text() != needs:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"torch=={version('torch').split('+')[0]}"], check=True)
        # The reference's own requirements name a torchaudio and a gradio that nothing here uses.
        subprocess.run([*pip, "--no-deps", *_NEEDS], check=True)
        subprocess.run([*pip, *_ALSO_NEEDS], check=True)
        write_empty_torchaudio(python)
        complete.write_text(needs)
    return python


def write_empty_torchaudio(python: str) -> None:
    """Write empty modules named torchaudio into the environment of `python`."""
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    for module in _EMPTY_MODULES:
        (packages / module).parent.mkdir(parents=True, exist_ok=True)
        (packages / module).touch()


if __name__ == "__main__":
    print(reference_environment())

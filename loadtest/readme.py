"""stub"""

from pathlib import Path


def rewritten(text: str, directory: Path) -> str:
    return text

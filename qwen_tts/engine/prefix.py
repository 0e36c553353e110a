"""The rows at the start of a prompt that other requests have too; what they leave in the KV cache is kept for those.

Every request reads them in pieces of their own, whether they are kept or not: so what a request finds is bit for bit
what it would have computed, and its codes do not depend on who spoke before.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_tts.prompt import PromptLayout
from qwen_tts.recently_used import content_key

# At the released shapes a row takes 229 kB in float32, half of that in 16 bits: the voices of 7 or 14 references of ten
# seconds.
PREFIX_CACHE_BYTES = 64_000_000


@dataclass(frozen=True)
class Prefix:
    """Of a prompt the first `rows` rows are read apart. Prompts with the same `content` begin alike, for at least as
    many rows as any of them reads apart."""

    rows: int
    content: str


def shared_prefix(layout: PromptLayout, prefill_rows: int) -> Prefix | None:
    """What this prompt has in common with others, as far as reading it apart takes no pass more than reading it along:
    whole pieces do, and the piece in which the text begins when the rest still fits into one less. (A pass costs far
    more than a row.) So finding it saves a pass, and who does not find it has lost none."""
    rows = min(layout.shared_rows, len(layout) - 1)  # the last one is always read: the first frame comes of it
    content: list[NDArray[np.generic]] = [layout.text_ids[:rows], layout.codec_ids[:rows]]
    if (prompt := layout.voice_prompt) is not None:
        content.append(prompt.speaker_embedding)
        if prompt.ref_codes is not None:
            content.append(prompt.ref_codes)
    apart, along = (math.ceil(part / prefill_rows) for part in (rows, len(layout)))
    if apart + math.ceil((len(layout) - rows) / prefill_rows) > along:
        rows -= rows % prefill_rows
    return Prefix(rows, content_key(*content)) if rows else None

"""The rows at the start of a prompt that other requests have too. Their keys and values are kept for those requests.

Every request reads its prefix in pieces of its own, whether the prefix was found or not. So the rows that a request
finds are bit for bit those that it would have computed, and its codes do not depend on earlier requests.
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
    """The first `rows` rows of a prompt, which are read apart from the rest.

    Prompts with the same `content` begin alike, for at least as many rows as any of them reads apart.
    """

    rows: int
    content: str


def shared_prefix(layout: PromptLayout, prefill_rows: int) -> Prefix | None:
    """Return the longest cacheable prefix that costs no extra prefill pass, None where there is none.

    A pass reads up to `prefill_rows` rows and costs far more than a row. Full pieces of the shared rows always qualify.
    The partial piece at their end qualifies only if the rest of the prompt then needs one pass less. With passes of 32
    rows, of which the first 40 of the prompt are shared:

        10 more rows: 50 together take 2 passes; 40 and 10 take 2 + 1. The prefix is 32 rows: 32 and 18 take 1 + 1.
        30 more rows: 70 together take 3 passes; 40 and 30 take 2 + 1. The prefix is 40 rows.

    A prefix that is found saves at least one pass; one that is not found costs nothing.
    """
    rows = min(layout.shared_rows, len(layout) - 1)  # the last row is always read: the first frame comes from it
    content = _content(layout, rows)
    passes_together = math.ceil(len(layout) / prefill_rows)
    passes_apart = math.ceil(rows / prefill_rows) + math.ceil((len(layout) - rows) / prefill_rows)
    if passes_apart > passes_together:
        rows -= rows % prefill_rows
    return Prefix(rows, content) if rows else None


def _content(layout: PromptLayout, rows: int) -> str:
    """Return a digest of what the first `rows` rows are made from."""
    arrays: list[NDArray[np.generic]] = [layout.text_ids[:rows], layout.codec_ids[:rows]]
    if (prompt := layout.voice_prompt) is not None:
        arrays.append(prompt.speaker_embedding)
        if prompt.ref_codes is not None:
            arrays.append(prompt.ref_codes)
    return content_key(*arrays)

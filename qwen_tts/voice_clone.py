"""The reference's form of a voice prompt, and the other forms that generate_voice_clone accepts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from qwen_tts.arguments import as_tensor
from qwen_tts.errors import InvalidRequest
from qwen_tts.voice import VoicePrompt


@dataclass
class VoiceClonePromptItem:
    """ref_code [F, G] int64 (None in x-vector mode) and ref_spk_embedding [D] float32, as in the reference's class.

    `icl_mode` is the opposite of `x_vector_only_mode`. `fingerprint`, which the reference lacks, is VoicePrompt's.
    """

    ref_code: Tensor | None
    ref_spk_embedding: Tensor
    x_vector_only_mode: bool
    icl_mode: bool
    ref_text: str | None = None
    fingerprint: str | None = None

    def to_voice_prompt(self) -> VoicePrompt:
        """Convert to a VoicePrompt, which can be saved to a file. Raises InvalidRequest."""
        embedding = as_tensor("ref_spk_embedding", self.ref_spk_embedding).float().numpy().reshape(-1)
        if self.x_vector_only_mode or self.ref_code is None:
            return VoicePrompt(embedding, fingerprint=self.fingerprint)
        codes = as_tensor("ref_code", self.ref_code).numpy()
        return VoicePrompt(embedding, codes, self.ref_text, self.fingerprint)


VoiceClonePrompt = Mapping[str, Sequence[object]] | Sequence[VoiceClonePromptItem | VoicePrompt] | VoicePrompt


def to_item(prompt: VoicePrompt, ref_text: str | None) -> VoiceClonePromptItem:
    icl = prompt.ref_codes is not None
    return VoiceClonePromptItem(
        ref_code=None if prompt.ref_codes is None else torch.from_numpy(prompt.ref_codes).long(),
        ref_spk_embedding=torch.from_numpy(prompt.speaker_embedding),
        x_vector_only_mode=not icl,
        icl_mode=icl,
        ref_text=ref_text,
        fingerprint=prompt.fingerprint,
    )


def to_prompts(given: VoiceClonePrompt | VoiceClonePromptItem) -> list[VoicePrompt]:
    """Convert a list of items, one item, or the reference's dict of lists. Raises InvalidRequest."""
    if isinstance(given, Mapping):
        given = _items(given)
    elif not isinstance(given, Sequence):
        given = [given]
    return [_to_prompt(item) for item in given]


def _to_prompt(item: object) -> VoicePrompt:
    match item:
        case VoicePrompt():
            return item
        case VoiceClonePromptItem():
            return item.to_voice_prompt()
        case _:
            raise InvalidRequest(
                f"voice_clone_prompt holds {type(item).__name__}; give what create_voice_clone_prompt returns",
                "voice_clone_prompt",
                "invalid_value",
            )


def _items(lists: Mapping[str, Sequence[object]]) -> list[VoiceClonePromptItem | VoicePrompt]:
    """Convert a dict of the items' fields as lists. ICL needs ref_text, which the reference's own dict lacks."""
    fields = ("ref_code", "ref_spk_embedding", "x_vector_only_mode", "icl_mode", "ref_text")
    embeddings = lists.get("ref_spk_embedding")
    count = len(embeddings) if isinstance(embeddings, list | tuple) else 0
    columns = [[None] * count if lists.get(name) is None else lists[name] for name in fields]
    if not count or any(not isinstance(column, list | tuple) or len(column) != count for column in columns):
        raise InvalidRequest(
            f"voice_clone_prompt must have lists of one length under {', '.join(fields)}",
            "voice_clone_prompt",
            "invalid_value",
        )
    return [
        VoiceClonePromptItem(
            cast("Tensor | None", code), cast("Tensor", embedding), bool(x_vector), bool(icl), cast("str | None", text)
        )
        for code, embedding, x_vector, icl, text in zip(*columns, strict=True)
    ]

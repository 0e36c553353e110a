"""The pool of decoder states: slots change hands, and nothing of the last stream is heard in the next."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qwen_tts.codec.decoder import CodecDecoder
from qwen_tts.codec.state import DecoderState
from tests.qwen_tts.engine.decoding import TOLERANCE, decode, load_decoder, random_codes


@pytest.fixture(scope="module")
def decoder(custom_voice: Path) -> CodecDecoder:
    return load_decoder(custom_voice)


@torch.inference_mode()
def advance(decoder: CodecDecoder, state: DecoderState, slots: Sequence[int], codes: Tensor) -> Tensor:
    """The next piece of the streams in `slots`: codes [B, F, G] -> samples [B, S]."""
    carry = state.gather(slots)
    samples: Tensor = decoder(codes, carry)
    state.scatter(slots, carry)
    return samples


def lease(state: DecoderState) -> int:
    slot = state.lease()
    assert slot is not None
    return slot


def test_streams_of_different_ages_decode_together_as_alone(decoder: CodecDecoder) -> None:
    """Stream n joins n * 30 frames after the first, so that one slides its window while another begins."""
    state, starts, frames = DecoderState(decoder, 3), [0, 30, 60], 120
    codes = random_codes(frames, streams=3)
    heard: dict[int, list[Tensor]] = {}
    slots: list[int] = []
    for now in range(0, frames + starts[-1], 5):
        if now in starts:
            slots.append(lease(state))
            heard[slots[-1]] = []
        rows = [row for row, start in enumerate(starts) if start <= now < start + frames]
        pieces = torch.stack([codes[row, now - starts[row] : now - starts[row] + 5] for row in rows])
        samples = advance(decoder, state, [slots[row] for row in rows], pieces)
        for row, piece in zip(rows, samples, strict=True):
            heard[slots[row]].append(piece)
    for row, slot in enumerate(slots):
        alone = decode(decoder, codes[row : row + 1])[0]
        torch.testing.assert_close(torch.cat(heard[slot]), alone, atol=TOLERANCE, rtol=0)


def test_a_leased_slot_knows_nothing_of_what_was_there(decoder: CodecDecoder) -> None:
    fresh, used = DecoderState(decoder, 3), DecoderState(decoder, 3)
    for tensor in used.tensors:
        tensor.fill_(1e4 if tensor.is_floating_point() else 50)  # finite garbage; NaN would pass through a mask
    codes = random_codes(10, streams=2)
    slots = [lease(used), lease(used)]
    assert slots == [lease(fresh), lease(fresh)]
    for start in (0, 4):
        piece = codes[:, start : start + 4]
        assert torch.equal(advance(decoder, used, slots, piece), advance(decoder, fresh, slots, piece))


def test_a_stream_leaves_the_other_slots_alone(decoder: CodecDecoder) -> None:
    state = DecoderState(decoder, 3)
    slots = [lease(state) for _ in range(3)]
    for tensor in state.tensors:
        tensor.fill_(7)
    advance(decoder, state, [slots[1]], random_codes(2))
    for tensor in state.tensors:
        assert (tensor[[slots[0], slots[2]]] == 7).all()


def test_every_kept_tensor_moves_with_the_stream(decoder: CodecDecoder) -> None:
    """One that was not scattered would stay zero."""
    state = DecoderState(decoder, 1)
    advance(decoder, state, [lease(state)], random_codes(3))
    assert all(tensor.any() for tensor in state.tensors)


def test_ledger(decoder: CodecDecoder) -> None:
    state = DecoderState(decoder, 2)
    assert state.used == 0
    assert [state.lease(), state.lease(), state.lease()] == [0, 1, None]
    assert state.used == 2
    state.release(1)
    state.release(0)
    assert state.used == 0
    assert state.lease() == 0, "the lowest free slot first"


def test_a_slot_is_released_once_and_by_its_number(decoder: CodecDecoder) -> None:
    state = DecoderState(decoder, 2)
    slot = lease(state)
    state.release(slot)
    with pytest.raises(AssertionError, match="released twice"):
        state.release(slot)
    with pytest.raises(AssertionError):
        state.release(2)


def test_a_slot_is_gathered_once(decoder: CodecDecoder) -> None:
    """The same slot twice in a batch would keep one of the two states."""
    state = DecoderState(decoder, 2)
    with pytest.raises(AssertionError):
        state.gather([0, 0])


def test_a_slot_without_a_stream_is_not_gathered(decoder: CodecDecoder) -> None:
    state = DecoderState(decoder, 2)
    slot = lease(state)
    state.release(slot)
    with pytest.raises(AssertionError, match="not all leased"):
        state.gather([slot])

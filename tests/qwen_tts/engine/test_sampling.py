"""Drawing codes, against the logits processors of transformers' `generate`, and the numbers it draws with."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwen_tts.engine.sampling import SamplingRows, draw, penalise_repetition, uniforms
from qwen_tts.request import MAX_SEED, SamplingParams

VOCABULARY = 40
CPU = torch.device("cpu")


def rows(*params: SamplingParams) -> SamplingRows:
    table = SamplingRows.allocate(len(params), CPU)
    for slot, one in enumerate(params):
        table.set(slot, one)
    return table


def some_logits(seed: int, count: int = 1) -> Tensor:
    """[count, V]: spread wide enough that cuts fall inside, narrow enough that every code can be drawn."""
    return 2.0 * torch.randn((count, VOCABULARY), generator=torch.Generator().manual_seed(seed))


def probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """What `generate` would draw from: [V] float64."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    scores: Tensor = warpers(torch.zeros((1, 0), dtype=torch.int64), logits[None].clone())  # type: ignore[arg-type]
    return scores[0].double().softmax(dim=-1)


def drawn(logits: Tensor, params: SamplingParams, uniform: Tensor) -> list[int]:
    """One draw from `logits` [V] for every number of `uniform`."""
    count = len(uniform)
    codes: list[int] = draw(logits.expand(count, -1), rows(*[params] * count), uniform).tolist()
    return codes


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(1.0, 0, 1.0),
        SamplingParams(0.9, 50, 1.0),  # more than the vocabulary
        SamplingParams(0.9, VOCABULARY, 1.0),
        SamplingParams(0.7, 10, 1.0),
        SamplingParams(1.5, 1, 1.0),
        SamplingParams(1.0, 0, 0.8),
        SamplingParams(0.6, 12, 0.7),
        SamplingParams(2.0, 5, 0.99),
        SamplingParams(1.0, 0, 1e-3),
        SamplingParams(1.0, 65536, 0.5),
    ],
    ids=lambda params: f"T={params.temperature} k={params.top_k} p={params.top_p}",
)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_code_has_the_probability_generate_gives_it(params: SamplingParams, seed: int) -> None:
    """A code is drawn on exactly its own stretch of (0, 1): from just above its lower edge to just below its upper."""
    logits = some_logits(seed)[0]
    expected = probabilities(logits, params)
    upper = expected.cumsum(dim=0)
    survivors = expected.nonzero()[:, 0]
    for inside in (1e-3, 0.5, 1 - 1e-3):
        uniform = (upper - expected * inside)[survivors]
        assert drawn(logits, params, uniform) == survivors.tolist()


@pytest.mark.parametrize("penalty", [1.05, 2.0, 0.5, 1.0])
def test_repetition_penalty_is_that_of_generate(penalty: float) -> None:
    logits, said = some_logits(3)[0], [0, 3, 7, 3, VOCABULARY - 1]
    assert {bool(logit > 0) for logit in logits[said]} == {True, False}, "both signs must be tried"
    seen = torch.zeros((1, VOCABULARY), dtype=torch.bool)
    seen[0, said] = True
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([said]), logits[None].clone())
    assert torch.equal(penalise_repetition(logits[None], seen, torch.tensor([penalty])), expected)


def test_repetition_penalty_is_each_rows_own() -> None:
    logits = torch.tensor([[2.0, -2.0], [2.0, -2.0]])
    seen = torch.tensor([[True, True], [False, True]])
    penalised = penalise_repetition(logits, seen, torch.tensor([2.0, 4.0]))
    assert penalised.tolist() == [[1.0, -4.0], [2.0, -8.0]]


def test_ties_with_the_last_kept_code_stay() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0, 2.0, 2.0, 0.0])
    params = SamplingParams(1.0, 2, 1.0)
    codes = drawn(logits, params, (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    assert set(codes) == {1, 2, 3, 4} == set(probabilities(logits, params).nonzero()[:, 0].tolist())


def test_top_p_keeps_one_code_however_low() -> None:
    logits = some_logits(4)[0]
    uniform = torch.tensor([1e-9, 0.5, 1 - 1e-9], dtype=torch.float64)
    for top_p in (0.0, 1e-6):
        assert set(drawn(logits, SamplingParams(1.0, 0, top_p), uniform)) == {int(logits.argmax())}


def test_temperature_zero_takes_the_most_likely_code() -> None:
    logits = some_logits(5)[0]
    for params in (SamplingParams(0.0), SamplingParams(0.0, 0, 0.5), SamplingParams(0.0, 3, 1.0)):
        uniform = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
        assert set(drawn(logits, params, uniform)) == {int(logits.argmax())}


def test_suppressed_codes_are_never_drawn() -> None:
    """Also not at the ends of the vocabulary, by the smallest and the largest number there is."""
    logits = torch.full((VOCABULARY,), -torch.inf)
    logits[[5, 9]] = torch.tensor([0.3, 0.1])
    ends = torch.tensor([2.0**-54, 1 - 2.0**-53], dtype=torch.float64)
    for params in (SamplingParams(1.0, 0, 1.0), SamplingParams(0.9, 50, 0.95), SamplingParams(0.0)):
        codes = drawn(logits, params, ends)
        assert codes == ([5, 5] if params.temperature == 0 else [5, 9])


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    """Cuts that some rows make and others do not change nothing for either."""
    params = [
        SamplingParams(0.0),
        SamplingParams(1.0, 0, 1.0),
        SamplingParams(0.9, 50, 1.0),
        SamplingParams(0.7, 3, 0.9),
        SamplingParams(1.3, 0, 0.4),
        SamplingParams(2.0, 12, 1.0),
    ]
    logits = some_logits(6, len(params))
    for uniform in torch.rand((50, len(params)), generator=torch.Generator().manual_seed(0), dtype=torch.float64):
        together = draw(logits, rows(*params), uniform)
        alone = [draw(logits[[i]], rows(one), uniform[[i]]) for i, one in enumerate(params)]
        assert together.tolist() == [int(code) for code in alone]


def test_params_are_kept_per_slot() -> None:
    table = rows(SamplingParams(0.5, 7, 0.25), SamplingParams(0.0, 0, 1.0))
    table.set(1, SamplingParams(1.5, 9, 0.5))
    first = dataclasses.asdict(table.first(1))
    assert {name: tensor.tolist() for name, tensor in first.items()} == {
        "temperature": [0.5], "top_k": [7], "top_p": [0.25],
    }  # fmt: skip
    assert table.temperature.tolist() == [0.5, 1.5]


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return float(((counts - expected).square() / expected).sum())


def limit(degrees: int) -> float:
    """Chi-square that chance exceeds once in a thousand (Wilson-Hilferty)."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.0902 * math.sqrt(spread)) ** 3


def test_draws_of_many_frames_follow_the_distribution() -> None:
    params, frames = SamplingParams(0.9, 20, 0.95), 20_000
    logits = some_logits(7)[0]
    uniform = uniforms(torch.full((frames,), 42), torch.arange(frames), 1)[:, 0]
    counts = torch.tensor(drawn(logits, params, uniform)).bincount(minlength=VOCABULARY)
    expected = probabilities(logits, params) * frames
    kept = expected > 0
    assert counts[~kept].sum() == 0
    assert chi_square(counts[kept], expected[kept]) < limit(int(kept.sum()) - 1)


SEEDS = torch.tensor([0, 1, 2, 3, 1 << 32, MAX_SEED - 1, MAX_SEED])


def test_a_number_is_a_function_of_seed_frame_and_group_alone() -> None:
    frames = torch.tensor([0, 1, 7, 0, 4095, 8191, 3])
    whole = uniforms(SEEDS, frames, 16)
    assert (whole.dtype, whole.shape) == (torch.float64, (7, 16))
    for row, (seed, frame) in enumerate(zip(SEEDS, frames, strict=True)):
        alone = uniforms(seed[None], frame[None], 16)[0]
        assert torch.equal(whole[row], alone)
        assert torch.equal(whole[row, :3], uniforms(seed[None], frame[None], 3)[0]), "fewer groups, same numbers"


@pytest.mark.parametrize("axis", ["seeds", "frames", "groups"])
def test_numbers_are_uniform_along_every_axis(axis: str) -> None:
    count, bins = 20_000, 100
    zeros, ordinals = torch.zeros(count, dtype=torch.int64), torch.arange(count)
    match axis:
        case "seeds":
            numbers = uniforms(ordinals, zeros, 1).flatten()
        case "frames":
            numbers = uniforms(zeros, ordinals, 1).flatten()
        case _:
            numbers = uniforms(ordinals[: count // 16], zeros[: count // 16] + 5, 16).flatten()
    assert numbers.min() > 0
    assert numbers.max() < 1
    assert len(set(numbers.tolist())) == len(numbers)
    counts = (numbers * bins).long().bincount(minlength=bins)
    assert chi_square(counts, torch.full((bins,), len(numbers) / bins)) < limit(bins - 1)
    # Neighbours are independent: pairs fill the square as evenly.
    pairs = (numbers[:-1] * 10).long() * 10 + (numbers[1:] * 10).long()
    assert chi_square(pairs.bincount(minlength=100), torch.full((100,), len(pairs) / 100)) < limit(99)


def test_numbers_of_requests_with_drawn_seeds_are_distinct() -> None:
    seeds = torch.randint(0, MAX_SEED, (40,), generator=torch.Generator().manual_seed(0))
    numbers = torch.cat([uniforms(seeds, torch.full((40,), frame), 16) for frame in range(50)])
    assert len(set(numbers.flatten().tolist())) == 40 * 50 * 16


def test_numbers_of_requests_with_small_seeds_are_distinct() -> None:
    """Seed 0 in group 1 of frame 0 is not seed 1 in group 0."""
    numbers = uniforms(torch.arange(16), torch.zeros(16, dtype=torch.int64), 16)
    assert len(set(numbers.flatten().tolist())) == 16 * 16


def test_the_generator_is_splitmix64() -> None:
    """Its published first outputs for the state 1234567, which this seed is mixed into; 52 bits of each are used."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    numbers = uniforms(torch.tensor([4860507420001330595]), torch.tensor([0]), 3)[0]
    assert numbers.tolist() == [((output >> 12) + 0.5) / 2**52 for output in published]


# Seeds whose bits are all ones, in group 0 and in group 1 of frame 0: the largest number there is.
@pytest.mark.parametrize(("group", "seed"), [(0, 7958909827072629976), (1, 6101057530954149123)])
def test_no_seed_draws_outside_the_vocabulary(group: int, seed: int) -> None:
    """Whoever may choose a seed may choose one of these."""
    number = uniforms(torch.tensor([seed]), torch.tensor([0]), 2)[0, group]
    assert number == 1 - 2.0**-53
    for attempt in range(200):  # sums round differently for every distribution
        logits = some_logits(attempt)[0]
        assert drawn(logits, SamplingParams(1.0, 0, 1.0), number[None]) == [VOCABULARY - 1]

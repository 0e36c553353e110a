"""Scores of speech: what was recognised, compared with what was to be spoken."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from qwen_tts.audio import load_audio
from qwen_tts.evaluation import RATE_HZ
from qwen_tts.evaluation.cases import Case
from qwen_tts.evaluation.judge import MosJudge, VoiceJudge
from qwen_tts.evaluation.recognise import Recogniser, words
from qwen_tts.evaluation.speakers import Speaker

_CUT_WORDS = 2  # missing words at the end that count as an early end; recognisers drop one by themselves


@dataclass(frozen=True)
class Heard:
    """One case, spoken by one speaker. `cut_words` counts the missing words at the end. Similarity is the cosine to
    the case's reference. `nearest` is the speaker of this run with the nearest voice."""

    case: str
    text: str
    heard: str
    words: int
    errors: int
    cut_words: int
    ended: bool
    duration_s: float
    seconds: float | None
    mos: float
    similarity: float | None
    nearest: str = ""


@dataclass(frozen=True)
class Summary:
    """The scores of one speaker. `wer` is all errors over all words; `rtf` is generation time over duration."""

    speaker: str
    cases: int
    words: int
    wer: float
    perfect: float
    ended: float
    cut_short: float
    right_voice: float | None
    similarity: float | None
    mos: float
    rtf: float | None
    words_per_s: float


def listen(
    speakers: Sequence[Speaker], cases: Sequence[Case], recogniser: Recogniser, *, digits: bool, seed: int
) -> dict[str, list[Heard]]:
    """Let every speaker speak every case, with seeds counted up from `seed`, and score the speech."""
    voices, mos = VoiceJudge(), MosJudge()
    heard: dict[str, list[Heard]] = {}
    embeddings: dict[str, NDArray[np.float32]] = {}
    with tqdm(total=len(speakers) * len(cases), unit="clip") as progress:
        for speaker in speakers:
            progress.set_description(speaker.name)
            rows, found = [], []
            for number, case in enumerate(cases):
                spoken = speaker.speak(case, seed + number)
                found.append(voices.embed(spoken.samples))
                similarity = None
                if case.reference is not None:
                    original = load_audio(str(case.reference)).resampled(RATE_HZ).samples
                    similarity = float(voices.embed(original) @ found[-1])
                text = recogniser.hear(spoken.samples)
                errors, count, cut = word_errors(case.text, text, digits=digits)
                duration_s = len(spoken.samples) / RATE_HZ
                mark = mos.score(spoken.samples)
                rows.append(
                    Heard(
                        case.name, case.text, text, count, errors, cut, spoken.ended, duration_s, spoken.seconds, mark,
                        similarity,
                    )
                )  # fmt: skip
                progress.update()
            heard[speaker.name], embeddings[speaker.name] = rows, np.stack(found)
    return with_nearest(heard, embeddings)


def word_errors(text: str, heard: str, *, digits: bool) -> tuple[int, int, int]:
    """Return the number of errors, of words in the text, and of words missing at its end."""
    wanted, got = words(text, digits=digits), words(heard, digits=digits)
    if not got:
        return len(wanted), len(wanted), len(wanted)
    result = jiwer.process_words(" ".join(wanted), " ".join(got))
    last = result.alignments[0][-1]
    cut = last.ref_end_idx - last.ref_start_idx if last.type == "delete" else 0
    return result.substitutions + result.deletions + result.insertions, len(wanted), cut


def with_nearest(heard: dict[str, list[Heard]], embeddings: dict[str, NDArray[np.float32]]) -> dict[str, list[Heard]]:
    """Fill in `nearest`: the speaker whose other utterances are most similar to the utterance."""
    judged: dict[str, list[Heard]] = {}
    for name, rows in heard.items():
        judged[name] = []
        for index, row in enumerate(rows):
            own = np.delete(embeddings[name], index, axis=0)
            centroids = {**{other: found.mean(axis=0) for other, found in embeddings.items()}, name: own.mean(axis=0)}
            near = {other: float(c @ embeddings[name][index] / np.linalg.norm(c)) for other, c in centroids.items()}
            nearest = max(near, key=lambda other: near[other]) if len(rows) > 1 and len(heard) > 1 else ""
            judged[name].append(Heard(**{**vars(row), "nearest": nearest}))
    return judged


def summarise(speaker: str, rows: Sequence[Heard]) -> Summary:
    timed = [row for row in rows if row.seconds is not None]
    total_words, total_s = sum(row.words for row in rows), sum(row.duration_s for row in rows)
    similar = [row.similarity for row in rows if row.similarity is not None]
    return Summary(
        speaker=speaker,
        cases=len(rows),
        words=total_words,
        wer=sum(row.errors for row in rows) / total_words,
        perfect=float(np.mean([row.errors == 0 for row in rows])),
        ended=float(np.mean([row.ended for row in rows])),
        cut_short=float(np.mean([row.cut_words >= _CUT_WORDS for row in rows])),
        right_voice=float(np.mean([row.nearest == speaker for row in rows])) if rows[0].nearest else None,
        similarity=float(np.mean(similar)) if similar else None,
        mos=float(np.mean([row.mos for row in rows])),
        rtf=sum(row.seconds or 0.0 for row in timed) / sum(row.duration_s for row in timed) if timed else None,
        words_per_s=total_words / total_s,
    )

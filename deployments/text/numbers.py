"""Numbers written as words, for talkers that read digits poorly. A request turns it on with `normalize_text`.

Only whole numbers and decimals are replaced, in the notation of their language. Dates, times, versions, sums of money
and words such as "B2B" stay as they are, because their digits alone do not determine how they are spoken.
"""

import re
import unicodedata

import cn2an
from num2words import num2words

from deployments.text.languages import LANGUAGE_CODES
from qwen_tts.errors import InvalidRequest

# For each language: the characters that may separate thousands, and the decimal point.
_MARKS = {
    "chinese": (",", "."),
    "english": (",", "."),
    "japanese": (",", "."),
    "korean": (",", "."),
    "german": (". \u00a0\u202f", ","),
    "french": (". \u00a0\u202f", ","),
    "russian": (" \u00a0\u202f", ","),
    "portuguese": (". \u00a0\u202f", ","),
    "spanish": (". \u00a0\u202f", ","),
    "italian": (". \u00a0\u202f", ","),
}
assert _MARKS.keys() == LANGUAGE_CODES.keys(), "a language has a code and no marks, or the reverse"
_MOST_DIGITS = 15  # longer numbers are spoken digit by digit, and so are numbers that begin with a zero
_STOPS = frozenset(",.;:!?…\"'、。，；：！？")
_IDEOGRAPHS = 0x2E80  # the first code point of scripts without spaces: their letters may touch a number


def numbers_in_words(text: str, language: str) -> str:
    """Return the text with its numbers in words. Raises InvalidRequest if `language` is not one of the ten."""
    if language.lower() not in _MARKS:
        known = ", ".join(_MARKS)
        message = f"normalize_text does not support the language {language!r}; set language to one of {known}"
        raise InvalidRequest(message, "normalize_text", "language_not_supported")
    code, (thousands, point) = LANGUAGE_CODES[language.lower()], _MARKS[language.lower()]
    inside = "[.,:/'’–−-]" + (r"|(?<=[0-9])[ \u00a0\u202f](?=[0-9]{3}(?![0-9]))" if " " in thousands else "")
    run = re.compile(rf"[-−]?[0-9](?:(?:{inside})*[0-9])*")
    number = re.compile(rf"([-−]?)([0-9]+|[0-9]{{1,3}}(?:[{thousands}][0-9]{{3}})+)(?:[{point}]([0-9]+))?")

    def words(match: re.Match[str]) -> str:
        plain = number.fullmatch(match[0])
        neighbours = text[max(0, match.start() - 1) : match.start()], text[match.end() : match.end() + 1]
        if plain is None or not all(map(_apart, neighbours)):
            return match[0]
        sign, whole, decimals = plain.groups()
        return _spoken(code, sign, re.sub("[^0-9]", "", whole), decimals) or match[0]

    return run.sub(words, text)


def _apart(neighbour: str) -> bool:
    """Return whether `neighbour` (a character, or empty at an end of the text) may stand next to a separate number."""
    return (
        not neighbour
        or neighbour.isspace()
        or neighbour in _STOPS
        or unicodedata.category(neighbour) in ("Ps", "Pe", "Pi", "Pf")
        or (ord(neighbour) >= _IDEOGRAPHS and neighbour.isalpha())
    )


def _spoken(code: str, sign: str, whole: str, decimals: str | None) -> str | None:
    """Return a number in words, or None for a decimal that has too many digits or a leading zero, such as 007.5."""
    assert whole.isdecimal(), f"a number without its marks is {whole!r}"
    if decimals is not None:
        if len(whole + decimals) > _MOST_DIGITS or (whole[0] == "0" and whole != "0"):
            return None
        return _words(code, f"{'-' * bool(sign)}{whole}.{decimals}")
    if len(whole) > _MOST_DIGITS or (whole[0] == "0" and whole != "0"):
        return ("" if code in ("zh", "ja") else " ").join(_words(code, figure) for figure in whole)
    return _words(code, "-" * bool(sign) + whole)


def _words(code: str, number: str) -> str:
    if code == "zh":
        return str(cn2an.an2cn(number))
    return str(num2words(float(number) if "." in number else int(number), lang=code))

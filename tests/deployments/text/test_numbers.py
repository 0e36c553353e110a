"""Numbers become words in ten languages, and everything else stays as it is."""

import pytest

from deployments.text.numbers import numbers_in_words
from qwen_tts.errors import InvalidRequest


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("chinese", "我有3个，12.5公斤，1,234。", "我有三个，十二点五公斤，一千二百三十四。"),
        ("english", "3, 12.5, (1,234).", "three, twelve point five, (one thousand, two hundred and thirty-four)."),
        ("japanese", "3個、12.5と1,234。", "三個、十二点五と千二百三十四。"),
        ("korean", "3개, 12.5, 1,234.", "삼개, 십이 점 오, 천이백삼십사."),
        ("german", "3, 12,5 und 1.234.", "drei, zwölf Komma fünf und eintausendzweihundertvierunddreißig."),
        ("french", "J'ai 3, 12,5 et 1 234.", "J'ai trois, douze virgule cinq et mille deux cent trente-quatre."),
        ("russian", "3, 12,5 и 1 234.", "три, двенадцать целых пять десятых и одна тысяча двести тридцать четыре."),
        ("portuguese", "3, 12,5 e 1.234.", "três, doze vírgula cinco e mil duzentos e trinta e quatro."),
        ("spanish", "3, 12,5 y 1.234.", "tres, doce punto cinco y mil doscientos treinta y cuatro."),
        ("italian", "3, 12,5 e 1.234.", "tre, dodici virgola cinque e milleduecentotrentaquattro."),
    ],
)  # fmt: skip
def test_whole_numbers_and_decimals(language: str, text: str, words: str) -> None:
    assert numbers_in_words(text, language) == words
    assert numbers_in_words(text, language.title()) == words


@pytest.mark.parametrize(
    "text", ["2026-11-26", "26.11.2026", "12:30", "v1.2.3", "B2B", "$5", "5%", "192.168.0.1", "3rd", "1/2"]
)
def test_what_is_no_plain_number_is_left_alone(text: str) -> None:
    for language in ("english", "german", "french"):
        assert numbers_in_words(f"See {text}, please.", language) == f"See {text}, please."


def test_signs_leading_zeros_and_long_numbers() -> None:
    assert numbers_in_words("-7 and 007", "english") == "minus seven and zero zero seven"
    assert numbers_in_words("010", "chinese") == "零一零"
    assert numbers_in_words("1" * 16, "english") == " ".join(["one"] * 16)
    assert numbers_in_words("3.1415926535897932", "english") == "3.1415926535897932"


@pytest.mark.parametrize("language", ["auto", "klingon"])
def test_another_language_is_refused_with_those_there_are(language: str) -> None:
    with pytest.raises(InvalidRequest, match=r"chinese, english, .*, italian") as refused:
        numbers_in_words("1", language)
    assert refused.value.param == "normalize_text"

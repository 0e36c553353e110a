"""The ten languages of the released models, and their ISO 639-1 codes, by which libraries and protocols know them."""

LANGUAGE_CODES = {
    "chinese": "zh",
    "english": "en",
    "japanese": "ja",
    "korean": "ko",
    "german": "de",
    "french": "fr",
    "russian": "ru",
    "portuguese": "pt",
    "spanish": "es",
    "italian": "it",
}

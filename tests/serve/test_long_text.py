"""Text that is longer than one utterance, over a real socket."""

import httpx

from tests.serve.calls import speak, wait_until
from tests.serve.conftest import CUSTOM, Service
from tests.serve.test_speech import wait_until_idle

BOOK = {"input": "Hello there, this is a sentence. " * 100, "voice": "ryan", "seed": 7, "response_format": "pcm"}
TALKER = f"talker-{CUSTOM}"


def test_pieces_are_spoken_at_once_and_leave_room_and_end_with_their_listener(
    service: Service, client: httpx.Client
) -> None:
    with client.stream("POST", "/v1/audio/speech", json=BOOK) as response:
        audio = response.iter_raw()
        next(audio)
        wait_until(lambda: service.load(TALKER).used >= 2, "the next piece is not being spoken")
        speak(client, voice="serena")
        wait_until(lambda: service.load(TALKER).used >= 2, "another listener was not served meanwhile")
    wait_until_idle(service)


def test_numbers_are_spoken_as_words_where_asked(client: httpx.Client) -> None:
    words = speak(client, input="I have forty-two.", voice="ryan", language="english")
    assert speak(client, input="I have 42.", voice="ryan", language="english", normalize_text=True) == words
    assert speak(client, input="I have 42.", voice="ryan", language="english") != words

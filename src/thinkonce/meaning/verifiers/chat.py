"""A chat model as a verifier: any server that speaks OpenAI's `POST /chat/completions`."""

from __future__ import annotations

from thinkonce.meaning.remote.calls import CallError
from thinkonce.meaning.remote.chat import Chat
from thinkonce.meaning.verdict.verifier import Scales, VerifierError

__all__ = ("ChatVerifier", "verifier")

# What a word is taken for until audits say more: a chance of 95 % and of 2 %.
YES, NO = 3.0, -4.0
QUESTION = (
    "Say yes only if one complete and correct answer to the question `stored` is also a complete "
    "and correct answer to the question `asked`: same subject, same numbers, places and times, "
    "same direction, nothing denied that the other affirms. If in doubt, say no."
)


def verifier(url: str, api_key: str = "", timeout: float = 10.0) -> ChatVerifier:
    """Raises ConfigError for a URL without a model."""
    return ChatVerifier(Chat("semantic.verifier", url, api_key, timeout))


class ChatVerifier:
    """A `Verifier`."""

    concurrency = 8  # it waits, others work
    patience = 3.0  # less than a model's answer takes, or nothing is gained

    def __init__(self, chat: Chat) -> None:
        self._chat, self.name = chat, chat.name
        self.scales: Scales = {}

    def logit(self, asked: str, stored: str) -> float:
        try:
            return YES if self._chat.says_yes(QUESTION, {"stored": stored, "asked": asked}) else NO
        except CallError as error:
            raise VerifierError(str(error)) from error

    def close(self) -> None:
        self._chat.close()

"""Which argument of a Python call is the question that may be asked in other words."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from thinkonce.errors import ConfigError
from thinkonce.functions import Function
from thinkonce.protocols.question import BLANK, question_in

__all__ = ("askable", "guessed", "named", "part")

# In this order, where nobody said which it is.
_USUAL = ("messages", "question", "prompt", "query", "message", "text", "input", "q", "body")


def askable(function: Function, ignored: Collection[str] = ()) -> tuple[str, ...]:
    """The parameters that could hold the question: those that count, but a method's object."""
    names = function.names[1:] if function.is_method else function.names
    return tuple(name for name in names if name not in ignored)


def guessed(parameters: Sequence[str]) -> str:
    """The parameter that holds the question, by its name or for want of another; "" if unclear."""
    for name in _USUAL:
        if name in parameters:
            return name
    return parameters[0] if len(parameters) == 1 else ""


def named(wanted: object, parameters: Sequence[str], scope: str) -> str:
    """The parameter that `semantic={"question": wanted}` means; None: guess.

    Raises ConfigError naming the function's parameters.
    """
    name = guessed(parameters) if wanted is None else wanted
    if not isinstance(name, str) or name not in parameters:
        accepts = f'{{"question": NAME}}, NAME one of the parameters of {scope}'
        raise ConfigError("semantic", name or True, f"{accepts}: {', '.join(parameters)}")
    return name


def part(value: object) -> tuple[str, object, bool] | None:
    """The question in `value`, `value` with a blank in its place, and whether tools are in play.

    A text is one; a list of messages, or a request's body, holds one if its last turn is a user's.
    """
    if isinstance(value, str):
        return value, BLANK, False
    is_list = isinstance(value, list)
    body = {"messages": value} if is_list else value
    question = question_in(body) if isinstance(body, dict) else None
    if question is None:
        return None
    rest = question.rest["messages"] if is_list else question.rest
    return question.text, rest, question.tools

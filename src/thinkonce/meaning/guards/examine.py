"""The guards together: every reason why one answer may not serve two questions."""

from __future__ import annotations

from thinkonce.meaning.guards import GUARDS
from thinkonce.meaning.guards.languages import script
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed

__all__ = ("examine",)


def examine(a: Analysed, b: Analysed, *, same_script: bool = False) -> tuple[Veto, ...]:
    """Empty when no guard objects, which permits and does not prove. Symmetric.

    `same_script` refuses simplified against traditional Chinese as well.
    """
    found = [veto for guard in GUARDS if (veto := guard(a, b)) is not None]
    if same_script and (veto := script(a, b)) is not None:
        found.append(veto)
    return tuple(found)

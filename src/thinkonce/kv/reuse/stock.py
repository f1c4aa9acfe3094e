"""A text that says nothing of interest, behind which chunks are encoded.

A chunk encoded at the very beginning has an attention sink in its first tokens and sees nobody;
in a prompt it stands behind other text. Behind some text, whatever it is, its keys and values come
nearer to those it has there: more than by computing its first 16 tokens again. The text is fixed,
so that a chunk's state depends on the chunk alone, and tells nothing of another one. Changing a
letter of it gives all chunks other names.
"""

from __future__ import annotations

__all__ = ("STOCK",)

STOCK = (
    '[{"id": 4117, "name": "garden chair", "price": 39.5, "tags": ["wood", "outdoor"]},\n'
    ' {"id": 4118, "name": "lamp", "price": 18.0, "tags": []}]\n\n'
    "def total(orders):\n"
    "    # Orders that were given back count as nothing.\n"
    "    return sum(order.price for order in orders if not order.returned)\n\n"
    "Anna: Did the parcel come? Ben: Not yet, they said Thursday between 10 and 12. Anna: Then I "
    "will ask the neighbour to take it in.\n\n"
    "| year | visitors | change |\n| 2019 | 12,480 | +3 % |\n| 2020 | 4,915 | -61 % |\n\n"
    "The town library opened in 1962 and was moved twice before it came to the old mill by the "
    "river. It keeps about forty thousand books, a room of maps, and a small collection of "
    "letters that were found in an attic in 1987. On weekdays it is open from nine in the morning "
    "until six in the evening; on Saturdays it closes at noon. In 2004 the roof was repaired, and "
    "two reading rooms were added on the east side, one of them for children. Every autumn the "
    "staff and some neighbours sort what was given during the year, and what is kept twice is "
    "sold for a small sum. The money goes to the school next door.\n\n"
)

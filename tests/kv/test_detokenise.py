"""Text while it arrives: whole characters only, and never a stop text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import make_tokenizer
from transformers import PreTrainedTokenizerFast

from thinkonce.kv.generation.generator import Token
from thinkonce.kv.serving.answers.detokenise import Detokeniser
from thinkonce.kv.serving.answers.transcript import Transcript
from thinkonce.kv.weights.vocabulary import token_bytes

TOKENIZER = make_tokenizer()
TEXTS = st.text(st.characters(blacklist_characters="\ufffd", blacklist_categories=("Cs",)))


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return found


@given(TEXTS)
def test_the_pieces_of_any_text_are_whole_and_make_the_text(text: str) -> None:
    detokeniser = Detokeniser(TOKENIZER)
    pieces = [detokeniser.push(token) for token in ids(text)]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text


@given(st.lists(st.integers(0, 399), max_size=60))
def test_any_tokens_give_what_decoding_them_at_once_gives(tokens: list[int]) -> None:
    detokeniser = Detokeniser(TOKENIZER)
    shown = "".join(detokeniser.push(token) for token in tokens)
    at_once = TOKENIZER.decode(tokens, skip_special_tokens=True)
    assert at_once.startswith(shown)
    assert at_once[len(shown) :] in {"", "\ufffd"}, "only an unfinished last character is missing"


def test_a_character_cut_at_the_end_is_left_out() -> None:
    cut = ids("国\u00a7")[:-1]
    detokeniser = Detokeniser(TOKENIZER)
    assert "".join(detokeniser.push(token) for token in cut) == "国"


def test_a_leading_space_that_depends_on_context_is_kept() -> None:
    """Sentence-piece tokenizers drop the space of whatever is decoded first."""
    pieces = {0: "▁Hello", 1: "▁world", 2: "<0xE5>", 3: "<0x9B>", 4: "<0xBD>"}
    detokeniser = Detokeniser(FirstSpaceDropped(pieces))
    assert [detokeniser.push(token) for token in (0, 1, 2, 3, 4)] == [
        "Hello",
        " world",
        "",
        "",
        "国",
    ]


class FirstSpaceDropped:
    """Decodes as sentence-piece tokenizers with byte fallback do."""

    def __init__(self, pieces: dict[int, str]) -> None:
        self._pieces = pieces

    def convert_ids_to_tokens(self, token: int) -> str | None:
        return self._pieces.get(token)

    def decode(self, tokens: list[int], **options: object) -> str:
        raw = b""
        for token in tokens:
            piece = self._pieces[token]
            is_byte = piece.startswith("<0x")
            raw += bytes([int(piece[3:5], 16)]) if is_byte else piece.replace("▁", " ").encode()
        return raw.decode("utf-8", errors="replace").removeprefix(" ")


@given(TEXTS)
def test_the_bytes_of_tokens_make_the_bytes_of_the_text(text: str) -> None:
    assert b"".join(token_bytes(TOKENIZER, token) for token in ids(text)) == text.encode()


def test_bytes_of_other_vocabularies_are_understood() -> None:
    assert token_bytes(FirstSpaceDropped({7: "<0xE5>"}), 7) == b"\xe5"
    assert token_bytes(TOKENIZER, 10_000) == b"", "a row without a token stands for nothing"


def told(tokens: list[int], stops: list[str]) -> tuple[list[str], list[int], bool]:
    """The pieces given out, the tokens they came with, and whether a stop text was met."""
    transcript = Transcript(Detokeniser(TOKENIZER), stops)
    pieces = []
    for token in tokens:
        pieces.append(transcript.push(Token(token, ends=False)))
        if transcript.stopped:
            break
    else:
        pieces.append(transcript.finish())
    given_out = [token.id for piece in pieces for token in piece.tokens]
    return [piece.text for piece in pieces], given_out, transcript.stopped


def cut_at_the_first_stop(text: str, stops: list[str]) -> str | None:
    """What may be shown: the stop that is complete first ends the text, where it begins."""
    for end in range(1, len(text) + 1):
        begins = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if begins:
            return text[: min(begins)]
    return None


@given(st.text("abc é国", max_size=30), st.lists(st.text("abc é国", min_size=1, max_size=4)))
def test_a_stop_text_is_never_shown_and_nothing_before_it_is_lost(
    text: str, stops: list[str]
) -> None:
    pieces, _, stopped = told(ids(text), stops)
    expected = cut_at_the_first_stop(text, stops)
    assert stopped == (expected is not None)
    assert "".join(pieces) == (text if expected is None else expected)


@given(st.text("ab", max_size=20), st.text("ab", min_size=1, max_size=3))
def test_no_piece_takes_back_what_was_shown(text: str, stop: str) -> None:
    pieces, _, _ = told(ids(text), [stop])
    shown = ""
    for piece in pieces:
        shown += piece
        assert stop not in shown


def test_text_that_cannot_become_a_stop_text_goes_out_at_once() -> None:
    tokens = ids("quick fox")
    pieces, given_out, _ = told(tokens, ["zebra"])
    assert pieces[: len(tokens)] == [TOKENIZER.decode([token]) for token in tokens]
    assert given_out == tokens


def test_tokens_of_the_stop_text_are_not_given_out() -> None:
    before, after = ids("The quick"), ids("\n\nEND")
    pieces, given_out, stopped = told(before + after, ["\n\nEND"])
    assert stopped
    assert "".join(pieces) == "The quick"
    assert given_out == before


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return TOKENIZER


def test_the_example_tokenizer_does_cut_characters(tokenizer: PreTrainedTokenizerFast) -> None:
    assert any("\ufffd" in tokenizer.decode([token]) for token in ids("§"))

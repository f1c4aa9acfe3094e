from __future__ import annotations

import msgspec
import pytest

from thinkonce.meaning.text.gist import Rarity, gist
from thinkonce.meaning.verdict.score import (
    FEATURES,
    Around,
    Score,
    arounds,
    features,
    on_line,
    shipped,
    shipped_path,
)

WORDS = Rarity(1000, {"how": 400, "do": 300, "i": 500, "my": 200, "card": 30})


def compared(asked: str, stored: str, cosine: float = 0.9) -> dict[str, float]:
    values = features(gist(asked), gist(stored), Around(cosine, 0.7, 2), WORDS)
    return dict(zip(FEATURES, values, strict=True))


def test_equal_texts_have_nothing_apart() -> None:
    found = compared("How do I block my card?", "how do i block my card", 1.0)
    assert (found["pairs"], found["triples"], found["contained"], found["length"]) == (1, 1, 1, 1)
    assert (found["apart"], found["rarest"], found["shared"]) == (0, 0, 1)
    assert (found["numbers"], found["negation"], found["asking"]) == (0, 0, 0)
    assert found["margin"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("asked", "stored", "feature"),
    [
        ("flights in 2022", "flights in 2023", "numbers"),
        ("iPhone 15 price", "iPhone price", "numbers"),
        ("can I return it", "can I not return it", "negation"),
        ("why doesn't it start", "why does it start", "negation"),
        ("孕妇可以吃饼干吗", "孕妇不可以吃饼干吗", "negation"),
        ("where is it made", "why is it made", "asking"),
        ("这个怎么用", "这个为什么用", "asking"),
    ],
)
def test_marks_that_part_two_questions_are_seen(asked: str, stored: str, feature: str) -> None:
    assert compared(asked, stored)[feature] == 1.0


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("能不能退货", "能退货吗"),
        ("这两个有什么不同", "这两个有什么差别"),
        ("不错的餐厅", "好的餐厅"),
    ],
)
def test_negatives_that_deny_nothing_are_no_negation(asked: str, stored: str) -> None:
    assert compared(asked, stored)["negation"] == 0.0


def test_a_rare_word_on_one_side_weighs_more_than_a_common_one() -> None:
    rare = compared("my visa card", "my card")
    common = compared("how my card", "my card")
    assert rare["rarest"] > common["rarest"] > 0
    assert rare["shared"] < common["shared"]


@pytest.mark.parametrize("text", ["", " ", "\x00", "？！", "😀😀", "a" * 5000, "\ud800x", "１２３"])
def test_no_text_is_too_odd_to_compare(text: str) -> None:
    for other in (text, "how do I pay", "怎么还款"):
        values = features(gist(text), gist(other), Around(0.5), WORDS)
        assert len(values) == len(FEATURES)
        assert all(abs(value) < 1e6 for value in values)


def test_full_width_digits_are_digits() -> None:
    assert gist("１２３ 元").numbers == gist("123元").numbers == frozenset({"123"})


def test_a_neighbour_is_seen_among_the_others() -> None:
    first, second, third = arounds([0.9, 0.88, 0.5])
    assert (first.runner_up, second.runner_up, third.runner_up) == (0.88, 0.9, 0.9)
    assert first.within_dense == second.within_dense == 2
    assert arounds([0.9])[0].runner_up == 0.0
    assert arounds([]) == []


def test_a_curve_is_straight_between_knots_and_level_beyond() -> None:
    found = [on_line(value, (0.0, 1.0, 3.0), (0.0, 2.0, 1.0)) for value in (-1, 0, 0.5, 1, 2, 9)]
    assert found == [0.0, 0.0, 1.0, 2.0, 1.5, 1.0]


@pytest.fixture(params=["en", "zh"])
def model(request: pytest.FixtureRequest) -> Score:
    found = shipped("use", str(request.param))
    assert found is not None
    return found


def test_a_model_ships_for_each_language_and_is_sound(model: Score) -> None:
    assert len(model.knots) == len(model.heights) == len(FEATURES)
    for knots, heights in zip(model.knots, model.heights, strict=True):
        assert len(knots) == len(heights) >= 2
        assert list(knots) == sorted(set(knots))
    assert 0.0 < model.reject < (model.accept or 1.0)
    assert model.rejected.wrong <= 0.02 * model.rejected.pairs, "few right ones are given up"
    numbers = (
        sum(map(len, model.knots)) + sum(map(len, model.heights)) + 2 * len(model.curve.scores)
    )
    assert numbers < 800


def test_a_nearly_equal_question_is_likelier_the_same_than_a_stranger(model: Score) -> None:
    texts = {
        "en": ("how can i learn english fast", "how can i learn english quickly", "who is she"),
        "zh": ("怎么学好英语", "怎样学好英语", "她是谁"),
    }
    asked, close, far = (gist(text) for text in texts[model.language])
    near = model.opinion(features(asked, close, Around(0.93, 0.6, 1), model.rarity))
    stranger = model.opinion(features(asked, far, Around(0.3, 0.28, 5), model.rarity))
    assert near.chance > 0.5 > stranger.chance
    assert stranger.verdict == "reject"
    assert near.verdict != "reject"
    assert near.logit > 0 > stranger.logit


def test_no_model_ships_for_other_vectors() -> None:
    assert shipped("nobody", "en") is None


def test_a_model_of_other_features_is_refused() -> None:
    fields = msgspec.json.decode(shipped_path("use", "zh").read_bytes())
    fields["features"] = ["cosine"]
    with pytest.raises(msgspec.ValidationError, match="computes"):
        msgspec.convert(fields, Score)

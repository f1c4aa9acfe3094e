"""Numbers, units, dates and times as they are read out of a text."""

from __future__ import annotations

import pytest

from thinkonce.meaning.text.analysis import analyse

AMOUNTS = [
    ("1,500", ("1500", "")),
    ("1.5k", ("1500", "")),
    ("1500", ("1500", "")),
    ("fifteen hundred", ("1500", "")),
    ("two hundred and fifty-three", ("253", "")),
    ("three million", ("3000000", "")),
    ("two dozen", ("24", "")),
    ("2 lakh", ("200000", "")),
    ("3.0", ("3", "")),
    ("3.10", ("3.10", "")),
    ("3.12.1", ("3.12.1", "")),
    ("007", ("007", "")),
    ("3/4", ("3/4", "")),
    ("22nd", ("#22", "")),
    ("third", ("#3", "")),
    ("twice", ("2", "")),
    ("5%", ("5", "percent")),
    ("$20", ("20", "usd")),
    ("20 dollars", ("20", "usd")),
    ("CHF 20", ("20", "chf")),
    ("5kg", ("5", "kg")),
    ("90 km/h", ("90", "kmh")),
    ("ten minutes", ("10", "minute")),
    ("一千五百", ("1500", "")),
    ("一万五", ("15000", "")),
    ("两万三千", ("23000", "")),
    ("三亿", ("300000000", "")),
    ("1.5万", ("15000", "")),
    ("一百零五", ("105", "")),
    ("十二", ("12", "")),
    ("二零二", ("202", "")),
    ("第十三", ("#13", "")),
    ("两个", ("2", "")),
    ("百分之五", ("5", "percent")),
    ("三分之二", ("2/3", "")),
    ("两百块钱", ("200", "cny")),
    ("十公斤", ("10", "kg")),
    ("三个小时", ("3", "hour")),
    ("一个月", ("1", "month")),
    ("38.5度", ("77/2", "degree")),
]

NO_AMOUNT = [
    "一下", "统一", "一直", "万一", "十分好", "千万", "四川", "三星", "百度", "一般", "二手",
    "one should know", "mp3 player", "E1042", "no one else", "1" * 0 + "none",
]  # fmt: skip

DATES = [
    ("2021-03-04", {"y2021", "m3", "d4"}),
    ("2021/3/4", {"y2021", "m3", "d4"}),
    ("2021年3月4日", {"y2021", "m3", "d4"}),
    ("二零二一年三月四号", {"y2021", "m3", "d4"}),
    ("3月", {"m3"}),
    ("5号", {"d5"}),
    ("March 4th", {"m3", "d4"}),
    ("4th of May", {"m5", "d4"}),
    ("May 4", {"m5", "d4"}),
    ("in 2016", {"y2016"}),
    ("in 2000", {"y2000"}),
    ("Rs 2000", set()),
    ("2000 notes", set()),
    ("you may go", set()),
    ("9 am", {"t9:00"}),
    ("12 am", {"t0:00"}),
    ("14:30", {"t14:30"}),
    ("两点半", {"t2:30"}),
    ("下午两点", {"t14:00"}),
    ("晚上8点20分", {"t20:20"}),
    ("Q3", {"quarter 3"}),
    ("下周", {"week 1"}),
    ("大前天", {"day -3"}),
    ("周五", {"w5"}),
    ("the day after tomorrow", {"day 2"}),
    ("三年", set()),
]


@pytest.mark.parametrize(("text", "amount"), AMOUNTS)
def test_a_number_is_read_as_its_value_and_unit(text: str, amount: tuple[str, str]) -> None:
    assert analyse(text).amounts == {amount}


@pytest.mark.parametrize("text", NO_AMOUNT)
def test_what_only_looks_like_a_number_is_none(text: str) -> None:
    assert analyse(text).amounts == frozenset()


@pytest.mark.parametrize(("text", "marks"), DATES)
def test_a_date_is_read_as_marks(text: str, marks: set[str]) -> None:
    assert analyse(text).dates == marks


def test_units_without_numbers_are_noted() -> None:
    assert analyse("miles to kilometers").lone_units == {"mile", "km"}
    assert analyse("美元换英镑").lone_units == {"usd", "gbp"}


@pytest.mark.parametrize(
    ("text", "denials"),
    [
        ("I can't", 1),
        ("not impossible", 2),
        ("can I not only read", 0),
        ("nobody knows", 1),
        ("能不能去", 0),
        ("喜不喜欢", 0),
        ("正常不正常", 0),
        ("收不到短信", 1),
        ("无损音乐", 0),
        ("不得不去", 2),
        ("可以不？", 0),
        ("到了没有", 0),
        ("还没有到", 1),
        ("特别的区别", 0),
        ("无法不去", 2),
        ("无锡的天气", 0),
    ],
)
def test_denials_are_counted_where_they_deny(text: str, denials: int) -> None:
    assert analyse(text).negations == denials


def test_a_number_of_thousands_of_digits_is_kept_as_it_is_written() -> None:
    text = "9" * 4_000
    assert analyse(text).amounts == {(text, "")}

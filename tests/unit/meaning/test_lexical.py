"""Plain forms: what they make one, what they keep apart, and that nothing but dress is lost."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from thinkonce.meaning.text.lexical import FINGERPRINT_BYTES, fingerprint, plain_form
from thinkonce.meaning.text.tokens import simplified, sole_forms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset the router?", "how do I reset the router"),
        ("how do i reset the router", "  How do I  reset the router??\n"),
        ("Hi, please tell me how do I reset the router?", "How do I reset the router"),
        ("Could you please tell me how to bake bread?", "how to bake bread"),
        ("Hello, can dogs eat grapes?", "Can dogs eat grapes"),
        ("Please explain tides, thanks!", "explain tides"),
        ("Why is the sky blue? Thank you!", "Please, why is the sky blue?"),
        ("What's the tallest tree?", "What is the tallest tree?"),
        ("why am I tired when I don’t sleep", "Why am i tired when I do not sleep?"),
        ("Where is cafe\u0301 Aroma?", "Where is caf\u00e9 Aroma?"),
        ("How far is Ｍａｒｓ？", "How far is Mars?"),
        ("My router is dead.", "My router is dead"),
        ("What is 5?", "What is 5"),
        ("限额是多少", "请问限额是多少？"),
        ("您好，请问信用卡怎么办理", "信用卡怎么办理？"),
        ("用 Python 3 怎么读取文件？", "用Python 3怎么读取文件"),
        ("密碼怎麼找回", "密码怎么找回"),
        ("会员怎么退订，谢谢！", "会员怎么退订？"),
        ("我的路由器坏了。", "我的路由器坏了"),
        ("这样能不能退款？", "这样能不能退款"),
    ],
)
def test_the_same_words_in_another_dress_have_one_fingerprint(one: str, other: str) -> None:
    assert plain_form(one) == plain_form(other)
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == FINGERPRINT_BYTES


# By what the second question lost or has changed of the first. Each wants another answer, or may.
OTHERS = {
    "a symbol": [
        ("What is 8 × 4?", "What is 8 ÷ 4?"),
        ("8×4是多少", "8÷4是多少"),
        ("Is 7 ≥ y possible?", "Is 7 ≤ y possible?"),
        ("What does P ∧ Q give?", "What does P ∨ Q give?"),
        ("How much is √81 plus 2?", "How much is 81 plus 2?"),
        ("How much is −9 + 4?", "How much is 9 + 4?"),
        ("Which key has D♯?", "Which key has D♭?"),
        ("How long is 7′ in metres?", "How long is 7″ in metres?"),
        ("Is ♂ a sign for Mars?", "Is ♀ a sign for Mars?"),
    ],
    "an emoji": [
        ("Who sends 🙂 to a boss?", "Who sends 🙃 to a boss?"),
        ("Which country is 🇨🇭?", "Which country is 🇦🇹?"),
        ("别人发🙂怎么办", "别人发🙃怎么办"),
        ("Is 👩🏽 older than ten years?", "Is 👩🏿 older than ten years?"),
        ("Is 👨‍👩‍👧 one picture?", "Is 👨👩👧 one picture?"),
    ],
    "a decimal point": [
        ("How many grams is .4 pounds?", "How many grams is 4 pounds?"),
        ("Is $.75 enough for gum?", "Is $75 enough for gum?"),
        ("What is 1.10 of a mile?", "What is 1.1 of a mile?"),
    ],
    "a superscript": [
        ("How much is 3⁴ plus 1?", "How much is 34 plus 1?"),
        ("4²等于多少", "42等于多少"),
        ("How much is ½ of six?", "How much is 12 of six?"),
        ("Is H₂ a gas?", "Is H2 a gas?"),
    ],
    "a bracket": [
        ("How much is (7+2)*3?", "How much is 7+(2*3)?"),
        ("（7-2）×3等于多少", "7-（2×3）等于多少"),
        ("How much is 6!?", "How much is 6?"),
        ("What is g'(t) for t above one?", "What is g(t) for t above one?"),
        ("How much is |−4| + 1?", "How much is −4 + 1?"),
    ],
    "a sign at an end": [
        ("-3 cubed is what?", "3 cubed is what?"),
        ("What ion is Br-", "What ion is Br"),
        ("What does a programmer want with &", "What does a programmer want with |"),
        ("What is the use of x?", "What is the use of x"),
    ],
    "punctuation": [
        ("What does , do in Haskell?", "What does ; do in Haskell?"),
        ("What is ?? in C#?", "What is !! in C#?"),
        ("Who uses .NET at work?", "Who uses NET at work?"),
        ("what does git diff . show", "what does git diff show"),
        ("what does ls .. list", "what does ls list"),
        ("What is ~/bin for?", "What is /bin for?"),
        ("Is woman, without her man, nothing?", "Is woman: without her, man nothing?"),
        ("Who said let's eat, Grandma?", "Who said let's eat Grandma?"),
        ("；和，怎么用", "：和，怎么用"),
        ("3：2怎么算", "3 2怎么算"),
    ],
    "an end": [
        ("He is at home?", "He is at home."),
        ("你没事？", "你没事。"),
        ("What I want is tea?", "What I want is tea."),
        ("谁都知道？", "谁都知道。"),
        ("Is it five!", "Is it five?"),
        ("What does grep find with ab?", "What does grep find with a b?"),
        ("Which words match the regex ab?", "Which words match the regex ab"),
        ("How much is five factorial, 5!", "How much is five factorial, 5"),
    ],
    "case": [
        ("How toxic is CO?", "How toxic is Co?"),
        ("How many mW are used?", "How many MW are used?"),
        ("How fast is 8 Mb?", "How fast is 8 MB?"),
        ("Who teaches IT to staff?", "Who teaches it to staff?"),
        ("Where do I buy Polish shoe cream?", "Where do I buy polish shoe cream?"),
        ("How do I clean Windows?", "How do I clean windows?"),
        ("Will Power won which race", "will Power won which race"),
        ("Can i be real?", "Can I be real?"),
        ("How do i and j differ?", "How do I and j differ?"),
    ],
    "a small word": [
        ("What is the cloud?", "What is a cloud?"),
        ("When was the queen founded?", "When was queen founded?"),
        ("Who directed Really Love?", "Who directed Love?"),
        ("Why do a few cats swim?", "Why do few cats swim?"),
        ("Is tau exactly 6.28?", "Is tau 6.28?"),
        ("Do some fish fly?", "Do fish fly?"),
        ("Which is better?", "What is better?"),
        ("How do I swim?", "How can I swim?"),
    ],
    "courtesy that is the object": [
        ("怎么发短信求救", "怎么发短信"),
        ("法语怎么说谢谢", "法语怎么说"),
        ("日语怎么说你好，谢谢", "日语怎么说你好"),
        ("你好，李焕英是谁拍的", "李焕英是谁拍的"),
        ("请问和询问哪个更客气", "和询问哪个更客气"),
        ("what rhymes with please", "what rhymes with"),
        ("How do I politely say no, thanks", "How do I politely say no"),
        ("Hello world in Rust?", "world in Rust?"),
        ("Hey Jude chords?", "Jude chords?"),
        ("Hello, Dolly plot?", "Dolly plot?"),
        ("Who sang Please tell me why", "Who sang why"),
    ],
    "one character of a Chinese word": [
        ("个税怎么算", "税怎么算"),
        ("请保姆贵不贵", "保姆贵不贵"),
        ("美的空调好用吗", "美空调好用吗"),
        ("怎么求神", "怎么请神"),
        ("他的妈的什么意思", "他妈的什么意思"),
    ],
    "words that ask": [
        ("孩子怎么不睡觉", "孩子如何不睡觉"),
        ("圆面积怎么求", "圆面积怎么样"),
        ("你周末干嘛", "你周末干吗"),
        ("老板同意我能请假", "老板同意我能不能请假"),
        ("他来了几个人？", "他来了几个人。"),
        ("这个能吃吗", "这个能吃不"),
    ],
    "a mark or a space of another script": [
        ("भारत में जल क्या है", "भारत में जाल क्या है"),
        ("มา คืออะไร", "ม้า คืออะไร"),
        ("ما هو عَلَم", "ما هو علم"),
        ("나물 만드는 법", "나 물 만드는 법"),
        ("アイスと氷", "アイズと氷"),
        ("μ meson mass", "m meson mass"),
    ],
    "a segmentation": [
        ("南京市 长江大桥在哪里", "南京市长 江大桥在哪里"),
        ("iPhone 6 千元能买吗", "iPhone 6千元能买吗"),
    ],
    "a character that is asked about": [
        ("髮和发有什么不同", "发和髮有什么不同"),
        ("皇后的后怎么写", "皇後的後怎么写"),
        ("乾燥和干燥哪个对", "幹燥和干燥哪个对"),
        ("Ａ和A有什么不同", "A和Ａ有什么不同"),
        ("說字几画", "说字几画"),
    ],
    "a contraction": [
        ("how do I learn r", "how do I learn are"),
        ("Where was Ur built?", "Where was your built?"),
        ("Isn't smoking healthy?", "Is not smoking healthy?"),
        ("What's changed in May?", "What is changed in May?"),
        ("It's broken by whom?", "It is broken by whom?"),
        ("What does I'm stand for in spelling?", "What does I am stand for in spelling?"),
    ],
    "what a text holds": [
        ("Fix: lets eat grandma", "Fix: let's eat, grandma"),
        ("How many capitals are in HeLLo", "How many capitals are in hello"),
        ("Which commas belong in a, b, c", "Which commas belong in a b c"),
        ("Say 'hi,  you' aloud", "Say 'hi, you' aloud"),
        ("Is this fine:\n a b", "Is this fine: a b"),
    ],
    "direction and sense": [
        ("How do I enable it?", "How do I disable it?"),
        ("from Paris to London", "from London to Paris"),
        ("能退款吗", "不能退款吗"),
        ("我借他钱", "他借我钱"),
    ],
}


@pytest.mark.parametrize(
    ("one", "other"),
    [pair for pairs in OTHERS.values() for pair in pairs],
    ids=[f"{kind} {at}" for kind, pairs in OTHERS.items() for at in range(len(pairs))],
)
def test_what_may_want_another_answer_has_another_fingerprint(one: str, other: str) -> None:
    assert plain_form(one) != plain_form(other)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("text", ["", "   ", "\t\n", "\u3000"])
def test_where_nothing_is_said_there_is_no_fingerprint(text: str) -> None:
    assert fingerprint(text) == b""


@pytest.mark.parametrize(
    "text", ["the", "的", "a", "请", "请问", "please", "hi,", "?!…", "\0", "谢谢"]
)
def test_dress_alone_is_what_is_asked(text: str) -> None:
    assert plain_form(text) == text


def test_a_character_that_stands_for_two_keeps_its_own_form() -> None:
    kept = sole_forms()
    assert not kept.keys() & set("後發髮乾幹裡裏麵隻")
    assert len(set(kept.values())) == len(kept)
    assert kept["問"] == "问"


def skeleton(text: str) -> list[str]:
    """What two texts must share to have one plain form, told another way: all characters but
    space, width, accents' composition, script, the first capital and the last marks."""
    narrow = "".join(chr(ord(c) - 0xFEE0) if 0xFF01 <= ord(c) < 0xFF5F else c for c in text)
    plain = unicodedata.normalize("NFC", narrow).translate(simplified()).replace("’", "'")
    words = re.sub(r"[.?。]+$", "", plain.strip()).split()
    if words:
        words[0] = words[0][:1].lower() + words[0][1:]
    has_han = re.search("[㐀-䶿一-鿿]", text) is not None
    return ["".join(words)] if has_han else words


# Letters that spell no word of the tables, and all that a careless reading throws away.
ODD = "zqxvkZQXV015.,!?:;'\"()[]{}<>=+-*/×÷≤≥√²³½\u0301éÅ…。？！，、Ａｂ１"
ODD += "😀😭👍🏽\u200d मा้ن電网络与的个 \u3000\n"
PIECES = st.text(ODD, max_size=40)


@given(st.one_of(PIECES, PIECES.map("what is ".__add__), PIECES.map("怎么".__add__)))
@example("what is x?\u3000")
@example("怎么 5 5?")
def test_a_plain_form_has_all_of_its_text_but_the_dress(text: str) -> None:
    assert skeleton(plain_form(text)) == skeleton(text)


BASES = st.lists(
    st.sampled_from(["zq", "vxk", "5", "×", "(", ")", "≤", "é", "😀", "म", "ม้า", "x²", "-3", ".5"]),
    min_size=1,
    max_size=8,
).map(lambda words: " ".join(["how do I", *words, "zxk"]))


@given(
    BASES,
    st.sampled_from(["", "Hi, ", "Hello! ", "please ", "Please, ", "could you tell me "]),
    st.sampled_from(["", "?", "??", ", thanks!", "? Thank you.", ", please?"]),
    st.booleans(),
    st.sampled_from([" ", "  ", "\u3000", "\u00a0 "]),
    st.sampled_from(["NFC", "NFD"]),
)
def test_whatever_dress_a_question_wears_its_form_is_one(
    base: str, before: str, behind: str, is_capital: bool, space: str, form: str
) -> None:
    said = base.capitalize().replace(" i ", " I ") if is_capital else base
    dressed = unicodedata.normalize(form, f" {before}{said}{behind} ").replace(" ", space)
    assert plain_form(dressed) == plain_form(base)


@given(BASES, st.data())
def test_whatever_else_is_changed_of_a_question_gives_another_form(
    base: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(8, len(base) - 2))  # behind "how do I", before the last letter
    new = data.draw(st.sampled_from([each for each in ODD if not each.isspace()] + [""]))
    changed = base[:place] + new + base[place + 1 :]
    assume(skeleton(changed) != skeleton(base))
    assert plain_form(changed) != plain_form(base)


@given(st.text(max_size=200))
def test_any_text_has_a_plain_form_and_a_fingerprint_where_it_says_something(text: str) -> None:
    assert len(fingerprint(text)) == (FINGERPRINT_BYTES if plain_form(text) else 0)


@pytest.mark.parametrize(
    "text", ["please, " * 600, "，谢谢" * 1300, "?" * 4000, "a'" * 2000, "，" * 4000]
)
def test_a_long_run_of_dress_takes_no_time(text: str) -> None:
    plain_form(text)

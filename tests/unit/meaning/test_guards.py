"""Each guard on pairs it must refuse and pairs it must let pass, Chinese and English."""

from __future__ import annotations

import msgspec
import pytest

from thinkonce.meaning.guards import GUARDS
from thinkonce.meaning.guards.examine import examine
from thinkonce.meaning.guards.veto import Veto
from thinkonce.meaning.text.analysis import Analysed, analyse

REFUSED = {
    Veto.NUMBER: [
        ("How do I send 1000 dollars abroad?", "How do I send 1007 dollars abroad?"),
        ("top ten books on chess", "top five books on chess"),
        ("What changed in Python 3.11?", "What changed in Python 3.12?"),
        ("Is a third of it enough?", "Is a quarter of it enough?"),
        ("what is 1.5k in words", "what is 15k in words"),
        ("the second season of it", "the third season of it"),
        ("How far is the moon in 3 words?", "How far is the moon in words?"),
        ("借三百元要多少利息", "借五百元要多少利息"),
        ("三分之一是多少", "四分之一是多少"),
        ("第三集讲什么", "第五集讲什么"),
        ("利率百分之五怎么算", "利率百分之七怎么算"),
        ("怀孕十周能吃吗", "怀孕二十周能吃吗"),
    ],
    Veto.UNIT: [
        ("Is 5 kg of rice enough?", "Is 5 lb of rice enough?"),
        ("what can I buy for $20", "what can I buy for €20"),
        ("is 20 CHF a lot", "is 20 GBP a lot"),
        ("how many cups make a quart", "how many cups make a gallon"),
        ("30 degrees celsius", "30 degrees fahrenheit"),
        ("5公斤大米多少钱", "5斤大米多少钱"),
        ("100美元能买什么", "100日元能买什么"),
        ("还要等三小时吗", "还要等三分钟吗"),
    ],
    Veto.DATE: [
        ("Who won the cup in 2014?", "Who won the cup in 2018?"),
        ("Is the bank open on Monday?", "Is the bank open on Sunday?"),
        ("the shop opens at 9 am", "the shop opens at 9 pm"),
        ("born on 2021-03-04", "born on 2021-04-03"),
        ("holidays in March", "holidays in October"),
        ("what did I spend last month", "what did I spend this month"),
        ("上周的账单在哪看", "下周的账单在哪看"),
        ("3月5日还款可以吗", "5月3日还款可以吗"),
        ("早上八点有车吗", "晚上八点有车吗"),
        ("春节放几天", "国庆放几天"),
    ],
    Veto.NEGATION: [
        ("Why can I open the file?", "Why can't I open the file?"),
        ("foods that contain sugar", "foods that never contain sugar"),
        ("Is it possible to return it?", "Is it impossible to return it?"),
        ("cook rice with a lid", "cook rice without a lid but a lid"),
        ("dont know my pin", "know my pin"),
        ("为什么能登录", "为什么不能登录"),
        ("已经收到短信", "没收到短信"),
        ("医生叫我吃药", "医生叫我别吃药"),
        ("无法打开文件", "打开文件"),
    ],
    Veto.ANTONYM: [
        ("How do I enable dark mode?", "How do I disable dark mode?"),
        ("when should I buy gold", "when should I sell gold"),
        ("怎么开启定位", "怎么关闭定位"),
        ("现在买房合适吗", "现在卖房合适吗"),
        ("黄河远上白云间的下一句", "黄河远上白云间上一句"),
        ("八上数学练习册答案", "八下数学练习册答案"),
        ("三年级下册语文课本目录", "三年级上册语文课本目录"),
        ("这一期节目的嘉宾是谁", "节目下一期的嘉宾是谁"),
        ("How do I log in to the portal?", "How do I log out of the portal?"),
        ("How do I make a list immutable?", "How do I make a list mutable?"),
        ("When can I check in?", "When do I have to check out?"),
        ("What if the town joins the union?", "What happens when the town leaves the union?"),
    ],
    Veto.COMPARATIVE: [
        ("phones above 300 dollars", "phones below 300 dollars"),
        ("the highest mountain in Asia", "the lowest mountain in Asia"),
        ("挖土机技术哪家强", "挖土机技术哪家弱"),
        ("最多可以借几天", "最少可以借几天"),
        ("四十岁以上怎么办", "四十岁以下怎么办"),
    ],
    Veto.MODALITY: [
        ("must I sign the form", "may I sign the form"),
        ("Who won the 2016 cup?", "Who will win the 2016 cup?"),
        ("必须本人到场", "可以本人到场"),
    ],
    Veto.SCOPE: [
        ("are all birds able to fly", "are some birds able to fly"),
        ("所有银行都支持", "部分银行都支持"),
    ],
    Veto.DIRECTION: [
        ("flights from Oslo to Rome", "flights from Rome to Oslo"),
        ("Is Anna taller than Tom?", "Is Tom taller than Anna?"),
        ("convert euros into yen", "convert yen into euros"),
        ("from savings account to joint account", "from joint account to savings account"),
        ("小明比小红高多少", "小红比小明高多少"),
        ("Can I take algebra after calculus?", "Can I take calculus after algebra?"),
        ("老师说学生聪明是什么意思", "学生说老师聪明是什么意思"),
        ("tools ported from Go to Rust", "tools ported from Rust to Go"),
        ("从北京到上海多远", "从上海到北京多远"),
        ("把英语翻译成法语", "把法语翻译成英语"),
        ("美元换成欧元", "欧元换成美元"),
        ("学生送老师什么礼物好", "老师送学生什么礼物好呢"),
        ("手机怎么传照片到电脑上", "电脑怎么传照片到手机上"),
        ("女人最怕男人做什么", "男人都最怕女人做什么"),
        ("Can a tenant sue the landlord?", "When can a landlord sue the tenant?"),
        ("How do I sue my landlord?", "How does my landlord sue me?"),
        ("When may I fire my boss?", "When may my boss fire me?"),
        ("How do I know if someone blocked me?", "How do I know if I blocked someone?"),
        ("How much does it cost to ship to Canada?", "How much is it to ship from Canada?"),
        ("怎么把照片传到电脑？", "怎么把照片从电脑传出来？"),
        ("我老公骂我怎么办？", "我骂我的老公怎么办？"),
        ("房东欠我钱怎么办？", "我欠房东钱怎么办？"),
        ("What did you tell me about him?", "What did I tell you about him?"),
    ],
    Veto.MENTION: [
        ("What is the meaning of the word terse?", "What is the meaning of the word tense?"),
        ("How do you pronounce Gdansk?", "How do you pronounce Lodz?"),
        ("what is a synonym of brave", "what is the meaning of brave"),
        ("珍惜的近义词是什么", "珍重的近义词是什么"),
        ("雨字加上偏旁能变成什么字", "木字加上偏旁可以变成什么字"),
        ("一心一意的意思是什么", "一心一意的意是什么意思"),
        ("桌子用英语怎么说", "椅子用英语怎么说"),
        ("用美丽造句", "用美丽组词"),
    ],
    Veto.NAME: [
        ("Is vitamin C good for my skin?", "Is vitamin D good for my skin?"),
        ("What does def f(a): return a do?", "What does def f(a): return b do?"),
        ("How do I solve x + 1 = 2 for x?", "How do I solve y + 1 = 2 for y?"),
        ("维生素c的作用是什么", "维生素d的作用是什么"),
        ("Is it cold in Norway?", "Is it cold in Egypt?"),
        ("how to install Docker", "how to install Kubernetes"),
        ("What does ERR_1042 mean?", "What does ERR_2077 mean?"),
        ("what does get_user() do", "what does set_user() do"),
        ('Who wrote "War and Peace"?', 'Who wrote "Emma"?'),
        ("Was it painted by Monet?", "Was it painted by Manet?"),
        ("《三体》的作者是谁", "《活着》的作者是谁"),
        ("北京有什么好吃的", "成都有什么好吃的"),
        ("vivo手机怎么截图", "oppo手机怎么截图"),
    ],
    Veto.QUESTION: [
        ("Why should I learn Latin?", "When should I learn Latin?"),
        ("who painted the ceiling", "when was painted the ceiling"),
        ("为什么打雷", "什么时候打雷"),
        ("谁发明了电话", "哪里发明了电话"),
    ],
    Veto.SIGN: [
        ("is a ≤ b here", "is a ≥ b here"),
        ("what is 10² in words", "what is 102 in words"),
        ("这个😀是什么意思", "这个😡是什么意思"),
    ],
    Veto.ASKS: [
        ("What is a bond?", "What is a bond? Who sells a bond?"),
        ("什么是基金？", "什么是基金？怎么买基金？"),
    ],
    Veto.LANGUAGE: [
        ("What is the capital of France?", "法国的首都是哪里"),
        ("What is the capital of France?", "Quelle est la capitale de la France ?"),
        ("如何安装", "インストールの方法は"),
    ],
}  # fmt: skip

# The same question, or at least nothing a guard may object to.
PASSED = [
    ("How did Ph.D. work in the U.S. begin?", "How did U.S. Ph.D. work begin?"),
    ("How r u?", "how are you?"),
    ("Is this a test?", "Is this an A test?"),
    ("Where is Dragon Ball Z shown?", "Where is Dragon Ball shown?"),
    ("How do I send $1,500?", "How do I send 1.5k dollars?"),
    ("I have two cats", "I have 2 cats"),
    ("it costs 20 bucks", "it costs $20"),
    ("a dozen eggs", "12 eggs"),
    ("50% of it", "fifty percent of it"),
    ("half of it", "1/2 of it"),
    ("the 2nd part", "the second part"),
    ("2kg of flour", "2 kilograms of flour"),
    ("March 4th, 2021", "4 March 2021"),
    ("at 9 pm", "at 21:00"),
    ("don't do it", "do not do it"),
    ("I can't log in", "I cannot log in"),
    ("I am unable to pay", "I'm not able to pay"),
    ("Why not use it?", "Why not use it??"),
    ("not only cheap but good", "cheap but good"),
    ("difference between Java and Go", "difference between Go and Java"),
    ("please tell me what HTTP is", "what is http"),
    ("WHAT IS A BOND", "what is a bond?"),
    ("one day I will go", "some day I will go"),
    ("在北京和上海的区别", "在上海和北京的区别"),
    ("要两百元", "要200块钱"),
    ("等十分钟", "等10分钟"),
    ("占三分之一", "占1/3"),
    ("占百分之五十", "占50%"),
    ("第三次", "第3次"),
    ("一千五百块", "1500元"),
    ("三月五号晚上八点", "3月5日20:00"),
    ("一下子统一", "统一一下"),
    ("万一丢了怎么办", "丢了怎么办"),
    ("千万别忘了密码", "别忘了密码"),
    ("十分重要的事", "重要的事"),
    ("能不能退款", "能退款吗"),
    ("有没有优惠", "有优惠吗"),
    ("是不是免费", "免费吗"),
    ("不是免费的吗", "是免费的吗"),
    ("有什么特别的", "有什么的"),
    ("有什么区别", "有什么差别"),
    ("非常好用", "好用"),
    ("味道不错", "味道好"),
    ("差不多大", "一般大"),
    ("不得不走", "得走"),
    ("三星手机怎么样", "三星手机怎么样？"),
    ("請問轉賬限額是多少", "转账限额是多少"),
    ("ＡＢＣ公司在哪里", "abc公司在哪里"),
    ("今天好吗", "今天好吗！"),
    ("What's the meaning of terse?", "what does the word terse mean"),
    ("How do I pronounce Lodz?", "How is Lodz pronounced?"),
    ("珍惜的近义词", "请问珍惜的同义词是什么"),
    ("桌子的英语怎么说", "桌子用英文怎么说"),
    ("Who cooks better, boys or girls?", "who cooks better, girls or boys"),
    ("我能和你一起去吗", "能和你一起去吗我"),
    ("女人最喜欢什么样的男人", "什么样的男人女人最喜欢"),
]


@pytest.mark.parametrize(
    ("veto", "a", "b"), [(veto, a, b) for veto, pairs in REFUSED.items() for a, b in pairs]
)
def test_a_near_miss_is_refused_for_its_reason(veto: Veto, a: str, b: str) -> None:
    assert veto in examine(analyse(a), analyse(b))


@pytest.mark.parametrize(("a", "b"), PASSED)
def test_the_same_question_in_another_dress_passes(a: str, b: str) -> None:
    assert examine(analyse(a), analyse(b)) == ()


def test_every_reason_but_script_has_pairs_in_both_lists_of_this_file() -> None:
    assert set(REFUSED) == set(Veto) - {Veto.SCRIPT}


def test_script_counts_only_where_that_is_asked_for() -> None:
    a, b = analyse("轉賬限額是多少錢"), analyse("转账限额是多少钱")
    assert examine(a, b) == ()
    assert examine(a, b, same_script=True) == (Veto.SCRIPT,)


def test_a_difference_between_texts_that_share_nothing_is_no_evidence() -> None:
    a, b = analyse("I never eat fish"), analyse("trains to the coast in 2014")
    assert examine(a, b) == ()


def test_several_reasons_are_all_told_in_the_order_of_the_guards() -> None:
    a, b = analyse("buy 5 apples on Monday"), analyse("sell 6 apples on Friday")
    assert examine(a, b) == (Veto.NUMBER, Veto.DATE, Veto.ANTONYM)


@pytest.mark.parametrize("pair", [pair for pairs in REFUSED.values() for pair in pairs])
def test_order_of_the_two_texts_does_not_matter(pair: tuple[str, str]) -> None:
    a, b = (analyse(text) for text in pair)
    assert examine(a, b) == examine(b, a)


@pytest.mark.parametrize("text", [text for pairs in REFUSED.values() for p in pairs for text in p])
def test_a_text_is_never_refused_against_itself(text: str) -> None:
    known = analyse(text)
    assert all(guard(known, known) is None for guard in GUARDS)


def test_what_was_read_can_be_stored_and_read_back() -> None:
    known = analyse("从北京到上海 5 kg 不要 “引号” on Monday at 9 pm E1042")
    stored = msgspec.msgpack.encode(known)
    assert msgspec.msgpack.decode(stored, type=Analysed) == known

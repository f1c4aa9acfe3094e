"""Whatever a stored text holds, a hit differs from it in its id, its time and its marks alone."""

from __future__ import annotations

from thinkonce.protocols.template import Template, TemplateMaker, template_with_gaps

NEW_ID, NEW_TIME, MARKS = b'"new"', b"99", b',"cache_hit":true'


def template_of(*texts: bytes) -> Template:
    """The last one has the annotation."""
    maker = TemplateMaker()
    for text in texts:
        maker.add(text, b"data: ", b"\n\n", annotated=text is texts[-1])
    maker.add_fixed(b"data: [DONE]\n\n")
    return maker.make()


def filled(*texts: bytes) -> tuple[bytes, bytes]:
    """With all three put in, and as it was recorded."""
    template = template_of(*texts)
    return template.fill(NEW_ID, NEW_TIME, MARKS), template.fill(None, b"", b"")


def framed(*texts: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % text for text in (*texts, b"[DONE]"))


def test_runs_that_differ_from_the_usual_one_are_filled_as_well() -> None:
    texts = (
        b'{"id":"a","created":7,"x":1}',
        b'{"id":"a","object":"o","created":7,"x":2}',
        b'{"created":7,"id":"a","x":3}',
        b'{"id":"a","object":"o","created":7,"x":4}',
        b'{"x":5,"id":"a"}',
        b'{"created":7}',
        b'{"x":6}',
        b'{"id":"a","object":"o","created":7}',
    )
    new, recorded = filled(*texts)
    assert recorded == framed(*texts)
    renewed = [text.replace(b'"a"', NEW_ID).replace(b":7", b":99") for text in texts]
    assert new == framed(*renewed[:-1], renewed[-1][:-1] + MARKS + b"}")


def test_bytes_that_no_text_should_have_stay_what_they_are() -> None:
    every = bytes(byte for byte in range(256) if byte not in b'"\\')
    texts = [
        b'{"id":"%b","created":7,"x":"%b"}' % (every, every),
        b'{"id":"%b","x":"\xff\xfe\xfd","created":7}' % every,
    ]
    new, recorded = filled(*texts)
    assert recorded == framed(*texts)
    renewed = [text.replace(b'"id":"%b"' % every, b'"id":"new"') for text in texts]
    renewed = [text.replace(b'"created":7', b'"created":99') for text in renewed]
    assert new == framed(renewed[0], renewed[1][:-1] + MARKS + b"}")


def test_without_id_and_time_only_the_marks_are_put_in() -> None:
    template = template_with_gaps([b'{"a":"\xff"', b"}\n{", b"}"])
    assert template.fill(NEW_ID, NEW_TIME, MARKS) == b'{"a":"\xff"%b}\n{%b}' % (MARKS, MARKS)


def test_what_a_template_holds_is_about_its_text() -> None:
    texts = [b'{"id":"a","created":7,"x":"%b"}' % (b"word " * 50) for _ in range(50)]
    assert 0.9 < template_of(*texts).size / len(framed(*texts)) < 1.05

"""Schemas in XML: what they become, and errors that name the line and the element."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinkonce.errors import RequestError
from thinkonce.kv.modules.markup import read_schema
from thinkonce.kv.modules.schema import Message, Module, Parameter, Schema, Text, Union, check

PERSONA = """<?xml version="1.0" encoding="latin-1"?>
<schema name="persona">
  <!-- who answers -->
  <system>
    You answer as the person below.
    Never say more.
    <module name="name">I am called <parameter name="who" length="8"/>,
      and I live here.
    </module>
    <union scaffold="farmer">
      <module name="doctor">I heal &amp; help — gern.</module>
      <module name="farmer" cache="false">I sow.</module>
    </union>
  </system>
</schema>
"""


IN_MODULE = '<schema name="s"><module name="m">\n{}</module></schema>'


def test_a_schema_in_xml_is_the_one_built_in_python() -> None:
    assert read_schema(PERSONA) == Schema(
        "persona",
        (
            Message(
                "system",
                (
                    Text("You answer as the person below.\nNever say more.\n"),
                    Module(
                        "name",
                        (
                            Text("I am called "),
                            Parameter("who", 8),
                            Text(",\nand I live here.\n"),
                        ),
                    ),
                    Union(
                        (
                            Module("doctor", (Text("I heal & help — gern."),)),
                            Module("farmer", (Text("I sow."),), cache=False),
                        ),
                        scaffold="farmer",
                    ),
                ),
            ),
        ),
    )


def test_a_line_break_behind_a_parameter_stays() -> None:
    schema = read_schema(
        '<schema name="s"><module name="m">\n<parameter name="p" length="1"/>\n x</module></schema>'
    )
    assert schema.children == (Module("m", (Parameter("p", 1), Text("\nx"))),)


@pytest.mark.parametrize(
    ("markup", "line", "element", "said"),
    [
        ('<schema name="s">\n<modul name="a"/></schema>', 2, "modul", "module"),
        ('<schema name="s">\n\n<module/></schema>', 3, "module", "a name"),
        ('<schema name="s"><module name="a b"/></schema>', 1, "module", "letters"),
        ('<schema name="s"><module name="a" size="3"/></schema>', 1, "module", "name, cache, src"),
        ('<schema name="s"><module name="a" cache="no"/></schema>', 1, "module", "true or false"),
        ('<schema name="s">\n<parameter name="p" length="3"/></schema>', 2, "parameter", "root"),
        (
            '<schema name="s"><module name="m">\n<parameter name="p"/></module></schema>',
            2,
            "parameter",
            "length",
        ),
        (
            IN_MODULE.format('<parameter name="p" length="0"/>'),
            2,
            "parameter",
            "1 token",
        ),
        (
            IN_MODULE.format('<parameter name="p" length="2">x</parameter>'),
            2,
            "parameter",
            "nothing within",
        ),
        ('<schema name="s"><union/></schema>', 1, "union", "one module"),
        (
            '<schema name="s"><union>\nsaid<module name="a"/></union></schema>',
            2,
            "union",
            "modules alone",
        ),
        (
            '<schema name="s"><union scaffold="b"><module name="a"/></union></schema>',
            1,
            "union",
            "one of a",
        ),
        (
            '<schema name="s"><module name="a"/>\n<union><module name="a"/></union></schema>',
            2,
            "module",
            "another name",
        ),
        ('<schema name="s"><system>\n<user>x</user></system></schema>', 2, "user", "outside"),
        ('<schema name="s">\n<schema name="t"/></schema>', 2, "schema", "root"),
        ("<module name='a'/>", 1, "module", "root"),
        ('<schema name="s">\n<module name="a">\n</schema>', 3, "module", "well-formed"),
        ('<schema name="s"><module name="a" src="a.txt"/></schema>', 1, "module", "no folder"),
        ("", 1, "schema", "well-formed"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_element(
    markup: str, line: int, element: str, said: str
) -> None:
    with pytest.raises(RequestError) as refused:
        read_schema(markup)
    assert refused.value.field == f"schema line {line}: <{element}>"
    assert said in str(refused.value)


def test_document_types_and_so_entities_are_refused() -> None:
    laughs = '<!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>\n<schema name="s">&b;</schema>'
    with pytest.raises(RequestError, match="none: no entities"):
        read_schema(laughs)
    with pytest.raises(RequestError, match="well-formed"):
        read_schema('<schema name="s">&b;</schema>')


def test_elements_in_one_another_are_bounded() -> None:
    deep = "".join(f'<module name="m{n}">' for n in range(10_000))
    with pytest.raises(RequestError, match="fewer elements"):
        read_schema(f'<schema name="s">{deep}')
    inner: Module = Module("m", ("x",))
    for _ in range(40):
        inner = Module("m", (inner,))
    with pytest.raises(RequestError, match="at most 32"):
        check(Schema("s", (inner,)))


def test_a_file_is_read_from_below_the_folder_and_from_nowhere_else(tmp_path: Path) -> None:
    inside = tmp_path / "texts"
    inside.mkdir()
    (inside / "a.txt").write_text("said in a file\n")
    (tmp_path / "secret.txt").write_text("not for prompts")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "broken.txt").write_bytes(b"\xff\xfe")

    def read(source: str) -> Schema:
        return read_schema(f'<schema name="s"><module name="a" src="{source}"/></schema>', inside)

    assert read("a.txt").children == (Module("a", (Text("said in a file\n"),)),)
    for source in ("../secret.txt", "link.txt", str(tmp_path / "secret.txt"), "", ".", "none.txt"):
        with pytest.raises(RequestError, match="below the folder") as refused:
            read(source)
        assert "not for prompts" not in str(refused.value)
    with pytest.raises(RequestError, match="UTF-8"):
        read("broken.txt")
    with pytest.raises(RequestError, match="below the folder"):
        read("a\u0000.txt".replace("\u0000", "/x"))

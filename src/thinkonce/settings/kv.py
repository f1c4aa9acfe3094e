"""What the local model remembers of prompts: the table [kv]."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from thinkonce.settings.section import MIB, YES_NO, Section, about, one_of, seconds, size

__all__ = ("Kv", "KvCodec", "KvMethod", "KvPolicy")

KvCodec = Literal["raw", "int8"]
KvMethod = Literal["exact", "link", "blend", "auto"]
KvPolicy = Literal["lru", "forward_decay", "guarded", "tail"]


class Kv(Section, frozen=True):
    """Attention state of prompts that the local model has read."""

    reuse: Annotated[
        bool,
        about(
            "Keep it, so that a prompt's beginning that was read before is not read again. "
            "Answers are the same to the bit.",
            YES_NO,
            fixed=True,
        ),
    ] = True
    method: Annotated[
        KvMethod,
        about(
            "How parts of messages are reused that a request marks as documents by an id, and "
            "says no method for. exact: where the same text is in front of them. link and blend: "
            "wherever they stand, which is approximate, and said in the answer. auto: exactly "
            "until something cheaper was measured to hold.",
            one_of(KvMethod),
            fixed=True,
        ),
    ] = "exact"
    link_tokens: Annotated[
        int,
        about(
            "Tokens of each document that `link` computes again where it stands, until audits ask "
            "for more. 0: none, so that a document costs nothing but its loading; further from the "
            "exact answer.",
            "0 to 256",
            least=0,
            most=256,
            fixed=True,
        ),
    ] = 16
    memory: Annotated[
        int,
        size(
            "Most bytes of it in memory, with what prompts and answers under way take; what was "
            "not used for the longest goes.",
            least=1,
            fixed=True,
        ),
    ] = 1024 * MIB
    policy: Annotated[
        KvPolicy,
        about(
            "What goes first. lru: what was not used for the longest. forward_decay: as that, but "
            "what was used often stays longer. guarded: as that, until lru would have loaded "
            "more. tail: as that, and rather what is soon read again within `slo`. `thinkonce plan "
            "--kv` compares them.",
            one_of(KvPolicy),
            fixed=True,
        ),
    ] = "lru"
    slo: Annotated[
        float,
        seconds(
            "With the policy `tail`: the time in which the first token of an answer should come, "
            "of which reading the prompt may take all. 0: no target.",
            fixed=True,
        ),
    ] = 0.0
    store: Annotated[
        str,
        about(
            "A folder that it is written to as well, so that it is there after a restart; several "
            "servers on this machine may have one. Empty: it ends with the process.",
            "a folder",
            fixed=True,
        ),
    ] = ""
    disk: Annotated[
        int,
        size(
            "Most bytes of it in that folder; what was not used for the longest goes.",
            least=1,
            fixed=True,
        ),
    ] = 16 * 1024 * MIB
    sequences: Annotated[
        int,
        about(
            "Answers made by turns, so that a long one does not hold up a short one. One client "
            "alone leaves the last place free.",
            "1 to 64",
            least=1,
            most=64,
            fixed=True,
        ),
    ] = 4
    chunk: Annotated[
        int,
        about(
            "Tokens in a block. Prompts are read in pieces of it, and reused by whole pieces; "
            "512 gives what reading in one piece gives, to the bit.",
            "64 to 2048",
            least=64,
            most=2048,
            fixed=True,
        ),
    ] = 128
    codec: Annotated[
        KvCodec,
        about(
            "How it is kept, in memory and in the folder. raw: as computed. int8: in eight bits a "
            "number, about a half of what bf16 takes and a quarter of fp32; answers are then no "
            "longer the same to the bit, and say so.",
            one_of(KvCodec),
            fixed=True,
        ),
    ] = "raw"
    public: Annotated[
        list[str],
        about(
            "Beginnings of prompts that all tenants share, such as a system prompt: of each a JSON "
            "file with `messages` and `tools`, or `prompt`. They are read when the server starts.",
            "a list of files",
            fixed=True,
        ),
    ] = msgspec.field(default_factory=list)
    sentence_tokens: Annotated[
        int,
        about(
            "Tokens that each token of an answer attends to where the prompt is longer: its first "
            "32, the latest 32, and sentences that matter to what is being written. Reading stays "
            "exact; answers then are not, and say so. 0: all.",
            "0, or 128 and more",
            least=0,
            fixed=True,
        ),
    ] = 0
    schemas: Annotated[
        str,
        about(
            "A folder of schemas, .xml files that are read at the start and that every client may "
            "name. Below it alone may the modules of a schema name files as their texts. Empty: "
            "clients send schemas, with all that they say.",
            "a folder",
            fixed=True,
        ),
    ] = ""
    trace: Annotated[
        str,
        about(
            "A file that each prompt is written down in, as names of its blocks, for `thinkonce "
            "plan --kv`: no text, no owner. 64 MiB, and as much in FILE.1. Empty: none.",
            "a file",
            fixed=True,
        ),
    ] = ""
    gateway_secret: Annotated[
        str,
        about(
            "With this a gateway shows that it may say whose a request is; then nobody else's "
            "prompts are shared with anybody's. `serve --local` makes its own. Empty: clients "
            "are told apart by their keys.",
            "a text of 32 characters or more",
            secret=True,
            fixed=True,
        ),
    ] = ""

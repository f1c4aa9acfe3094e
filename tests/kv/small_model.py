"""A small model with random weights, real in every other way, and a server in front of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from openai import OpenAI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from thinkonce.kv.engine import KvEngine, open_engine, sequences_of
from thinkonce.kv.generation.generator import Generator, Sampling, Steps, Token
from thinkonce.kv.prefix.asking import Asking
from thinkonce.kv.serving.admin.public import public_prefixes, read_public_ahead
from thinkonce.kv.serving.app import ModelApp
from thinkonce.kv.serving.clients import Clients
from thinkonce.kv.serving.intake import ModelLimits
from thinkonce.kv.serving.line.auditing import Auditing
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.owners import Owners
from thinkonce.kv.serving.server import ModelServer
from thinkonce.kv.weights.model import Model
from thinkonce.settings import Client, Kv
from thinkonce.web.listener import bind

CONTEXT = 2048
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END = SPECIAL.index("<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = (
    "The quick brown fox jumps over the lazy dog. What is the capital of France?",
    "一个模型应该只思考一次。法国的首都是哪里？",
    "Read once, remember, and answer the same question from memory.",
)


def make_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on three sentences: some tokens are half characters."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def make_network(vocabulary: int) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        # Wide enough that answers differ from prompt to prompt instead of repeating one token.
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=END,
    )
    network = LlamaForCausalLM(config)
    network.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=END, pad_token_id=END)
    return network


@dataclass
class GatedGenerator:
    """The real generator, each of whose tokens waits until the test lets it through.

    `made` counts tokens; `begun` lists the prompts in the order they were begun.
    """

    inner: Generator
    gate: threading.Event = field(default_factory=threading.Event)
    begun: list[tuple[int, ...]] = field(default_factory=list)
    made: int = 0

    def generate(self, asking: Asking, sampling: Sampling, cancelled: Callable[[], bool]) -> Steps:
        self.begun.append(tuple(asking.prompt))
        for step in self.inner.generate(asking, sampling, cancelled):
            if isinstance(step, Token):
                assert self.gate.wait(60), "the test forgot to open the gate"
                self.made += 1
            yield step


@dataclass
class Served:
    """A running server: where it is, and what a test may look at."""

    url: str
    scheduler: Scheduler
    generator: GatedGenerator
    server: ModelServer
    engine: KvEngine


Serve = Callable[..., Served]


@contextmanager
def serving(
    model: Model,
    *,
    max_waiting: int = 4,
    deadline: float = 0.0,
    patience: float = 30.0,
    kv: Kv | None = None,
    secret: str = "",
    token: str = "",
    limits: ModelLimits | None = None,
    port: int = 0,
    clients: Mapping[str, Client] | None = None,
) -> Iterator[Served]:
    engine = open_engine(model, kv or Kv(chunk=64))
    public = public_prefixes(model, kv.public if kv else ())
    engine.publish(public)
    generator = GatedGenerator(engine.generator)
    generator.gate.set()
    scheduler = Scheduler(
        max_waiting,
        sequences=sequences_of(engine, kv or Kv()),
        deadline=deadline,
        patience=patience,
        spare=Auditing(engine),
    )
    known = Clients(clients or {})
    owners = Owners(secret, engine.owners_key, is_local=True, clients=known)
    gated = replace(engine, generator=generator)
    app = ModelApp(
        model, gated, scheduler, owners=owners, admin_token=token, limits=limits, access_log=True
    )
    ready = threading.Event()
    read_public_ahead(engine, scheduler, public)
    server = ModelServer(app, bind("127.0.0.1", port), 30, lambda line: ready.set())
    url = server.url
    thread = threading.Thread(target=server.serve_until_stopped, name="thinkonce-test-server")
    thread.start()
    try:
        assert ready.wait(30), "the server did not come up"
        yield Served(url, scheduler, generator, server, engine)
    finally:
        generator.gate.set()
        server.stop()
        thread.join(30)
        engine.close()


@contextmanager
def client_of(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client

"""Starts model servers by forking: what takes seconds, torch and the model, is loaded once.

A line on standard input asks for a server with that folder, or with none for "-". Each says on
standard output `ready PID URL`. Usage: python kv_servers.py MODEL
"""

import os
import sys

import torch

from thinkonce.kv.engine import open_engine, sequences_of
from thinkonce.kv.serving.app import ModelApp
from thinkonce.kv.serving.line.scheduler import Scheduler
from thinkonce.kv.serving.owners import Owners
from thinkonce.kv.serving.server import ModelServer
from thinkonce.kv.weights.model import load
from thinkonce.settings import Kv
from thinkonce.web.listener import bind

CHUNK = 64


def serve(model, store):
    kv = Kv(chunk=CHUNK, store=store)
    engine = open_engine(model, kv)
    scheduler = Scheduler(16, sequences=sequences_of(engine, kv))
    app = ModelApp(model, engine, scheduler, owners=Owners("", engine.owners_key))
    server = ModelServer(app, bind("127.0.0.1", 0), 30, lambda line: None)
    server.announce = lambda url: print("ready", os.getpid(), url, flush=True)
    server.serve_until_stopped()


def main(folder):
    torch.set_num_threads(1)
    model = load(folder)
    print("loaded", flush=True)
    for line in sys.stdin:
        if not os.fork():
            serve(model, line.strip().removeprefix("-"))
            os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The cached endpoints inside a user's process: behind a transport of `httpx` or `httpx2`.

question    one request: which endpoint it asks, of whom, and whether it is ours to answer
upstream    the wrapped transport in the place of an upstream
answering   one answer on its way to whoever reads it
bench       the endpoints of one event loop, and the calls under way there
options     what a transport can be told
transport   both kinds of transport, blocking and not; thinkonce.httpx and thinkonce.httpx2
"""

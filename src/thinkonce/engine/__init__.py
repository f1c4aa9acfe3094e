"""From a request's bytes to its answer, by way of the cache; knows no server and no process.

`gateway` puts a server around it, `adapters` puts it into a client.

asking       what is asked, of whom, by whom, under which key
endpoint     a path whose requests have one answer each; embeddings: one whose requests are batches
world        carries the flow's steps out; fetch: the call itself; pace: no faster than it is read
telling      hands answers out, from parts that are made ready once
passing      what goes around the cache
"""

"""The engine: a local model behind OpenAI's protocol. Importing this loads no torch.

A request meets the files in this order:

    server      binds, loads, announces, drains      packaged  conversion  gguf  model
    app         paths and bodies                     http  ask  prompt  reply
    delivery    from the worker to the client
    scheduler   one worker, a bounded line
    answer      prompts and choices into events      detokenise  transcript
    generate    tokens from the model: the seam      sampler
    engine       reused where the model allows it     support  fingerprint
    exact        each prefix read once                slab  decode; or plain, read anew
    index        what is in memory, and what goes     blocks  eviction
"""

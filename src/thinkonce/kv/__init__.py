"""The engine: a local model behind OpenAI's protocol. Importing this loads no torch.

A request meets the files in this order:

    server      binds, loads, announces, drains      packaged  folder  conversion  gguf  model
    app         paths, bodies, streams               http  ask  reply
    scheduler   one worker, a bounded line
    answer      prompts and choices into events      detokenise  transcript
    generate    tokens from the model: the seam      sampling  sampler
"""

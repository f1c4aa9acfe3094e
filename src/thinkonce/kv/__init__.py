"""The engine: a local model behind OpenAI's protocol. Importing this loads no torch.

weights/      model files: found, converted once, loaded
serving/      a request on its way: server, app, ask, prompt; scheduler, one worker in a
              bounded line; answer, reply, delivery back to the client
engine        attention state reused where the model allows it
generation/   tokens from the model: generator is the seam, exact reads each prefix once,
              plain reads anew
prefix/       names of blocks, whose they are, what is in memory, and what goes first
"""

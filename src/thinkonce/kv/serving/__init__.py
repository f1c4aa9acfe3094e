"""The model server: OpenAI's protocol in front of one worker. Importing this loads no torch."""

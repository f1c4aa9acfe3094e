"""From the bodies of requests to prompts: fields, messages, documents, marks, tokens."""

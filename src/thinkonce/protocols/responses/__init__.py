"""OpenAI's Responses: objects that may come as the events that build them up."""

"""Anthropic's Messages: answers that may come as named events."""

"""Prompt modules: texts with fixed positions, read once and put together by name."""

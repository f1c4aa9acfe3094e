"""Attention state of text that is not a common prefix: approximate, asked for, and measured."""

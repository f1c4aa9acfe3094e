"""The command line: one file per group of commands."""

from thinkonce.cli.app import main

__all__ = ("main",)

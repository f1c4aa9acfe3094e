"""Prefixes by name: whose they are, which are known, and which are forgotten first."""

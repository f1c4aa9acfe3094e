"""Fixtures of the tests of single parts."""

from ways import way  # noqa: F401  # a fixture is found by its name here

"""Calls of a decorated function: how they are bound, told apart, and carried out."""

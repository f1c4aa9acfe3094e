"""Policies of eviction beside the default: one file each, and a line in `choice.py`."""

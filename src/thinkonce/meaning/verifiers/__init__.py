"""Verifiers, one a file; `verifier.py` finds them."""

"""Decoding that attends to the sentences that matter (SentenceKV, arXiv 2504.00970)."""

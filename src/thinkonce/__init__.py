"""thinkonce: one cache for everything a language model computes."""

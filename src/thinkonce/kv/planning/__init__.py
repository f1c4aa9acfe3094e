"""What another size or policy would have loaded: recorded requests, replayed without a model."""

"""Who waits for the model, who is next, and what runs while nobody waits."""

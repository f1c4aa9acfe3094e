"""From prompts to what clients are sent: events, dialects, and what is told of them."""

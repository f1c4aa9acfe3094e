"""What a text says: its words and forms, read once."""

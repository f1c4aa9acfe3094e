"""How keys and values are kept: as computed, or in fewer bits."""

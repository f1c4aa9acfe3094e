"""Where questions are found again: vectors and fingerprints, by partition."""

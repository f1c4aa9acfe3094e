"""Model files on this machine: found in packages, converted once, loaded."""

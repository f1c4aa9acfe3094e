"""The chance that one answer answers another question, and the cuts it is measured by."""

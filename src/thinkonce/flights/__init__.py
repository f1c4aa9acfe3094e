"""Calls under way: one leads, others follow, in threads, tasks and the processes of a host."""

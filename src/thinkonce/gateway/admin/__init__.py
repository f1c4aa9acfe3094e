"""Looking into a running gateway, filling and emptying it: everything under /cache.

access      who may
desk        what all groups stand on
look        stats, entries, one entry
change      purge, limits, removing an entry, feedback
preload     requests asked ahead of time
move        export and import
explain     would it hit, and if not, why not
"""

from thinkonce.gateway.admin.router import Admin

__all__ = ("Admin",)

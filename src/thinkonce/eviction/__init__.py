"""What to forget: one file a policy. Importing this package makes all of them known by name."""

from __future__ import annotations

from thinkonce.eviction.arc import ArcPolicy
from thinkonce.eviction.cost import CostPolicy
from thinkonce.eviction.expiry import ExpiryBuckets
from thinkonce.eviction.lru import LruPolicy
from thinkonce.eviction.policy import POLICIES, Limits, Note, Policy, make_policy, register
from thinkonce.eviction.s3fifo import S3FifoPolicy
from thinkonce.eviction.sieve import SievePolicy

__all__ = (
    "POLICIES",
    "ArcPolicy",
    "CostPolicy",
    "ExpiryBuckets",
    "Limits",
    "LruPolicy",
    "Note",
    "Policy",
    "S3FifoPolicy",
    "SievePolicy",
    "make_policy",
    "register",
)

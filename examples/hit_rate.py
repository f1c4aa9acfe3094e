"""What the cache did: hits, what they saved, what fills it, why a call would miss.

Shows:
    hit_rate: 75%
    by_priority: {'high': 2}
    would hit
    would miss, because: purged
"""

from thinkonce import cached


@cached(ttl="hot", tags=["greetings"])
def greet(name: str) -> str:
    return f"Hello, {name}!"


for name in ["Ada", "Bo", "Ada", "Ada", "Bo", "Ada", "Ada", "Ada"]:
    greet(name)

stats = greet.cache_stats()
print(f"hit_rate: {stats['hit_rate']:.0%} of {stats['hits'] + stats['misses']} calls")
print(f"by_priority: {stats['by_priority']}, {stats['bytes']} bytes")
print("would hit" if greet.explain("Ada").outcome == "hit" else "would miss")
greet.cache.purge(tags=["greetings"])
print(f"would miss, because: {greet.explain('Ada').reason}")

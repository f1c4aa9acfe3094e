"""When the model fails, an answer that is a little old beats no answer.

Within `stale_if_error` after its expiry an answer may stand in for a model that fails. A first
call that fails is an error as ever: nothing is invented, and no error is remembered.

Shows:
    fresh: sunny
    model down, a stale answer stands in: sunny
    never asked before: the model is down
"""

import time

from thinkonce import Cache, Clock, cached

# The clock is a parameter: here it is moved by hand, so that nobody has to wait for an expiry.
ahead = 0.0
clock = Clock(wall=lambda: time.time() + ahead, monotonic=lambda: time.monotonic() + ahead)
cache = Cache(ttl="5m", stale_if_error="1h", clock=clock)
model_is_up = True


@cached(cache=cache)
def weather(city: str) -> str:
    if not model_is_up:
        raise ConnectionError("the model is down")
    return "sunny"


print("fresh:", weather("Lyon"))
ahead, model_is_up = 900.0, False
print("model down, a stale answer stands in:", weather("Lyon"))
try:
    weather("Nice")
except ConnectionError as error:
    print("never asked before:", error)

"""Code generation from templates: a template under a name, versions apart by namespace.

The label (`cache_key`) partitions: the same label and the same request share, so a name can
never hand out another prompt's answer. A new version of the templates is a new namespace, and
the old one can be purged by its tag.

Shows:
    python:sort v1: MISS
    python:sort v1: HIT
    python:sum v1: MISS
    python:sort v2: MISS
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
TEMPLATES = {
    "python:sort": "Write one line of Python that sorts the list `items`.",
    "python:sum": "Write one line of Python that sums the list `items`.",
}


def generate(name: str, version: str) -> str:
    raw = client.chat.completions.with_raw_response.create(
        model="SmolLM2-135M-Instruct",
        messages=[{"role": "user", "content": TEMPLATES[name]}],
        temperature=0,
        stop=["\n"],
        max_tokens=100,
        extra_body={
            "kv_cache": {
                "cache_key": f"template:{name}",
                "namespace": f"templates-{version}",
                "tags": ["templates"],
                "ttl": "static",
            }
        },
    )
    return raw.headers["x-cache"]


for name, version in [("python:sort", "v1")] * 2 + [("python:sum", "v1"), ("python:sort", "v2")]:
    print(f"{name} {version}: {generate(name, version)}")

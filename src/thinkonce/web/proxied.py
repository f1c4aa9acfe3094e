"""Signs that a request came through a proxy, a load balancer or a network that delivers content.

Names were taken from what each of them documents:

    Forwarded, Via, CDN-Loop           RFC 7239, RFC 9110 7.6.3, RFC 8586
    X-Forwarded-*, X-Original-*        nginx, HAProxy, Traefik, Caddy, Apache, ingress-nginx, IIS
    X-Real-IP, X-Scheme, X-Request-Start and the like   nginx and hosts that set it up
    CF-*, Fly-*, Fastly-*, Akamai-*, Incap-*, X-Sucuri-*, True-Client-IP, X-Varnish
    X-Envoy-*, X-Azure-*, X-Amz-Cf-*, X-AppEngine-*, X-Vercel-*, X-NF-*, Tailscale-*
    X-ARR-*, Front-End-*, WL-Proxy-*, Surrogate-*, DO-Connecting-IP, Remote-*

Anything with one of the words `forwarded`, `proxy`, `clientip`, `realip` or their like counts too.
And by its connection: nginx before 1.29.7 asks whom it serves by `proxy_pass` in HTTP/1.0 with
`Connection: close` and nothing else (https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_http_version),
which neither browsers nor curl nor our own commands do.

What is left: a proxy that keeps its connections in HTTP/1.1, names the server in Host and adds
nothing is no different from a program on this machine. Only a token tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from thinkonce.web.exchange import Header

__all__ = ("sign_of_proxy",)

_WORDS = (
    b"forwarded", b"proxy", b"client-ip", b"clientip", b"real-ip", b"realip", b"connecting-ip",
    b"remote-ip", b"remote-addr", b"remote-host", b"orig-client",
)  # fmt: skip
_BEGINNINGS = (
    b"cf-", b"fly-", b"fastly-", b"akamai-", b"x-akamai-", b"incap-", b"x-sucuri-", b"x-varnish",
    b"x-envoy-", b"x-azure-", b"x-fd-", b"x-amz-cf-", b"x-amzn-mtls-", b"x-amzn-tls-",
    b"x-amzn-oidc-", b"x-amzn-waf-", b"x-appengine-", b"x-gfe-", b"x-vercel-", b"x-nf-",
    b"x-original-", b"x-rewrite-", b"x-arr-", b"x-iis-", b"tailscale-", b"front-end-",
    b"x-front-end-", b"surrogate-", b"x-haproxy-", b"x-cluster-", b"x-ssl-", b"ssl-client-",
    b"x-client-cert", b"x-bluecoat-",
)  # fmt: skip
_NAMES = frozenset(
    {
        b"via", b"cdn-loop", b"x-via", b"x-scheme", b"x-url-scheme", b"x-host", b"x-port",
        b"x-server-name", b"x-request-start", b"x-queue-start", b"x-coming-from", b"x-cdn",
        b"x-tor2web", b"x-edge-ip", b"x-source-ip", b"x-peer-ip", b"x-user-ip",
    }
)  # fmt: skip


def sign_of_proxy(headers: Iterable[Header], names: Sequence[bytes], version: str) -> str:
    """What tells that a request in HTTP/`version` was passed on; "" for nothing. `names`: of its
    headers.
    """
    if (name := _sign_among(tuple(names))) is not None:
        return f"the request came through a proxy (it has {name.decode('latin-1')!r:.80})"
    if version != "1.1":
        return f"the request came in HTTP/{version}, as those of some proxies do"
    options = b",".join(value for name, value in headers if name == b"connection")
    if b"close" in map(bytes.strip, options.lower().split(b",")):
        return "the request has 'Connection: close', as those of proxies have"
    return ""


@lru_cache(maxsize=64)  # a client sends the same names again and again
def _sign_among(names: tuple[bytes, ...]) -> bytes | None:
    return next(filter(_is_sign, names), None)


def _is_sign(name: bytes) -> bool:
    return name in _NAMES or name.startswith(_BEGINNINGS) or any(word in name for word in _WORDS)

"""What HTTPS is served with: a certificate and its key, read from files, and read again."""

from __future__ import annotations

import ssl
from pathlib import Path

from thinkonce.errors import ConfigError

__all__ = ("context_of", "read_again")

CERT, KEY = "[gateway] tls_cert", "[gateway] tls_key"


def context_of(cert: str, key: str = "") -> ssl.SSLContext | None:
    """For a server that speaks TLS 1.2 or later; None where no certificate is named.

    `cert`: a PEM file with the chain, the server's own certificate first; `key` '': the private
    key is in it too. Raises ConfigError.
    """
    if not cert:
        if key:
            raise ConfigError(KEY, key, f"nothing, as long as {CERT} is empty")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    read_again(context, cert, key)
    return context


def read_again(context: ssl.SSLContext, cert: str, key: str = "") -> None:
    """Show this certificate to whoever connects from now on. Raises ConfigError."""
    for setting, name in ((CERT, cert), (KEY, key)):
        if name and not Path(name).expanduser().is_file():
            raise ConfigError(setting, name, "a PEM file that is there and can be read")
    try:
        chain = Path(cert).expanduser()
        context.load_cert_chain(chain, Path(key).expanduser() if key else None, _no_password)
    except (ssl.SSLError, OSError, _Locked) as wrong:
        accepts = f"a PEM certificate and the private key that belongs to it ({wrong})"
        raise ConfigError(CERT, cert, accepts) from wrong


class _Locked(Exception):
    """A key behind a password, which nobody is there to type."""


def _no_password() -> str:
    raise _Locked("the key is encrypted; it has to be a plain one")

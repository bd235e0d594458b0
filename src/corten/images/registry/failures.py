"""What goes wrong between us and a registry, in words, and whether it is worth another try."""

from __future__ import annotations

import ssl
import time

import httpx

from corten.errors import Error
from corten.images.registry.configuration import Settings, is_local

PASSING = frozenset((408, 429, 500, 502, 503, 504))
"""Answers that may be another one the next time."""
_LARGEST_ANSWER = 1 << 20  # bytes of an error
_LONGEST_PAUSE = 60.0  # seconds that a registry may ask for
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")  # of OpenSSL
_NO_HOST = ("Name or service not known", "No address associated")


class Broken(Exception):
    """A request that failed; it may work the next time. pause: seconds that the registry asks us to wait."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


class SpeaksPlain(Exception):
    """The other side does not speak TLS."""


def reason(error: Exception, settings: Settings) -> Exception:
    """A failure of the connection in words, as `Broken` or, where trying again is no use, `Error`."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    host = settings.host
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Error(
            f"registry {host}: its certificate is not trusted: {cause.verify_message}: name the authority as ca "
            f'under [registry."{host}"] in registries.toml'
        )
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return SpeaksPlain()
    if isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or ""):
        return Error(f"registry {host}: {_alert(cause.reason, settings)}")
    through = _proxy(error) if isinstance(error, httpx.ConnectError) else ""
    if any(words in str(error) for words in _NO_HOST):
        what = f"there is no such host as the proxy {through}" if through else "there is no such host"
        return Error(f"registry {host}: {what}: is the name right, and the network up?")
    if isinstance(error, httpx.ConnectTimeout):
        return Broken("no connection in time")
    if isinstance(error, httpx.TimeoutException):
        return Broken(f"no answer in {settings.timeout:g} s")
    if isinstance(error, httpx.ProxyError):
        return Broken(f"the proxy says {error}")
    if isinstance(error, httpx.UnsupportedProtocol):
        return Error(f"registry {host}: sends us to an address that is no URL")
    if isinstance(error, httpx.TooManyRedirects):
        return Error(f"registry {host}: sends us in circles")
    if isinstance(error, (httpx.InvalidURL, httpx.DecodingError)):
        return Error(f"registry {host}: gives an answer that makes no sense: {error}")
    words = " ".join(str(error).split()) or type(error).__name__
    return Broken(f"the proxy {through}: {words}" if through else words)


def _proxy(error: httpx.ConnectError) -> str:
    """Which proxy a connection was to go through, by the environment; without its password."""
    from urllib.request import getproxies, proxy_bypass

    url = error.request.url
    if is_local(url.netloc.decode()) or proxy_bypass(url.host):
        return ""
    found = getproxies()
    return (found.get(url.scheme) or found.get("all", "")).rpartition("@")[2]


def _alert(name: str, settings: Settings) -> str:
    """What the other side of a TLS connection has against us (RFC 8446, section 6)."""
    said = name.partition("ALERT_")[2].lower().replace("_", " ")
    if "CERTIFICATE" not in name and "UNKNOWN_CA" not in name and "HANDSHAKE_FAILURE" not in name:
        return f"ends the connection: {said}"
    if settings.certificate:
        return f"does not take the certificate {settings.certificate}: {said}"
    return f'wants a certificate of ours: {said}: name certificate and key under [registry."{settings.host}"]' \
           " in registries.toml"


def read(answer: httpx.Response) -> None:
    """The body of an error, as far as it is short."""
    data = b""
    try:
        for piece in answer.iter_bytes():
            data += piece
            if len(data) > _LARGEST_ANSWER:
                break
    except httpx.HTTPError:
        pass
    answer.close()
    answer._content = data


def said(answer: httpx.Response) -> str:
    """The words of a registry's error (OCI distribution, error codes), else its status."""
    try:
        errors = answer.json()["errors"]
        words = [str(one.get("message") or one.get("code") or "") for one in errors]
    except (ValueError, KeyError, TypeError, AttributeError, httpx.ResponseNotRead):
        words = []
    text = " ".join("; ".join(filter(None, words)).split())[:200]
    return text or f"{answer.status_code} {answer.reason_phrase}".strip()


def broken(answer: httpx.Response) -> Broken:
    """An answer of `PASSING` as what it is to us."""
    read(answer)
    status, words = f"{answer.status_code} {answer.reason_phrase}".strip(), said(answer)
    return Broken(status if words == status else f"{status}: {words}", _pause(answer.headers.get("retry-after", "")))


def _pause(text: str) -> float:
    """Seconds to wait, by a Retry-After: a number, or a date (RFC 9110, 10.2.3)."""
    from email.utils import parsedate_to_datetime

    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return 0.0
    return max(0.0, min(seconds, _LONGEST_PAUSE))

"""One registry, asked over HTTP: who we are, once more if it breaks off, and answers made into errors of one line.

Rule 1: nothing is sent in the clear, except to this machine or where the configuration says so.
Rule 2: a request that failed for a reason that may pass (no connection, no answer, 429, 5xx) is made again, after a
        wait that doubles; what the registry itself refuses is not.
Rule 3: credentials go to the registry and to the token service that it names, and nowhere else.
Safe for several threads.
"""

from __future__ import annotations

import random
import ssl
import threading
import time

import httpx

from corten.errors import Error, InvalidInput, NotFound
from corten.images.registry import challenge, credentials
from corten.images.registry.configuration import Settings, is_local
from corten.images.registry.failures import PASSING, Broken, SpeaksPlain, broken, read, reason, said
from corten.images.registry.halt import Halt
from corten.images.registry.watching import SILENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Self

    from corten.images.registry.credentials import Credentials

ATTEMPTS = 5
FIRST_WAIT = 0.5  # seconds
_LONGEST_WAIT = 10.0
_HOSTS = {"docker.io": "registry-1.docker.io"}


class Registry:
    """A connection to one registry. Use it in a `with` block.

    say: is told, in a line, of what is tried again. find: looks up credentials for (registry, repository). halt: ends
    all that goes on, with an Error.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None] = SILENT.say,
        find: Callable[[str, str], Credentials | None] = credentials.find,
        halt: Halt | None = None,
    ) -> None:
        self.host, self.settings, self._say, self._find = settings.host, settings, say, find
        self._halt = halt or Halt()
        self._lock = threading.Lock()
        self._base = ""
        self._challenges: list[challenge.Challenge] = []
        self._tokens: dict[str, tuple[str, float]] = {}
        self._known: dict[str, Credentials | None] = {}
        try:
            self._client = httpx.Client(
                verify=self._trust(),
                timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, 15), pool=None),
                # A proxy does not see this machine as we do.
                trust_env=not is_local(self.host),
                limits=httpx.Limits(max_connections=16),
                headers={"User-Agent": "corten"},
                event_hooks={"request": [self._noted], "response": [self._same_protection]},
            )
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            why = "SOCKS needs the package socksio" if isinstance(error, ImportError) else str(error)
            raise InvalidInput(f"registry {self.host}: the proxy in HTTPS_PROXY or its kin: {why}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        place = ""
        try:
            for place in self.settings.authorities:
                context.load_verify_locations(place)
            if self.settings.certificate:
                place = self.settings.certificate
                context.load_cert_chain(place, self.settings.key or None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(f"registry {self.host}: {place}: cannot be used as a certificate: {error}") from None
        return context

    def _noted(self, request: httpx.Request) -> None:
        request.extensions["trace"] = self._halt.trace

    def _same_protection(self, response: httpx.Response) -> None:
        to = response.next_request
        if to is not None and response.url.scheme == "https" and to.url.scheme != "https":
            raise Error(f"registry {self.host}: sends us on to {to.url.host} without TLS: refused")

    # --- finding it

    def _find_base(self) -> str:
        """The URL that all others begin with, and how it wants to be addressed. Asked once."""
        with self._lock:
            if self._base:
                return self._base
            host = _HOSTS.get(self.host, self.host)
            schemes = ["http"] if self.settings.http else ["https", "http"] if is_local(self.host) else ["https"]
            for scheme in schemes:
                try:
                    answer = self._again(lambda s=scheme: self._client.get(f"{s}://{host}/v2/"), "connect", 2)  # type: ignore[misc]
                except SpeaksPlain:
                    if scheme == schemes[-1]:
                        raise Error(
                            f"registry {self.host}: speaks plain HTTP: if that is meant, "
                            f'write http = true under [registry."{self.host}"] in registries.toml'
                        ) from None
                    continue
                break
            if answer.status_code == 401:
                self._challenges = challenge.parse(answer.headers.get("www-authenticate", ""))
            elif answer.status_code not in (200, 403, 404):
                raise self._refusal(answer, f"registry {self.host}")
            if answer.status_code == 404 and "docker-distribution-api-version" not in answer.headers:
                raise Error(f"registry {self.host}: is no registry: it has no /v2/")
            self._base = f"{scheme}://{host}"
            return self._base

    def check(self) -> None:
        """Show who we are, if the registry wants to know. InvalidInput: it does not take us."""
        self._find_base()
        what = f"login {self.host}"
        for one in self._challenges:
            if one.scheme == "bearer" and one.parameters.get("realm"):
                self._token(one, (), "", fresh=True)
                return
        own = self._authorization((), "", f"{self._base}/v2/", fresh=True)
        answer = self._again(lambda: self._client.get(f"{self._base}/v2/", headers=own), what)
        if answer.status_code != 200:
            raise self._refusal(answer, what)

    # --- asking

    def request(
        self,
        method: str,
        path: str,
        what: str,
        repository: str,
        *,
        actions: str = "pull",
        more_scopes: tuple[str, ...] = (),
        good: tuple[int, ...] = (200,),
        stream: bool = False,
        once: bool = False,
        **options: Any,
    ) -> httpx.Response:
        """Ask, and ask again; the answer, which has one of the `good` codes.

        path: from `/v2/` on, or a whole URL that the registry gave; what: for errors; actions: pull, or pull,push;
        stream: the body is left for the caller to read, who closes the answer; once: the caller tries again himself.
        NotFound, InvalidInput (the registry does not let us), Error.
        """
        base = self._find_base()
        url = path if path.startswith("http") else base + path
        scopes = (f"repository:{repository}:{actions}", *more_scopes)
        headers = options.pop("headers", {})
        fresh = False
        while True:
            own = {**headers, **self._authorization(scopes, repository, url, fresh)}

            def send(own: dict[str, str] = own) -> httpx.Response:
                request = self._client.build_request(method, url, headers=own, **options)
                return self._client.send(request, stream=stream, follow_redirects=method in ("GET", "HEAD"))

            answer = self._send(send) if once else self._again(send, what)
            if answer.status_code in good:
                return answer
            if stream:
                read(answer)
            if answer.status_code == 401 and not fresh:
                # A token that has expired, or a registry that wants another one for this.
                wanted = challenge.parse(answer.headers.get("www-authenticate", ""))
                self._challenges = wanted or self._challenges
                fresh = True
                continue
            raise self._refusal(answer, what)

    def _send(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """One attempt. Broken: it may work the next time; Error: it will not."""
        if self._halt.is_set():
            raise self._halted()
        try:
            answer = send()
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise reason(error, self.settings) from None
        if answer.status_code in PASSING:
            raise broken(answer)
        return answer

    def _again(self, send: Callable[[], httpx.Response], what: str, attempts: int = 0) -> httpx.Response:
        attempts, attempt = attempts or ATTEMPTS, 0
        while True:
            try:
                return self._send(send)
            except Broken as failure:
                attempt += 1
                self.wait(attempt, failure, what, attempts)

    def wait(self, attempt: int, failure: Broken, what: str, attempts: int = 0) -> None:
        """Wait before the next attempt; Error: there have been enough. what: for that error."""
        if self._halt.is_set():
            raise self._halted() from None
        attempts = attempts or ATTEMPTS
        if attempt >= attempts:
            raise Error(f"{what}: registry {self.host}: {failure} ({attempts} attempts)") from None
        seconds = max(failure.pause, min(_LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * random.uniform(0.5, 1))  # noqa: S311
        self._say(f"registry {self.host}: {failure}: trying again in {seconds:.1f} s")
        if self._halt.wait(seconds):
            raise self._halted() from None

    def _halted(self) -> Error:
        return Error(f"registry {self.host}: stopped")

    def _refusal(self, answer: httpx.Response, what: str) -> Error:
        code, words = answer.status_code, f"registry {self.host}: {said(answer)}"
        if code == 404:
            return NotFound(f"{what}: not found: {words}")
        if code in (401, 403):
            known = next((one for one in self._known.values() if one), None)
            who = f"as {known.user or 'the owner of a token'} (from {known.source})" if known else "without credentials"
            return InvalidInput(f"{what}: {words}: asked {who}: see 'corten login {self.host}'")
        return Error(f"{what}: {words}")

    # --- who we are

    def _credentials(self, repository: str) -> Credentials | None:
        with self._lock:
            if repository not in self._known:
                self._known[repository] = self._find(self.host, repository)
            return self._known[repository]

    def _authorization(self, scopes: tuple[str, ...], repository: str, url: str, fresh: bool) -> dict[str, str]:
        if not url.startswith(f"{self._base}/"):
            return {}  # an upload that goes elsewhere carries its own signature
        for one in self._challenges:
            if one.scheme == "bearer" and one.parameters.get("realm"):
                return {"Authorization": f"Bearer {self._token(one, scopes, repository, fresh)}"}
            if one.scheme == "basic":
                known = self._credentials(repository)
                if known and known.user:
                    return {"Authorization": httpx.BasicAuth(known.user, known.password)._auth_header}
        return {}

    def _token(self, one: challenge.Challenge, scopes: tuple[str, ...], repository: str, fresh: bool) -> str:
        key = " ".join(scopes)
        token, until = self._tokens.get(key, ("", 0.0))
        if token and time.monotonic() < until and not fresh:
            return token
        realm, service = one.parameters["realm"], one.parameters.get("service", "")
        if not realm.startswith("https://") and not realm.startswith("http://"):
            raise Error(f"registry {self.host}: names a token service {realm!r}, which is no URL")
        if realm.startswith("http://") and self._base.startswith("https://"):
            raise Error(f"registry {self.host}: names a token service without TLS, {realm}: refused")
        known = self._credentials(repository)
        what = f"token of {realm}"
        if known and known.identity:
            form = {"grant_type": "refresh_token", "refresh_token": known.identity, "service": service,
                    "client_id": "corten", "scope": key}  # fmt: skip
            answer = self._again(lambda: self._client.post(realm, data=form), what)
        else:
            auth = httpx.BasicAuth(known.user, known.password) if known and known.user else None
            query: dict[str, str | list[str]] = {"service": service, "scope": list(scopes)}
            if known and known.user:
                query["account"] = known.user
            answer = self._again(lambda: self._client.get(realm, params=query, auth=auth), what)
        if answer.status_code != 200:
            raise self._refusal(answer, what)
        try:
            found = answer.json()
            token = found.get("token") or found["access_token"]
            lasts = float(found.get("expires_in") or 60)
            if not isinstance(token, str) or "\n" in token:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Error(f"{what}: the answer holds no token") from None
        self._tokens[key] = token, time.monotonic() + lasts * 0.9
        return token

"""The digest of a tag, by the registry's HTTP API with its token flow.

OCI Distribution Specification 1.1 (pull of a manifest) and the token flow that `WWW-Authenticate: Bearer`
asks for (https://distribution.github.io/distribution/spec/auth/token/), which nvcr.io uses.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import requests

from perfgate.errors import DataError, InfrastructureError
from perfgate.util.http import is_loopback, retry_after, silence

TIMEOUT_S: Final = 20.0
ATTEMPTS: Final = 4
_LIMIT_BYTES = 4 << 20  # the specification's limit of a manifest
_MAX_WAIT_S = 60.0
_ACCEPT: Final = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


def resolve_digest(
    registry: str,
    repository: str,
    tag: str,
    *,
    credentials: tuple[str, str] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """`sha256:…` of what a tag names now. The digest is computed from the manifest, not believed.

    `credentials` go to the registry's own host alone. Raises `InfrastructureError`, `DataError`.
    """
    scheme = "http" if is_loopback(registry.split(":")[0]) else "https"
    url = f"{scheme}://{registry}/v2/{repository}/manifests/{tag}"
    with silence(), requests.Session() as session:
        session.trust_env = scheme == "https"
        status, headers, body = _get(session, url, {"Accept": _ACCEPT}, None, sleep)
        if status == 401:
            token = _token(session, headers, registry, repository, credentials, sleep)
            asked = {"Accept": _ACCEPT, "Authorization": f"Bearer {token}"}
            status, headers, body = _get(session, url, asked, None, sleep)
    where = f"{registry}/{repository}:{tag}"
    if status == 404:
        raise DataError("does not exist", where=where, fix="see the registry's list of tags")
    if status != 200:
        raise InfrastructureError(f"HTTP {status}", where=where, fix="NGC_API_KEY, where it needs one")
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    stated = headers.get("Docker-Content-Digest", digest)
    if stated != digest or not isinstance(_object(body), dict):
        raise InfrastructureError("its manifest does not have the digest that it states", where=where)
    return digest


def _token(
    session: requests.Session,
    headers: Mapping[str, str],
    registry: str,
    repository: str,
    credentials: tuple[str, str] | None,
    sleep: Callable[[float], None],
) -> str:
    """A token for pulling, from where the challenge says; the password only where it is this registry."""
    challenge = headers.get("WWW-Authenticate", "")
    fields = dict(re.findall(r'(\w+)="([^"]{0,500})"', challenge))
    realm = fields.get("realm", "")
    host = urlsplit(realm).netloc
    if not challenge.lower().startswith("bearer ") or not host:
        raise InfrastructureError("asks for something else than a token", where=registry)
    if urlsplit(realm).scheme != "https" and not is_loopback(urlsplit(realm).hostname or ""):
        raise InfrastructureError("gives its tokens without https", where=registry)
    query = {"scope": fields.get("scope") or f"repository:{repository}:pull"}
    if "service" in fields:
        query["service"] = fields["service"]
    own = credentials if host == registry else None
    asked = requests.Request("GET", realm, params=query).prepare().url or realm
    status, _, body = _get(session, asked, {}, own, sleep)
    found = _object(body) if status == 200 else None
    token = found.get("token") or found.get("access_token") if isinstance(found, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise InfrastructureError(
            f"gave no token (HTTP {status})", where=host, fix="NGC_API_KEY, where it needs one"
        )
    return token


def _get(
    session: requests.Session,
    url: str,
    headers: Mapping[str, str],
    credentials: tuple[str, str] | None,
    sleep: Callable[[float], None],
) -> tuple[int, Mapping[str, str], bytes]:
    """One GET, again after 429, 5xx and broken transfers. Redirects are refused: a token goes along."""
    fault = ""
    for attempt in range(1, ATTEMPTS + 1):
        wait_s: float | None = None
        try:
            with session.get(
                url,
                headers=dict(headers),
                auth=credentials or (lambda prepared: prepared),
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = bytearray()
                for chunk in response.iter_content(1 << 13):
                    body += chunk
                    if len(body) > _LIMIT_BYTES:
                        raise DataError("answers with far more than a manifest", where=_host(url))
                if response.status_code != 429 and response.status_code < 500:
                    return response.status_code, response.headers, bytes(body)
                fault = f"HTTP {response.status_code}"
                wait_s = retry_after(response.headers.get("Retry-After", ""))
        except (requests.RequestException, OSError) as error:
            fault = f"the request failed ({type(error).__name__})"
        wait_s = 2.0 ** (attempt - 1) if wait_s is None else wait_s
        if attempt == ATTEMPTS or wait_s > _MAX_WAIT_S:
            break
        sleep(wait_s)
    raise InfrastructureError(
        fault, where=_host(url), fix="is there a network? The lock needs one, runs do not"
    )


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _object(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None

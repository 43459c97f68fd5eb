"""The pinned image: references, the lock, and a registry on loopback with nvcr.io's token flow."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from perfgate.cli.app import cli
from perfgate.errors import DataError, InfrastructureError, PerfgateError, UsageError
from perfgate.image.lock import read_lock
from perfgate.image.reference import check_registry, parse_reference
from perfgate.image.registry import resolve_digest

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
PINNED = f"nvcr.io/nvidia/tensorrt:26.05-py3@{DIGEST}"
KEY = "nvapi-secret"


@dataclass
class Registry:
    """Asks for a token as nvcr.io does; what it answers can be bent."""

    host: str = ""
    realm: str = ""
    manifest: bytes = MANIFEST
    stated: str = DIGEST
    failures: list[int] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    need_key: bool = False


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            parts = urlsplit(self.path)
            registry.seen.append((parts.path, authorization))
            if registry.failures:
                return self.reply(registry.failures.pop(0), Retry_After="3")
            if parts.path == "/proxy_auth":
                basic = base64.b64encode(f"$oauthtoken:{KEY}".encode()).decode()
                if registry.need_key and authorization != f"Basic {basic}":
                    return self.reply(401)
                assert parse_qs(parts.query)["scope"] == ["repository:nvidia/tensorrt:pull"]
                return self.reply(200, json.dumps({"token": "t0ken"}).encode())
            if authorization != "Bearer t0ken":
                challenge = f'Bearer realm="{registry.realm}",scope="repository:nvidia/tensorrt:pull"'
                return self.reply(401, WWW_Authenticate=challenge)
            if not parts.path.endswith("/26.05-py3"):
                return self.reply(404)
            return self.reply(200, registry.manifest, Docker_Content_Digest=registry.stated)

    return Handler


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    made.host = f"127.0.0.1:{server.server_port}"
    made.realm = f"http://{made.host}/proxy_auth"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def resolve(registry: Registry, tag: str = "26.05-py3", **more: Any) -> str:
    return resolve_digest(registry.host, "nvidia/tensorrt", tag, **more)


def test_a_tag_is_resolved_through_the_token_flow(registry: Registry) -> None:
    assert resolve(registry) == DIGEST
    assert [path for path, _ in registry.seen] == [
        "/v2/nvidia/tensorrt/manifests/26.05-py3",
        "/proxy_auth",
        "/v2/nvidia/tensorrt/manifests/26.05-py3",
    ]


def test_a_key_goes_to_the_registrys_own_host_alone(registry: Registry) -> None:
    registry.need_key = True
    assert resolve(registry, credentials=("$oauthtoken", KEY)) == DIGEST
    registry.realm = registry.realm.replace("127.0.0.1", "localhost")
    registry.seen.clear()
    with pytest.raises(InfrastructureError, match="gave no token") as caught:
        resolve(registry, credentials=("$oauthtoken", KEY))
    assert not [one for _, one in registry.seen if one.startswith("Basic")]
    assert KEY not in str(caught.value)


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(registry: Registry) -> None:
    registry.manifest = MANIFEST + b" "
    with pytest.raises(InfrastructureError, match="does not have the digest"):
        resolve(registry)


def test_a_token_is_not_asked_for_without_https(registry: Registry) -> None:
    registry.realm = "http://tokens.example.invalid/auth"
    with pytest.raises(InfrastructureError, match="without https"):
        resolve(registry)


def test_a_busy_registry_is_asked_again_and_an_absent_tag_is_not(registry: Registry) -> None:
    slept: list[float] = []
    registry.failures = [429, 503]
    assert resolve(registry, sleep=slept.append) == DIGEST
    assert slept == [3.0, 3.0]
    with pytest.raises(DataError, match="does not exist"):
        resolve(registry, "27.13-py3", sleep=slept.append)
    assert slept == [3.0, 3.0]


@pytest.mark.parametrize(
    "text",
    [
        "nvcr.io/nvidia/tensorrt:26.05-py3",
        "nvcr.io/nvidia/tensorrt:latest",
        f"nvidia/tensorrt@{DIGEST[:-1]}",
        f"tensorrt@{DIGEST}",
        f"nvcr.io/nvidia/tensorrt@{DIGEST}\n",
        f"nvcr.io/nvidia/../evil@{DIGEST}",
        "",
    ],
)
def test_a_floating_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_reference(text, where="here")


def test_only_allowed_registries() -> None:
    pinned = parse_reference(PINNED, where="here")
    check_registry(pinned, ["nvcr.io"])
    foreign = parse_reference(f"ghcr.io/acme/perfgate@{DIGEST}", where="here")
    with pytest.raises(UsageError, match="not from a registry that is allowed"):
        check_registry(foreign, ["nvcr.io"])
    check_registry(foreign, ["nvcr.io", "ghcr.io/acme"])
    for near in ("ghcr.io/acm", "ghcr.io/acme/perf", "cr.io"):
        with pytest.raises(UsageError):
            check_registry(foreign, [near])
    lookalike = parse_reference(f"nvcr.io.evil.test/nvidia/tensorrt@{DIGEST}", where="here")
    with pytest.raises(UsageError):
        check_registry(lookalike, ["nvcr.io"])


def lock_file(tmp_path: Path, **more: Any) -> Path:
    path = tmp_path / "image.lock"
    fields = {"schema": "perfgate-trt/image/v1", "registry": "nvcr.io", "repository": "nvidia/tensorrt"}
    path.write_text(json.dumps({**fields, "tag": "26.05-py3", **more}))
    return path


def image(*args: str | Path, **env: str) -> Result:
    return CliRunner().invoke(cli, ["image", *map(str, args)], env=env)


def test_the_shipped_lock_invents_no_digest_and_verify_refuses_it() -> None:
    lock = read_lock(ROOT / "docker/image.lock")
    assert (lock.registry, lock.repository) == ("nvcr.io", "nvidia/tensorrt")
    if not lock.digest:
        done = image("verify", "--lock", ROOT / "docker/image.lock")
        assert isinstance(done.exception, PerfgateError)
        assert done.exception.exit_code == 2
        assert "perfgate image lock" in str(done.exception)


def test_lock_writes_the_digest_and_drops_the_versions_of_another(tmp_path: Path, registry: Registry) -> None:
    path = lock_file(tmp_path, registry=registry.host, digest=f"sha256:{'0' * 64}", versions={"python": "3"})
    done = image("lock", "26.05-py3", "--lock", path)
    assert done.exit_code == 0, done.exception
    lock = read_lock(path)
    assert (lock.digest, lock.versions) == (DIGEST, {})
    assert json.loads(path.read_text())["versions"] == {}


def test_lock_takes_no_floating_tag(tmp_path: Path, registry: Registry) -> None:
    done = image("lock", "latest", "--lock", lock_file(tmp_path, registry=registry.host))
    assert isinstance(done.exception, DataError)
    assert registry.seen == []


def test_verify_says_what_runs_here_instead_of_what_is_locked(tmp_path: Path) -> None:
    versions = {"tensorrt": "0.0.1", "cuda": "99.9", "python": platform.python_version()}
    path = lock_file(tmp_path, digest=DIGEST, versions=versions)
    done = image("verify", "--lock", path, CUDA_VERSION="13.0")
    assert done.exit_code == 3
    assert "cuda is 13.0, locked is 99.9" in done.output
    assert "tensorrt is" in done.output and "python is" not in done.output


def test_verify_without_versions_refuses_and_the_reference_alone_can_be_checked(tmp_path: Path) -> None:
    path = lock_file(tmp_path, digest=DIGEST)
    assert isinstance(image("verify", "--lock", path).exception, UsageError)
    done = image("verify", "--lock", path, "--reference-only")
    assert done.exit_code == 0
    assert done.output == f"pinned: {PINNED}\n"


@pytest.mark.parametrize("reference", ["ghcr.io/acme/perfgate:latest", f"docker.io/acme/perfgate@{DIGEST}"])
def test_verify_refuses_a_floating_or_foreign_reference(tmp_path: Path, reference: str) -> None:
    path = lock_file(tmp_path, digest=DIGEST)
    done = image("verify", "--lock", path, "--reference-only", "--reference", reference, "--allow", "ghcr.io")
    assert isinstance(done.exception, UsageError)


def test_the_dockerfile_is_built_on_the_lock_alone() -> None:
    text = (ROOT / "docker/Dockerfile").read_text()
    assert {line for line in text.splitlines() if line.startswith("FROM")} == {
        "FROM ${BASE} AS build",
        "FROM ${BASE}",
    }
    assert text.count("--require-hashes") == 3
    for path in (ROOT / "docker").glob("requirements*.txt"):
        pins = [line for line in path.read_text().splitlines() if "==" in line and not line.startswith(" ")]
        assert pins
        assert path.read_text().count("--hash=sha256:") >= len(pins)
        assert "://" not in path.read_text()

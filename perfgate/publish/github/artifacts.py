"""Results files out of another run's artifacts: bounded before, while and after they are unpacked.

An artifact was made where a pull request's code ran. It is a zip of one file that is read, `results.json`;
nothing is written to disk but that, and no name inside it is ever used as a path.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import requests

from perfgate.errors import DataError
from perfgate.publish.github.client import TIMEOUT_S, ApiError, GitHubClient
from perfgate.util.files import RESULTS_LIMIT_BYTES
from perfgate.util.http import is_loopback, silence

PERMISSIONS: Final = "actions: read  # the results of the measuring jobs"
PREFIX: Final = "perfgate-results-"
MEMBER: Final = "results.json"
ZIP_LIMIT_BYTES: Final = 32 << 20
MAX_RATIO: Final = 100  # samples compress about eightfold
MAX_ARTIFACTS: Final = 64
_ATTEMPTS = 3


@dataclass(frozen=True)
class Shard:
    """One measuring job's results, still unparsed."""

    name: str
    data: bytes


def fetch_results(client: GitHubClient, run_id: int) -> list[Shard]:
    """The results of a run, by name; the newest where a re-run uploaded again. Raises `DataError`."""
    newest: dict[str, tuple[int, str]] = {}
    for found in client.pages(f"actions/runs/{run_id}/artifacts", key="artifacts", permissions=PERMISSIONS):
        name, number, url = (found.get(key) for key in ("name", "id", "archive_download_url"))
        if not isinstance(name, str) or not name.startswith(PREFIX) or found.get("expired"):
            continue
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) or not isinstance(number, int):
            raise DataError(f"has an artifact with an odd name: {name[:120]!r}", where=f"run {run_id}")
        if int(found.get("size_in_bytes") or 0) > ZIP_LIMIT_BYTES:
            raise DataError(f"is larger than {ZIP_LIMIT_BYTES >> 20} MiB, and was not fetched", where=name)
        if number > newest.get(name, (0, ""))[0]:
            newest[name] = number, str(url)
    if len(newest) > MAX_ARTIFACTS:
        raise DataError(f"has more than {MAX_ARTIFACTS} results", where=f"run {run_id}")
    return [
        Shard(name=name.removeprefix(PREFIX), data=unpack(_download(client, number), name))
        for name, (number, _) in sorted(newest.items())
    ]


def unpack(data: bytes, name: str) -> bytes:
    """The results file in a zip. Raises `DataError` for anything else that it holds, and for a bomb."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if [member.filename for member in members] != [MEMBER]:
                raise DataError(f"holds something else than one {MEMBER}", where=name)
            size = members[0].file_size
            if size > RESULTS_LIMIT_BYTES or size > MAX_RATIO * max(len(data), 1):
                raise DataError("unpacks to far more than results are", where=name)
            with archive.open(members[0]) as source:
                # The size that a zip states of itself is a claim like any other.
                text = source.read(size + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise DataError(f"is not a zip that can be read ({type(error).__name__})", where=name) from error
    if len(text) != size:
        raise DataError("unpacks to another size than it states", where=name)
    return text


def _download(client: GitHubClient, number: int) -> bytes:
    """The zip: GitHub redirects to a store on another host, which gets no token."""
    answer = client.send("GET", client.repo(f"actions/artifacts/{number}/zip"), permissions=PERMISSIONS)
    location = answer.headers.get("Location", "")
    parts = urlsplit(location)
    if not 300 <= answer.status < 400 or not parts.hostname:
        raise ApiError("did not say where the artifact is", where=f"artifact {number}", status=answer.status)
    if parts.scheme != "https" and not is_loopback(parts.hostname):
        raise ApiError("sends to an address that is not https", where=f"artifact {number}")
    for _ in range(_ATTEMPTS):
        data = _read(location)
        if data is not None:
            return data
    raise ApiError("could not be downloaded", where=f"artifact {number} from {parts.hostname}")


def _read(url: str) -> bytes | None:
    """The bytes behind a signed URL, or None where the transfer broke."""
    try:
        with (
            silence(),
            requests.get(
                url, timeout=TIMEOUT_S, allow_redirects=False, stream=True, auth=lambda prepared: prepared
            ) as response,
        ):
            if response.status_code != 200:
                return None
            data = bytearray()
            for chunk in response.iter_content(1 << 16):
                data += chunk
                if len(data) > ZIP_LIMIT_BYTES:
                    raise DataError(f"is larger than {ZIP_LIMIT_BYTES >> 20} MiB", where="artifact")
            return bytes(data)
    except (requests.RequestException, OSError):
        return None

"""A real headless Chromium for tests, and axe-core from npm; both are skipped with a reason where absent."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "report" / "golden"
AXE_VERSION = "4.14.1"
AXE = Path(__file__).resolve().parents[2] / ".perfgate" / f"axe-core-{AXE_VERSION}" / "package" / "axe.min.js"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-lcd-text",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
)


def chromium() -> str:
    """The path of a Chromium, or skip."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        "",
    )
    if not found:
        pytest.skip("needs Chromium: apt-get install chromium fonts-noto-cjk fonts-dejavu-core")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A browser with a fresh profile, closed at the end."""
    path = chromium()
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(_FLAGS), timeout=60_000)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def page_of(started: Any, path: Path, **options: Any) -> Iterator[Any]:
    """A page that is open on a file. Console messages, errors and requests of any kind fail the test."""
    context = started.new_context(**{"viewport": {"width": 1280, "height": 900}, "offline": True, **options})
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda request: heard.append(f"request: {request.url}"))
    try:
        page.goto(path.as_uri(), wait_until="load")
        assert heard == [f"request: {path.as_uri()}"]
        yield page
        assert heard == [f"request: {path.as_uri()}"]
    finally:
        context.close()


def axe_source() -> str:
    """The text of axe-core, or skip."""
    if not AXE.is_file():
        pytest.skip(f"needs axe-core {AXE_VERSION}: make axe")
    return AXE.read_text(encoding="utf-8")


def same_picture(png: bytes, name: str, *, share: float = 0.02) -> None:
    """Whether a screenshot is the stored one but for a share of pixels: fonts differ a little by machine.

    `PERFGATE_GOLDEN=write` stores it anew; look at it then.
    """
    pictures = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install pillow")
    import numpy as np

    path = GOLDEN / name
    if os.environ.get("PERFGATE_GOLDEN") == "write":
        path.write_bytes(png)
    seen, stored = (
        np.asarray(pictures.open(source).convert("L"), dtype=np.int16) for source in (io.BytesIO(png), path)
    )
    height = min(seen.shape[0], stored.shape[0])
    assert seen.shape[1] == stored.shape[1] and abs(seen.shape[0] - stored.shape[0]) <= 0.02 * stored.shape[0]
    changed = float((np.abs(seen[:height] - stored[:height]) > 48).mean())
    assert changed <= share, f"{changed:.1%} of the pixels of {name} are others"

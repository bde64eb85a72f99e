"""Chromium without a screen, and what can be said of a picture of a page."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
HELP = "pages are looked at in Chromium, which is not on this machine; on Debian: apt-get install chromium"
PHONE, DESK = (390, 844), (1400, 900)

# Background traffic of a browser with nobody in front of it only fills logs.
_FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def chromium() -> str | None:
    """Path of a Chromium, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser; ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, size: tuple[int, int] = DESK, dark: bool = False) -> Iterator[Page]:
    """A page in a profile of its own, in a window of `size` pixels."""
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
    )
    yield context.new_page()
    context.close()


def picture(page: Page, path: Path) -> npt.NDArray[np.uint8]:
    """Screenshot of what the window shows, written to `path` too: (height, width, 3)."""
    raw = page.screenshot(path=path)
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))


def ink(pixels: npt.NDArray[np.uint8]) -> float:
    """Share of the pixels that are clearly unlike the commonest colour: text, lines, bars."""
    flat = pixels.reshape(-1, 3).astype(int)
    colours, counts = np.unique(flat // 8, axis=0, return_counts=True)
    paper = colours[counts.argmax()] * 8
    return float((np.abs(flat - paper).sum(1) > 60).mean())

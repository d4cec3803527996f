"""A headless browser for the tests of pages: where it is, and `python -m tests.browser` installs one."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
SECONDS = 600  #: that an installation may take


def executable():
    """The path of a Chromium on this machine, or of the one that playwright installed; None without one."""
    there = [*filter(None, map(shutil.which, NAMES)), *(path for path in APPLICATIONS if Path(path).exists())]
    if there:
        return there[0]
    with playwright() as driver:
        path = driver and driver.chromium.executable_path
    return path if path and Path(path).exists() else None


@contextlib.contextmanager
def playwright():
    """The driver; None where it is not installed or does not start."""
    try:
        from playwright.sync_api import Error, sync_playwright

        started = sync_playwright().start()
    except (ImportError, OSError) as error:
        print(f"playwright does not start: {error}", file=sys.stderr)
        yield None
        return
    try:
        yield started
    finally:
        with contextlib.suppress(Error):
            started.stop()


@contextlib.contextmanager
def browser():
    """A headless Chromium, and an empty reason; or None, and why there is none."""
    path = executable()
    with playwright() as driver:
        if driver is None or path is None:
            missing = "playwright (pip install playwright)" if driver is None else "a browser (make browser)"
            yield None, f"this machine lacks {missing}"
            return
        try:
            launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Exception as error:  # a library is missing, say
            yield None, f"{path} does not start: {str(error).partition(chr(10))[0]}"
            return
        try:
            yield launched, ""
        finally:
            launched.close()


def install():
    """Install a browser unless one starts: by playwright, or the system's package manager. Returns why none does."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    apt = ["apt-get"] if root and shutil.which("apt-get") else []
    ways = [
        [],
        [sys.executable, "-m", "playwright", "install", "chromium"],
        [sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"] if root else [],
        apt and [*apt, "install", "-y", "--no-install-recommends", "chromium"],
        apt and [*apt, "update"],
        apt and [*apt, "install", "-y", "--no-install-recommends", "chromium"],
    ]
    reason = ""
    with playwright() as driver:
        if driver is None:
            return "this machine lacks playwright (pip install playwright)"
    for way in ways:
        if way:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                print("$", *way, flush=True)
                subprocess.run(way, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL)
        with browser() as (there, missing):
            reason = missing
            if there is not None:
                print(f"a browser for the tests: version {there.version}")
                return ""
    return reason


if __name__ == "__main__":
    sys.exit(install() or 0)

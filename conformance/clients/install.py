"""Getting the JavaScript clients: from the npm registry, at the versions of the lock file, into the user's cache.

`python -m roadworthy.conformance.clients.install` does it from a shell.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from roadworthy.errors import RoadworthyError

PACKAGES = ("@huggingface/inference", "openai")
MIN_NODE = 18
ADVICE = "run `python -m roadworthy.conformance.clients.install`, which needs npm and its registry once"
NODE_ADVICE = f"install Node.js {MIN_NODE} or newer, with npm, so that `node` is on PATH"
_MANIFESTS = ("package.json", "package-lock.json")
JAVASCRIPT = Path(__file__).parent / "javascript"
_ANSWER_S = 20.0
_LINES_SHOWN = 3


class NotInstallableError(RoadworthyError):
    """The JavaScript clients could not be installed; the message says why and what to do."""


def home() -> Path:
    """Where the packages of this lock file belong, whether or not they are there."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    lock = hashlib.sha256(b"\0".join((JAVASCRIPT / name).read_bytes() for name in _MANIFESTS)).hexdigest()
    return cache / "roadworthy" / "clients" / lock[:16]


def installed() -> Path | None:
    """The folder that holds `node_modules` with every package, or None."""
    try:
        folder = home()
        whole = all((folder / "node_modules" / package / "package.json").is_file() for package in PACKAGES)
    except (OSError, RuntimeError):
        return None
    return folder if whole else None


def node() -> tuple[str, str | None]:
    """The path of a usable Node.js and None, or "" and what is wrong."""
    found = shutil.which("node")
    if found is None:
        return "", f"Node.js was not found: {NODE_ADVICE}"
    try:
        done = subprocess.run(  # noqa: S603 - the user's own node, no shell
            [found, "--version"], capture_output=True, text=True, errors="replace", timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{found} cannot be run ({type(error).__name__}): {NODE_ADVICE}"
    said = done.stdout.strip()
    major = said.removeprefix("v").partition(".")[0]
    if not (major.isascii() and major.isdigit()) or int(major) < MIN_NODE:
        return "", f"{found} says it is version {said[:40]!r}: {NODE_ADVICE}"
    return found, None


def install(timeout_s: float = 300.0) -> Path:
    """Install the packages with `npm ci` and return their folder; does nothing where they are there already.

    No script of any package is run. The folder appears whole or not at all, also where several runs install at once.
    Raises `NotInstallableError`.
    """
    _, fault = node()
    npm = shutil.which("npm")
    if fault is None and npm is None:
        fault = f"npm was not found: {NODE_ADVICE}"
    if fault is not None or npm is None:
        raise NotInstallableError(f"the JavaScript clients cannot be installed: {fault}")
    present = installed()
    if present is not None:
        return present
    try:
        target = home()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".installing-", dir=target.parent) as made:
            folder = Path(made) / "clients"
            folder.mkdir()
            for name in _MANIFESTS:
                (folder / name).write_bytes((JAVASCRIPT / name).read_bytes())
            _run_npm(npm, folder, timeout_s)
            _put(folder, target)
    except (OSError, RuntimeError) as error:
        raise NotInstallableError(
            f"the JavaScript clients cannot be installed: {error}. "
            "Make the cache folder writable, or name another in XDG_CACHE_HOME."
        ) from None
    present = installed()
    if present is None:
        raise NotInstallableError(
            f"npm ended well, yet {target} lacks one of {', '.join(PACKAGES)}; remove it and retry"
        )
    return present


def _run_npm(npm: str, folder: Path, timeout_s: float) -> None:
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
    try:
        done = subprocess.run(  # noqa: S603 - the user's own npm, no shell
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstallableError(
            f"`npm ci` did not finish in {timeout_s:g} s: check that this machine reaches the npm registry, and retry"
        ) from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "npm error" in line or "npm ERR!" in line]
        said = " | ".join(line.strip() for line in (errors or done.stderr.splitlines())[:_LINES_SHOWN])
        raise NotInstallableError(
            f"`npm ci` failed with code {done.returncode}: {said or 'it said nothing'}. "
            "Check that this machine reaches the npm registry, and retry."
        )


def _put(folder: Path, target: Path) -> None:
    """Move the finished folder to its place; one that another run put there meanwhile is as good."""
    if target.exists() and installed() is None:
        shutil.rmtree(target, ignore_errors=True)
    try:
        folder.rename(target)
    except OSError:
        if installed() is None:
            raise


def main() -> int:
    """Install from a shell and say where; gives the exit code."""
    try:
        folder = install()
    except NotInstallableError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"The JavaScript clients are in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fetch the dashboard's two JavaScript libraries from the npm registry into api/pages/vendor.

`make install` and the images run it. It needs no npm and nothing but the standard library. The versions and
the checksums of the packages are in api/pages/vendor.json: another content is refused. The registry is that
of NPM_CONFIG_REGISTRY, or of npm's own configuration, or the public one.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PAGES = Path(__file__).resolve().parent
_PUBLIC = "https://registry.npmjs.org"
_TRIES = 4


def registry() -> str:
    """Where npm packages come from on this machine."""
    if named := os.environ.get("NPM_CONFIG_REGISTRY"):
        return named.rstrip("/")
    if npm := shutil.which("npm"):
        found = subprocess.run(
            [npm, "config", "get", "registry"], capture_output=True, text=True, check=False
        )
        if found.returncode == 0 and found.stdout.startswith("http"):
            return found.stdout.strip().rstrip("/")
    return _PUBLIC


def fetch(url: str) -> bytes:
    """The content of a URL. Raises `SystemExit` with a sentence."""
    for tried in range(1, _TRIES + 1):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (the registry of who installs)
                return bytes(answer.read())
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if tried == _TRIES:
                sys.exit(f"{url}: {error}. NPM_CONFIG_REGISTRY names another registry.")
            time.sleep(tried)
    raise AssertionError


def verified(package: bytes, integrity: str, name: str) -> bytes:
    """The package, if it has the checksum. Raises `SystemExit`."""
    digest = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
    if digest != integrity:
        sys.exit(f"{name}: the package has the checksum {digest}, and vendor.json expects {integrity}")
    return package


def fetch_all(listed: Path, folder: Path) -> None:
    """Put the files of a list of packages into a folder, unless it has them. Raises `SystemExit`."""
    wanted, stamp = listed.read_bytes(), folder / listed.name
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    place = registry()
    for name, package in json.loads(wanted).items():
        url = f"{place}/{name}/-/{name}-{package['version']}.tgz"
        content = verified(fetch(url), package["integrity"], name)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for inside, file in package["files"].items():
                member = archive.extractfile(f"package/{inside}")
                assert member is not None, f"{name} has no file {inside}"
                (folder / file).write_bytes(member.read())
    stamp.write_bytes(wanted)  # last: what was interrupted is fetched again


if __name__ == "__main__":
    fetch_all(PAGES / "vendor.json", PAGES / "vendor")

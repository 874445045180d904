"""A dataset's name becomes verified files on this machine.

Three places are asked in turn: the directory named by `$TXFM_LITE_DATA`, laid out as
`<group>/<dataset>/<file>`; the cache (`$TXFM_LITE_CACHE`, or the system's); the URL in the manifest. A
checksum is compared every time, because a truncated file often still opens.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

from txfm_lite import manifests

logger = logging.getLogger("txfm_lite")

TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer


class Unreachable(OSError):
    """A file is neither here nor to be had from its URL."""


class ChecksumError(ValueError):
    """A file is not the one that its manifest describes."""


def local_directory() -> Path | None:
    """Return the directory named by `$TXFM_LITE_DATA`, or None."""
    named = os.environ.get("TXFM_LITE_DATA")
    return Path(named).expanduser() if named else None


def cache_directory() -> Path:
    """Return the directory that downloads go to."""
    named = os.environ.get("TXFM_LITE_CACHE")
    if named:
        return Path(named).expanduser()
    import pooch

    return Path(pooch.os_cache("txfm_lite"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, part: str | None = None) -> list[Path]:
    """Return the verified local files of a dataset, downloading what is missing.

    Parameters
    ----------
    name
        A dataset, see `datasets.available`.
    part
        Only the files of this part, in its reader's order; by default all files of the dataset.

    Raises
    ------
    ChecksumError
        If a file is truncated or otherwise not what the manifest says.
    Unreachable
        If a file is not here and can't be downloaded; the message says where to put it by hand.
    """
    manifest = manifests.read(name)
    wanted = [f.file for f in manifest.files] if part is None else manifest.part(part).files
    return [_fetch(manifest, manifest.file(file)) for file in wanted]


def missing(name: str, part: str | None = None) -> list[str]:
    """Return the files of a dataset that would have to be downloaded."""
    manifest = manifests.read(name)
    wanted = [f.file for f in manifest.files] if part is None else manifest.part(part).files
    return [file for file in wanted if _find(manifest, file) is None]


def _places(manifest: manifests.Manifest, file: str) -> list[Path]:
    roots = [local_directory(), cache_directory()]
    return [root / manifest.group / manifest.name / file for root in roots if root is not None]


def _find(manifest: manifests.Manifest, file: str) -> Path | None:
    return next((path for path in _places(manifest, file) if path.is_file()), None)


def _fetch(manifest: manifests.Manifest, file: manifests.File) -> Path:
    """Return one verified file (see `fetch`)."""
    path, cached = _find(manifest, file.file), _places(manifest, file.file)[-1]
    if path is None:
        path = _download(manifest, file, cached)
    record = cached.with_name(cached.name + ".sha256.json")
    if file.sha256 == "unverified":
        _trust_on_first_use(path, file, record)
    else:
        _verify(path, file.sha256, file.bytes, "the manifest")
    return path


def _verify(path: Path, expected: str, size: int, authority: str) -> None:
    """Compare a file with its checksum, telling a truncated file from another one."""
    found = sha256(path)
    if found == expected:
        return
    actual = path.stat().st_size
    short = f"it is truncated ({actual:,} of {size:,} bytes)" if actual < size else "its content differs"
    raise ChecksumError(
        f"{path}: {short}; {authority} says sha256 {expected}, found {found}. Delete it and fetch it again."
    )


def _trust_on_first_use(path: Path, file: manifests.File, record: Path) -> None:
    """Nobody could compute this file's checksum beforehand: note the first one seen, insist on it later."""
    if record.is_file():
        known = json.loads(record.read_text())
        _verify(path, known["sha256"], known["bytes"], record.name)
        return
    entry = {"file": file.file, "url": file.url, "sha256": sha256(path), "bytes": path.stat().st_size}
    record.parent.mkdir(parents=True, exist_ok=True)
    aside = record.with_name(record.name + ".tmp")
    aside.write_text(json.dumps(entry, indent=1) + "\n")
    aside.replace(record)
    logger.warning(
        "%s: its manifest has no checksum, so nobody vouches for its content; got sha256 %s, recorded in %s",
        path, entry["sha256"], record,
    )  # fmt: skip


def _download(manifest: manifests.Manifest, file: manifests.File, target: Path) -> Path:
    """Download one file to `target`; a half-done download is continued where it broke off."""
    import pooch
    import requests

    by_hand = target if local_directory() is None else _places(manifest, file.file)[0]
    if not file.url:
        raise Unreachable(f"{manifest.name}: {file.file} has no URL; {manifest.note} Put it at {by_hand}")
    target.parent.mkdir(parents=True, exist_ok=True)
    known = None if file.sha256 == "unverified" else f"sha256:{file.sha256}"
    try:
        pooch.retrieve(file.url, known, fname=target.name, path=target.parent, downloader=_resume)
    except requests.RequestException as fault:
        raise Unreachable(
            f"{manifest.name}: can't download {file.file} from {file.url} ({type(fault).__name__}). Fetch it "
            f"on a machine with internet and put it at {by_hand}, or set TXFM_LITE_DATA to a directory with "
            f"it as {manifest.group}/{manifest.name}/{file.file}."
        ) from fault
    except ValueError as fault:  # pooch's word for a wrong checksum
        raise ChecksumError(f"{manifest.name}: what {file.url} sent is not {file.file}: {fault}") from fault
    return target


def _resume(url: str, output: str, pooch: object) -> None:
    """Download for pooch, but keep the bytes of a broken download and go on from there next time."""
    import requests
    from tqdm.auto import tqdm

    target = Path(output)
    # pooch names its own temporary file anew each time, so the part is kept under the URL's hash
    part = target.with_name(hashlib.sha256(url.encode()).hexdigest()[:16] + ".part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 416:  # nothing is left to send: the part is whole, or stale
            part.replace(target)
            return
        answer.raise_for_status()
        continued = answer.status_code == 206
        total = int(answer.headers.get("Content-Length", 0)) + (have if continued else 0)
        bar = tqdm(total=total or None, initial=have if continued else 0, unit="B", unit_scale=True,
                   desc=url.rsplit("/", 1)[-1], disable=None)  # fmt: skip
        with bar, open(part, "ab" if continued else "wb") as file:
            for piece in answer.iter_content(1 << 16):
                file.write(piece)
                bar.update(len(piece))
    part.replace(target)

"""A folder behind a URL: s3:// and whatever else fsspec opens.

Reads and writes are tried again, with growing waits, while the connection is lost; every error that a user can do
something about is a FangcunError. Nothing here deletes.
"""

from __future__ import annotations

import hashlib
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fangcun.errors import FangcunError, OutOfReachError
from fangcun.urls import scheme_of

Result = TypeVar("Result")
Warn = Callable[[str], None]

RETRY_WAITS_SECONDS: tuple[float, ...] = (1, 2, 4, 8, 15, 30, 30, 30)
"""Waits before each new attempt: two minutes in all."""
CHUNK_BYTES = 8 << 20
CONNECTIONS = 32

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "oss": "ossfs",
             "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "hf": "huggingface_hub"}  # fmt: skip
"""What fsspec needs beside itself."""
_WITH_FOLDERS = {"file", "local", "memory", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs"}
"""Where a file needs its folder made first. With object stores that would make a bucket, which is not ours to do."""
_REFUSALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
             "TokenRetrievalError", "UnauthorizedSSOTokenError", "DefaultCredentialsError"}  # fmt: skip
"""Errors of cloud libraries, by name, that mean missing rights."""
_MISTAKES = {"ParamValidationError", "InvalidRegionError", "UnknownEndpointError"}
_BUGS = (
    TypeError,
    AttributeError,
    NameError,
    LookupError,
    AssertionError,
    ImportError,
    NotImplementedError,
    RecursionError,
    MemoryError,
)


class RightsError(OutOfReachError):
    """A store that refuses. S3 refuses as well to say that a file is missing, to whom may not list the bucket."""


def warn_plainly(text: str) -> None:
    """Where no console was given: a warning of Python's own."""
    warnings.warn(text, RuntimeWarning, stacklevel=3)


class RemoteFolder:
    """Files below a URL, by name. Safe to use from several threads."""

    def __init__(self, url: str, *, warn: Warn = warn_plainly, files: tuple[Any, str] | None = None) -> None:
        """`files`: fsspec's file system and the path in it, where they are known. Raises FangcunError."""
        self.url, self.warn = url.rstrip("/"), warn
        self._files, self._root = files or _open(url)
        self.missing = ""
        """What the store said when a file was last found missing: that there is no such bucket, or no such file."""
        self._telling, self._quiet_until = threading.Lock(), 0.0

    def __str__(self) -> str:
        return self.url

    def below(self, name: str) -> RemoteFolder:
        """The sub-folder `name`."""
        return RemoteFolder(f"{self.url}/{name}", warn=self.warn, files=(self._files, f"{self._root}/{name}"))

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """A file's bytes start … stop - 1, or all of it. Raises FangcunError, also where it is not there."""
        try:
            return self._read(name, start, stop)
        except FileNotFoundError as error:
            raise OutOfReachError(f"{self.url}/{name} is not there ({_words(error)}). Check the URL.") from error

    def read_if_there(self, name: str) -> bytes | None:
        """All of a file, or None where there is no such file (or bucket)."""
        try:
            return self._read(name, None, None)
        except FileNotFoundError as error:
            self.missing = _words(error)
            return None

    def _read(self, name: str, start: int | None, stop: int | None) -> bytes:
        def attempt() -> bytes:
            content = bytes(self._files.cat_file(f"{self._root}/{name}", start=start, end=stop))
            if start is not None and stop is not None and len(content) != stop - start:
                raise ConnectionError(f"{len(content):,} of {stop - start:,} bytes arrived")
            return content

        return self._persist(name, attempt)

    def size_bytes(self, name: str) -> int | None:
        """Size of a file, as it is now; None where there is none."""

        def attempt() -> int | None:
            self._files.invalidate_cache()
            info = self._files.info(f"{self._root}/{name}")
            return None if info.get("type") == "directory" else int(info["size"])

        try:
            return self._persist(name, attempt)
        except FileNotFoundError:
            return None

    def sha256(self, name: str, size_bytes: int) -> str:
        """sha256 (hex) of a file of this size, read through once."""
        digest = hashlib.sha256()
        for start in range(0, size_bytes, CHUNK_BYTES):
            digest.update(self.read(name, start, min(start + CHUNK_BYTES, size_bytes)))
        return digest.hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, in the place of one that is there. Raises FangcunError."""
        self._put(name, lambda path: self._files.pipe_file(path, content))

    def send(self, name: str, file: Path) -> None:
        """Copy a local file up, in the place of one that is there. Raises FangcunError."""
        self._put(name, lambda path: self._files.put_file(str(file), path))

    def _put(self, name: str, put: Callable[[str], Any]) -> None:
        def attempt() -> None:
            if scheme_of(self.url) in _WITH_FOLDERS:
                self._files.makedirs(self._root, exist_ok=True)
            put(f"{self._root}/{name}")

        try:
            self._persist(name, attempt)
        except FileNotFoundError as error:
            raise FangcunError(
                f"{self.url}/{name} cannot be written: {_words(error)}. Make the bucket first, or give another URL."
            ) from error

    def _persist(self, name: str, attempt: Callable[[], Result]) -> Result:
        """`attempt`, again and again while what fails may heal. FileNotFoundError passes."""
        for wait_seconds in (*RETRY_WAITS_SECONDS, None):
            try:
                return attempt()
            except FileNotFoundError:
                raise
            except Exception as error:
                self._refuse(name, error)
                told = f"{type(error).__name__}: {_words(error)}"
                if wait_seconds is not None:
                    self._tell(f"{self.url}/{name}: {told}; trying again in {wait_seconds:g} s.", wait_seconds)
                if wait_seconds is None or not _wait(wait_seconds):
                    raise OutOfReachError(
                        f"{self.url}/{name}: the connection is lost ({told}; tried {len(RETRY_WAITS_SECONDS) + 1} times). Nothing that was "
                        "saved is lost: run the same command again to go on."
                    ) from error
        raise AssertionError("unreachable")

    def _refuse(self, name: str, error: Exception) -> None:
        """Raise for what no waiting heals: FangcunError, or the error itself where it is a bug."""
        kind = type(error).__name__
        if isinstance(error, PermissionError) or kind in _REFUSALS:
            raise RightsError(
                f"{self.url}/{name}: no rights ({_words(error)}). Check the credentials (for S3: AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY or ~/.aws, and AWS_ENDPOINT_URL for a service that is not Amazon's) and what they allow."
            ) from error
        if kind in _MISTAKES or isinstance(error, ValueError):
            raise FangcunError(f"{self.url}/{name}: {_words(error)}. Check the URL.") from error
        if isinstance(error, _BUGS):
            raise error

    def _tell(self, text: str, wait_seconds: float) -> None:
        """A warning, but not one from each of many threads that meet the same trouble."""
        with self._telling:
            now = time.monotonic()
            if now < self._quiet_until:
                return
            self._quiet_until = now + wait_seconds
        self.warn(text)


def _wait(seconds: float) -> bool:
    """Wait; False when the program is ending meanwhile, which a waiting thread would keep it from."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not threading.main_thread().is_alive():
            return False
        time.sleep(min(left, 0.2))
    return True


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _options(scheme: str) -> dict[str, Any]:
    """As many connections as threads that read: botocore stops at ten otherwise. The user's own settings of fsspec stand."""
    from fsspec.config import conf

    if scheme not in ("s3", "s3a") or "config_kwargs" in conf.get("s3", {}):
        return {}
    return {"config_kwargs": {"max_pool_connections": CONNECTIONS}}


def _open(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it."""
    scheme = scheme_of(url)
    package = _PACKAGES.get(scheme)
    advice = f"pip install {package}" if package not in (None, "s3fs") else 'pip install "fangcun[remote]"'
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise FangcunError(f"{url}: URLs need the package fsspec. Install it: {advice}.") from error
    try:
        files, path = url_to_fs(url, **_options(scheme))
    except ImportError as error:
        raise FangcunError(
            f"{url}: {scheme}:// needs a package that is not installed ({_words(error)}). Install it: {advice}."
        ) from error
    except ValueError as error:
        raise FangcunError(f"{url}: {_words(error)}. Expected a URL such as s3://bucket/run.") from error
    except Exception as error:  # file systems that connect when they are made
        raise FangcunError(
            f"{url} cannot be opened ({type(error).__name__}: {_words(error)}). Check the URL and the connection."
        ) from error
    if not path.strip("/"):
        raise FangcunError(f"{url} names no folder. Expected a URL such as s3://bucket/run.")
    return files, path.rstrip("/")

"""Hugging Face's API, which its mirrors speak too.

Read in huggingface_hub (github:huggingface/huggingface_hub at ee0a4510): `HfApi.repo_info` and `HfApi.list_repo_tree` in
hf_api.py, `RepoFile`, `paginate` in utils/_pagination.py, `hf_raise_for_status` in utils/_http.py, `hf_hub_url` in
file_download.py. For a file in LFS the tree tells the sha256 of its content, for one in git the name of its blob.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

from fangcun.errors import FangcunError
from fangcun.hubs.failures import StatusError
from fangcun.hubs.listing import Listing, RemoteFile, by_path, remote_file
from fangcun.hubs.sources import KINDS, Repository
from fangcun.hubs.transport import Transport

DEFAULT_REVISION = "main"
_NEXT = re.compile(r"<([^>]*)>\s*;[^,<]*\brel=\"?next\b")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def list_repository(transport: Transport, revision: str | None) -> Listing:
    """The files at the commit that `revision` is now, so that what is fetched is of one commit. Raises StatusError."""
    repository = transport.repository
    asked = revision or DEFAULT_REVISION
    info, _ = transport.get_json(f"{repository.api}/revision/{quote(asked, safe='')}")
    commit = info.get("sha") if isinstance(info, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise FangcunError(
            f"{repository.host} does not tell the commit of {repository.name}. Is it a mirror of the Hugging Face API?"
        )
    files: list[RemoteFile] = []
    tree = f"{repository.api}/tree/{commit}"
    query: str | None = "recursive=true"
    seen = set()
    while query is not None:
        if query in seen:
            raise FangcunError(
                f"{repository.host} lists the same page of {repository.name} twice. Choose another --source."
            )
        seen.add(query)
        page, headers = transport.get_json(f"{tree}?{query}", allowed=True)
        files += _files_of(page, repository, commit)
        following = _NEXT.search(headers.get("Link", ""))
        # Mirrors pass on the address of huggingface.co itself: its query alone is used, on the mirror.
        query = urlsplit(following[1]).query if following else None
    return Listing(asked, commit, by_path(files))


def _files_of(page: Any, repository: Repository, commit: str) -> list[RemoteFile]:
    if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
        raise FangcunError(f"{repository.host} answers no list of files. Is it a mirror of the Hugging Face API?")
    prefix = "datasets/" if repository.kind == "dataset" else ""
    base = f"{repository.endpoint}/{prefix}{quote(repository.name)}/resolve/{commit}/"
    files = []
    for entry in page:
        if entry.get("type") != "file":
            continue
        path, stored = entry.get("path"), entry.get("lfs")
        stored = stored if isinstance(stored, dict) else None
        files.append(
            remote_file(
                path,
                (stored or entry).get("size"),
                base + quote(str(path), errors="surrogatepass"),
                sha256=stored and stored.get("oid"),
                git_sha1=None if stored else entry.get("oid"),
            )
        )
    return files


def other_kind(transport: Transport) -> str | None:
    """The other kind, when a repository of this name is one."""
    repository = transport.repository
    [kind] = set(KINDS) - {repository.kind}
    try:
        transport.get_json(f"{repository.endpoint}/api/{kind}s/{quote(repository.name)}")
    except (StatusError, FangcunError):
        return None
    return kind

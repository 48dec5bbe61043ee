"""ModelScope's API.

Read in modelscope_hub 0.5.1, to which modelscope's own hub/api.py has moved: `LegacyClient.list_repo_files`,
`_walk_repo_files`, `list_dataset_files_paginated`, `_request_repo_tree`, `list_revisions` and `get_download_url` in
_legacy_api.py, `REPO_FILES_TRUNCATION_LIMIT` in constants.py; and in modelscope (github:modelscope/modelscope at 2da1d949)
`HubApi.get_model_files` and `get_dataset_files` in hub/api.py. Every file's sha256 is told.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from fangcun.errors import FangcunError
from fangcun.hubs.failures import StatusError, printable
from fangcun.hubs.listing import Listing, RemoteFile, by_path, remote_file
from fangcun.hubs.sources import KINDS, Repository
from fangcun.hubs.transport import Transport

DEFAULT_REVISION = "master"
MODEL_LISTING_LIMIT = 3000
"""A model's listing ends here without saying so; a dataset's comes in pages."""
_PAGE_FILES = 200
_COMMIT = re.compile(r"[0-9a-f]{40}")

Entry = dict[str, Any]


def list_repository(transport: Transport, revision: str | None) -> Listing:
    """The files of a branch or tag. Raises StatusError, and FangcunError for a revision that is not there.

    Files are fetched by the name of the revision: nothing says that a commit would do. What changes in between is found by
    its sha256.
    """
    repository = transport.repository
    asked = revision or DEFAULT_REVISION
    listing = _Listing(transport, asked)
    entries = listing.of_dataset() if repository.kind == "dataset" else listing.of_model("")
    files = [_file(entry, repository, asked) for entry in entries if entry.get("Type", "blob") != "tree"]
    if not files:
        # An unknown revision is no error there: it has no files.
        names = _revisions(transport)
        if asked not in names:
            raise FangcunError(
                f"{repository.name} has no revision '{asked}'. There are {', '.join(names) or 'none'}: --revision NAME."
            )
    return Listing(asked, _commit(entries, listing.newest), by_path(files))


class _Listing:
    """Requests for one listing, and the beginning of the newest commit's name that they tell."""

    def __init__(self, transport: Transport, revision: str) -> None:
        self._transport, self._revision = transport, revision
        self._allowed = False
        self.newest = ""

    def of_dataset(self) -> list[Entry]:
        found: dict[str, Entry] = {}
        page = 1
        while True:
            entries = self._request("tree", page=page)
            before = len(found)
            found.update((str(entry.get("Path")), entry) for entry in entries)
            # The second: a server that knows no pages tells all at once.
            if len(entries) < _PAGE_FILES or len(found) == before:
                return list(found.values())
            page += 1

    def of_model(self, folder: str) -> list[Entry]:
        """All below a folder; where that is more than one answer may hold, folder by folder."""
        entries = self._request("files", folder)
        if len(entries) < MODEL_LISTING_LIMIT:
            return entries
        children = self._request("files", folder, recursive=False)
        if len(children) >= MODEL_LISTING_LIMIT:
            raise FangcunError(
                f"ModelScope lists at most {MODEL_LISTING_LIMIT:,} files of a folder, and {folder or 'the first'} has more. Choose another --source."
            )
        found = []
        for child in children:
            found += self.of_model(str(child.get("Path"))) if child.get("Type") == "tree" else [child]
        return found

    def _request(self, what: str, folder: str = "", *, recursive: bool = True, page: int = 0) -> list[Entry]:
        query: dict[str, Any] = {"Revision": self._revision, "Recursive": str(recursive)}
        query |= {"Root": folder} if folder else {}
        query |= {"PageNumber": page, "PageSize": _PAGE_FILES} if page else {}
        data = data_of(self._transport, f"/repo/{what}?{urlencode(query)}", allowed=self._allowed)
        self._allowed = True
        entries = data.get("Files") if isinstance(data, dict) else data
        if not isinstance(entries or [], list) or not all(isinstance(entry, dict) for entry in entries or []):
            raise FangcunError(f"{self._transport.repository.host} answers no list of files. Choose another --source.")
        latest = data.get("LatestCommitter") if isinstance(data, dict) else None
        if isinstance(latest, dict) and not self.newest:
            self.newest = str(latest.get("Id") or latest.get("ShortId") or "")
        return entries or []


def data_of(transport: Transport, path: str, *, allowed: bool = False) -> Any:
    """What an answer carries in its envelope. Raises StatusError where the envelope says no."""
    answer, _ = transport.get_json(transport.repository.api + path, allowed=allowed)
    if not isinstance(answer, dict):
        raise FangcunError(f"{transport.repository.host} answers in a form that is not known. Choose another --source.")
    if answer.get("Success") is False or answer.get("Code", 200) not in (200, None):
        code, message = answer.get("Code"), str(answer.get("Message") or "")
        status = code if isinstance(code, int) and 400 <= code < 500 else 400
        raise StatusError(status, transport.repository.host, None, message)
    return answer.get("Data")


def _file(entry: Entry, repository: Repository, revision: str) -> RemoteFile:
    path = entry.get("Path")
    query = urlencode({"Revision": revision, "FilePath": str(path)}, errors="surrogatepass")
    return remote_file(path, entry.get("Size"), f"{repository.api}/repo?{query}", sha256=entry.get("Sha256"))


def _commit(entries: list[Entry], newest: str) -> str | None:
    """The whole name of the newest commit, of which the listing tells eight letters: some file was changed by it."""
    if len(newest) < 8:
        return None
    known = (str(entry.get("Revision") or "") for entry in entries)
    return next((commit for commit in known if _COMMIT.fullmatch(commit) and commit.startswith(newest)), None)


def _revisions(transport: Transport) -> list[str]:
    try:
        data = data_of(transport, "/revisions", allowed=True)
    except StatusError:
        return []
    found = data.get("RevisionMap") if isinstance(data, dict) else None
    entries = [entry for key in ("Branches", "Tags") for entry in (found or {}).get(key) or []]
    return [printable(str(entry.get("Revision"))) for entry in entries if isinstance(entry, dict)]


def other_kind(transport: Transport) -> str | None:
    """The other kind, when a repository of this name is one."""
    repository = transport.repository
    [kind] = set(KINDS) - {repository.kind}
    try:
        answer, _ = transport.get_json(f"{repository.endpoint}/api/v1/{kind}s/{quote(repository.name)}")
    except (StatusError, FangcunError):
        return None
    return kind if isinstance(answer, dict) and answer.get("Success") and answer.get("Data") else None

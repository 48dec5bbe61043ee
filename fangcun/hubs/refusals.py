"""An answer 401, 403 or 404, said in a sentence that tells what to do."""

from __future__ import annotations

from fangcun.errors import FangcunError
from fangcun.hubs import huggingface, modelscope
from fangcun.hubs.failures import StatusError
from fangcun.hubs.transport import Transport


def list_error(refusal: StatusError, transport: Transport, revision: str | None) -> FangcunError:
    """Why a listing was refused. Asks the hub once more, whether the name is of the other kind."""
    repository = transport.repository
    if refusal.code == "RevisionNotFound":
        return FangcunError(
            f"{repository.name} has no revision '{revision}' at {repository.host}. See {repository.page}"
        )
    missing = refusal.status == 404 or (refusal.status == 400 and repository.is_modelscope)
    if missing or refusal.status == 401:
        hub = modelscope if repository.is_modelscope else huggingface
        kind = hub.other_kind(transport)
        if kind:
            return FangcunError(
                f"{repository.name} is no {repository.kind} at {repository.host} but a {kind}: add --kind {kind}."
            )
    # Without a token Hugging Face says 401 of what it does not have, so that nobody learns what is private.
    if missing or (refusal.status == 401 and not repository.token):
        hidden = "" if repository.token else f" If it is private or gated: {_token_hint(transport)}"
        said = f" ({refusal.message})" if refusal.message else ""
        return FangcunError(
            f"{repository.host} has no {repository.kind} {repository.name}{said}. Check the name on its page; repositories are not the same on all hubs.{hidden}"
        )
    return _refused(refusal, transport, "the listing")


def file_error(refusal: StatusError, transport: Transport, path: str) -> FangcunError:
    """Why a file of the listing was refused."""
    if refusal.status == 404:
        return FangcunError(
            f"{transport.repository.host} lists {path} and does not have it: the repository may have changed just now. Run the same command again."
        )
    return _refused(refusal, transport, path)


def _refused(refusal: StatusError, transport: Transport, what: str) -> FangcunError:
    repository = transport.repository
    said = f": {refusal.message}" if refusal.message else ""
    begin = f"{refusal.host or repository.host} refuses {what} (HTTP {refusal.status}{said})."
    if refusal.status not in (401, 403):
        return FangcunError(f"{begin} Look at {repository.page}, or choose another --source.")
    if repository.token and refusal.host != repository.host:
        return FangcunError(
            f"{begin} {repository.host} sends there, and the token goes to {repository.host} alone. Choose another --source."
        )
    if not repository.token:
        return FangcunError(
            f"{begin} {repository.name} is private or gated: where there are terms, accept them on {repository.page}; then {_token_hint(transport)}"
        )
    return FangcunError(
        f"{begin} The token in {repository.token_variable} does not open {repository.name}: accept its terms on {repository.page}, and see that the token may read it."
    )


def _token_hint(transport: Transport) -> str:
    repository = transport.repository
    if repository.source in ("modelscope", "huggingface"):
        return f"set {repository.token_variable} to a token of yours that may read it."
    return f"set HF_TOKEN and add --send-token, which lets {repository.host} see the token."

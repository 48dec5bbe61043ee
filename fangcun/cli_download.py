"""`fangcun download`: a corpus, a tokenizer or a model by name, from the hub that the user names."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from cyclopts import Parameter

Switch = Annotated[bool, Parameter(negative=())]


def download(
    name: str,
    /,
    *,
    source: str | None = None,
    kind: Literal["dataset", "model"] = "dataset",
    include: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    revision: str | None = None,
    out: str | None = None,
    offline: Switch = False,
    dry_run: Switch = False,
    verify: Switch = False,
    connections: int = 4,
    send_token: Switch = False,
) -> int:
    """Fetch a corpus, a tokenizer or a model by name into a plain folder, for --text or --tokenizer.path.

    The only verb that opens a connection to a hub. Stopped, it goes on when it is run again; finished, it fetches only what
    changed. Each file is checked against the hub's own checksum, and download.json keeps them all. Tokens for gated
    repositories: MODELSCOPE_API_TOKEN, HF_TOKEN.

    Parameters
    ----------
    name
        OWNER/NAME, as in the address of its page.
    source
        modelscope, hf-mirror or huggingface, or https://… for a mirror of the Hugging Face API. Must be given: none is
        chosen for you.
    kind
        What it is on the hub. Tokenizers come with models.
    include
        Files to fetch: names or patterns such as '*.parquet', 'data/', 'tokenizer*'. Default: all, but for what can run
        code (pickles such as *.bin and *.pt, *.py), which must be named.
    revision
        Branch, tag or commit. Default: the hub's own.
    out
        Folder to write. Default: downloads/OWNER/NAME.
    offline
        Contact nothing; see that everything is here and whole.
    dry_run
        List what would be fetched, and stop.
    verify
        Read all files that are here again, instead of trusting their time and size.
    connections
        Files fetched at a time.
    send_token
        Let hf-mirror, or the mirror at https://…, see HF_TOKEN. It is somebody else than Hugging Face.
    """
    from fangcun.hubs import download as fetch

    done = fetch(
        name,
        source=source,
        kind=kind,
        include=include or (),
        revision=revision,
        out=out,
        offline=offline,
        dry_run=dry_run,
        verify=verify,
        connections=connections,
        send_token=send_token,
    )
    if not dry_run:
        print(f"Use it: --{'text' if kind == 'dataset' else 'tokenizer.path'} {shlex.quote(str(done.folder))}")
    return 0

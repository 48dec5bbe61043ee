"""What fails on the way is tried again, gone on with, or said in a sentence; a wrong content never stays."""

from __future__ import annotations

import errno
import re
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from email.message import Message
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hub_server import FILES, NAME, Fault, HubServer, noise

from fangcun import cli
from fangcun.errors import FangcunError
from fangcun.hubs import Download, download, failures, fetch, plan, transport
from fangcun.hubs.failures import PassingError, Patience, retry_after_seconds
from fangcun.hubs.sources import choose
from fangcun.hubs.transport import Transport, _Redirects

LARGE = "data/large.parquet"
SECRET = "hf_verysecret"


def get(source: str, *include: str, **settings: Any) -> Download:
    return download(NAME, source=source, include=include or (LARGE,), **settings)


def large(done: Download) -> bytes:
    return (done.folder / LARGE).read_bytes()


def starts(hub: HubServer) -> list[int]:
    return [request.start_bytes for request in hub.fetched()]


# Attempts


def test_a_connection_that_is_cut_goes_on_where_it_was(hub: HubServer, source: str) -> None:
    hub.faults[LARGE] = [Fault(cut_bytes=100_000), Fault(cut_bytes=150_000)]
    assert large(get(source)) == FILES[LARGE]
    assert starts(hub) == [0, 100_000, 250_000]


def test_a_server_without_ranges_is_read_from_the_beginning_again(hub: HubServer, source: str) -> None:
    hub.knows_ranges = False
    hub.faults[LARGE] = [Fault(cut_bytes=100_000)]
    assert large(get(source)) == FILES[LARGE]
    assert len(starts(hub)) == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(hub: HubServer, source: str, status: int) -> None:
    hub.faults["listing"] = [Fault(status)] * 2
    hub.faults[LARGE] = [Fault(status), Fault(status, {"Retry-After": "0"})]
    assert large(get(source)) == FILES[LARGE]


def test_a_server_whose_first_answers_are_bad_is_no_missing_network(hub: HubServer, source: str) -> None:
    hub.faults["listing"] = [Fault(503)] * 4
    assert large(get(source)) == FILES[LARGE]


def test_a_server_that_never_answers_well_is_given_up_with_its_name(hub: HubServer, source: str) -> None:
    hub.faults[LARGE] = [Fault(503)] * 50
    with pytest.raises(FangcunError, match=r"fails: HTTP 503, 6 times in a row. What was fetched is kept"):
        get(source)
    assert len(starts(hub)) == 6


def test_bytes_that_arrive_begin_the_patience_anew(hub: HubServer, source: str) -> None:
    hub.faults[LARGE] = [
        fault for _ in range(8) for fault in (Fault(503), Fault(503), Fault(503), Fault(cut_bytes=9_000))
    ]
    assert large(get(source)) == FILES[LARGE]


class Clock:
    """Stands where a threading.Event would be waited for; notes the waits."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return False


def test_waits_grow_and_are_never_shorter_than_the_server_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "WAITS_SECONDS", (1.0, 2.0, 4.0))
    clock: Any = Clock()
    patience = Patience("h", clock, known=True)
    patience.wait(PassingError("HTTP 500"))
    patience.wait(PassingError("HTTP 429", 30.0))
    patience.wait(PassingError("HTTP 429", 0.0))
    with pytest.raises(FangcunError, match="4 times in a row"):
        patience.wait(PassingError("HTTP 500"))
    assert clock.waits == [1.0, 30.0, 4.0]
    with pytest.raises(FangcunError, match="h asks to wait 3,600 seconds"):
        Patience("h", clock, known=True).wait(PassingError("HTTP 429", 3600.0))


def test_what_a_server_asks_for_is_read_in_each_of_its_forms() -> None:
    def asked(**headers: str) -> float | None:
        message = Message()
        for name, value in headers.items():
            message[name.replace("_", "-")] = value
        return retry_after_seconds(message)

    assert asked() is None and asked(Retry_After="soon") is None
    assert asked(Retry_After="\xb2") is None and asked(Retry_After="Fri, 01 Jan 9999999 00:00:00 GMT") is None
    assert asked(Retry_After="7") == 7.0
    assert asked(Retry_After=formatdate(0)) == 0.0
    assert asked(RateLimit='"api";r=0;t=55') == 55.0


def test_without_a_network_nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(
        FangcunError, match=r"cannot be reached: connection failed \(Connection refused\)\. Nothing was"
    ):
        get(address)
    assert not Path("downloads").exists()

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(
        FangcunError, match=r"hub\.invalid cannot be reached: connection failed \(Name or service not known\)"
    ):
        get("https://hub.invalid")


# Wrong contents


def test_a_wrong_content_is_thrown_away_and_fetched_once_more(hub: HubServer, source: str) -> None:
    hub.faults[LARGE] = [Fault(content=noise(300_000, 9))]
    assert large(get(source)) == FILES[LARGE]
    assert starts(hub) == [0, 0]


@pytest.mark.parametrize("name", [LARGE, "train.txt"])
@pytest.mark.parametrize("wrong", ["bytes", "shorter", "longer"])
def test_a_content_that_stays_wrong_is_an_error_and_leaves_nothing(
    hub: HubServer, source: str, name: str, wrong: str
) -> None:
    content = {"bytes": noise(len(FILES[name]), 9), "shorter": FILES[name][:-1], "longer": FILES[name] + b"x"}[wrong]
    hub.faults[name] = [Fault(content=content)] * 9
    with pytest.raises(FangcunError, match=f"{name} from .* is not what the listing says, twice"):
        get(source, name)
    assert [path for path in Path("downloads").rglob("*") if path.is_file() and path.name != "download.json"] == []


def test_an_answer_without_a_length_is_measured_by_what_comes(hub: HubServer, source: str) -> None:
    hub.faults[LARGE] = [Fault(content=FILES[LARGE], no_length=True)]
    assert large(get(source)) == FILES[LARGE]
    hub.faults["train.txt"] = [Fault(content=FILES["train.txt"] + b"x", no_length=True)] * 2
    with pytest.raises(FangcunError, match="twice: it is longer than 5,000 bytes"):
        get(source, "train.txt")
    hub.faults["train.txt"] = [Fault(content=FILES["train.txt"][:-1], no_length=True)] * 4
    with pytest.raises(FangcunError, match="twice: it is shorter than the listing says"):
        get(source, "train.txt")


def test_where_no_checksum_is_told_the_size_is_checked_and_the_record_says_so(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.tells_checksums = False
    assert cli.main(["download", NAME, "--source", "modelscope", "--include", LARGE]) == 0
    assert "checked: 1 by size" in capsys.readouterr().out
    assert get("modelscope").files[LARGE].checked_by == "size"
    hub.faults["train.txt"] = [Fault(content=FILES["train.txt"][:-1])] * 2
    with pytest.raises(FangcunError, match="it has 4,999 bytes, the listing says 5,000"):
        get("modelscope", "train.txt")


def test_a_part_that_was_damaged_is_found_and_fetched_anew(hub: HubServer, source: str) -> None:
    hub.faults[LARGE] = [Fault(cut_bytes=100_000), *[Fault(503)] * 6]
    with pytest.raises(FangcunError, match="503"):
        get(source)
    [part] = Path("downloads/owner/name/.part").glob("*.part")
    part.write_bytes(b"\0" * part.stat().st_size)
    hub.requests.clear()
    hub.faults.clear()
    assert large(get(source)) == FILES[LARGE]
    assert starts(hub) == [100_000, 0]


def test_a_part_of_another_version_is_not_gone_on_with(hub: HubServer, source: str) -> None:
    hub.faults[LARGE] = [Fault(cut_bytes=100_000), *[Fault(503)] * 6]
    with pytest.raises(FangcunError, match="503"):
        get(source)
    hub.files[LARGE], hub.commit = noise(300_000, 5), "a" * 40
    hub.requests.clear()
    hub.faults.clear()
    assert large(get(source)) == hub.files[LARGE]
    assert starts(hub) == [0]
    assert not Path("downloads/owner/name/.part").exists()


# Refusals


def test_what_is_not_there_is_said_with_the_kind_that_is(hub: HubServer, source: str) -> None:
    with pytest.raises(FangcunError, match=r"owner/name is no model at .* but a dataset: add --kind dataset"):
        get(source, kind="model")
    with pytest.raises(FangcunError, match="has no dataset owner/other"):
        download("owner/other", source=source)


def test_a_revision_may_have_slashes(hub: HubServer, source: str) -> None:
    hub.revisions = {"refs/convert/parquet"}
    assert get(source, revision="refs/convert/parquet").revision == "refs/convert/parquet"


def test_a_revision_that_is_not_there_is_an_error_on_both(hub: HubServer, source: str) -> None:
    """ModelScope answers 200 and no files."""
    with pytest.raises(FangcunError, match="owner/name has no revision 'v9'"):
        get(source, revision="v9")


def test_a_gated_repository_says_where_its_terms_are_and_which_token_is_missing(
    hub: HubServer, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = SECRET
    variable = "HF_TOKEN" if source == "huggingface" else "MODELSCOPE_API_TOKEN"
    with pytest.raises(FangcunError, match=rf"refuses .* \(HTTP 401.* accept them on http.*; then set {variable} to"):
        get(source)
    monkeypatch.setenv(variable, "wrong")
    with pytest.raises(FangcunError, match=f"The token in {variable} does not open owner/name"):
        get(source)
    monkeypatch.setenv(variable, SECRET)
    assert large(get(source)) == FILES[LARGE]


def test_an_envelope_that_says_no_is_no_success() -> None:
    with HubServer(FILES) as hub:
        no = {"Code": 10990101007, "Success": False, "Message": "The dataset is under review", "Data": None}
        hub.faults["listing"] = [Fault(200, body=no)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(choose.__globals__["SOURCES"], "modelscope", hub.address)
            with pytest.raises(FangcunError, match="under review"):
                get("modelscope")


def test_a_denial_amid_the_pages_of_a_listing_is_a_hiccup(hub: HubServer) -> None:
    hub.files = {f"{number}.txt": b"x" for number in range(450)}
    hub.page_files = 200
    hub.faults["tree"] = [Fault(403)]
    assert len(get("huggingface", "*.txt").files) == 450


def test_an_address_that_is_no_hub_is_said(hub: HubServer) -> None:
    hub.faults["listing"] = [Fault(200, {"Content-Type": "text/html"}, body={"hello": "world"})]
    with pytest.raises(FangcunError, match=r"does not tell the commit .* a mirror of the Hugging Face API\?"):
        get(hub.address)


def test_a_servers_words_do_not_reach_the_terminal_as_commands(hub: HubServer, source: str) -> None:
    hub.faults["listing"] = [Fault(403, body={"Message": "no\x1b[2J\x9b2J\n  way", "error": "no\x1b[2J\n way"})]
    with pytest.raises(FangcunError, match=r"HTTP 403: no\[2J(2J)? way\)"):
        get(source)


# The token


def test_the_token_goes_to_its_hub_alone_and_into_no_file_or_line(
    hub: HubServer, source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", SECRET)
    done = get(source)
    there = [r for r in hub.requests if r.host.startswith("127.0.0.1")]
    elsewhere = [r for r in hub.requests if r.host.startswith("localhost")]
    assert there and all(r.headers["authorization"] == f"Bearer {SECRET}" for r in there)
    assert elsewhere and not any(SECRET in str(r) for r in elsewhere)
    written = b"".join(path.read_bytes() for path in done.folder.rglob("*") if path.is_file())
    assert SECRET.encode() not in written
    hub.faults["listing"] = [Fault(403)]
    with pytest.raises(FangcunError) as refused:
        get(source)
    assert SECRET not in "".join(capsys.readouterr()) + str(refused.value) + repr(choose(NAME, source, "dataset"))


def test_a_mirror_sees_no_token_unless_the_user_says_so(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.token = SECRET
    for mirror in ("hf-mirror", hub.address):
        hub.requests.clear()
        with pytest.raises(FangcunError, match="set HF_TOKEN and add --send-token, which lets 127"):
            get(mirror, out=mirror[:3])
        assert not any(SECRET in str(request) for request in hub.requests)
        assert large(get(mirror, send_token=True, out=mirror[:3])) == FILES[LARGE]


@pytest.mark.parametrize(
    ("there", "sent"),
    [
        ("https://hub.example/renamed", True),
        ("https://hub.example:443/x", True),
        ("https://HUB.example/x", True),
        ("https://hub.example:8443/x", False),
        ("https://hub.example.evil.net/x", False),
        ("https://hub.example@evil.net/x", False),
        ("https://cdn.hub.example/x", False),
    ],
)
def test_only_the_same_scheme_host_and_port_are_the_same_place(there: str, sent: bool) -> None:
    repository = choose(
        NAME, "https://hub.example", "model", send_token=True, environment={"HF_TOKEN": SECRET}
    )  # fmt: skip
    first = urllib.request.Request("https://hub.example/x", headers={"Range": "bytes=5-"})
    first.add_unredirected_header("Authorization", f"Bearer {SECRET}")
    second = _Redirects(repository).redirect_request(first, None, 302, "", Message(), there)  # type: ignore[arg-type]
    assert second is not None and second.get_header("Range") == "bytes=5-"
    assert second.has_header("Authorization") is sent


def test_an_encrypted_connection_is_not_given_up_on_the_way() -> None:
    first = urllib.request.Request("https://hub.example/x")
    redirects = _Redirects(choose(NAME, "https://hub.example", "model"))
    with pytest.raises(FangcunError, match=r"redirects from https to http://hub\.example, unencrypted: not followed"):
        redirects.redirect_request(first, None, 302, "", Message(), "http://hub.example/x")  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[bad/x", "gopher://x"])
def test_a_redirect_leads_to_no_other_kind_of_place(hub: HubServer, place: str) -> None:
    hub.faults["train.txt"] = [Fault(302, {"Location": place})] * 20
    with pytest.raises(FangcunError, match="fails: "):
        get("huggingface", "train.txt")


def test_over_https_a_hub_is_believed_by_its_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transport, "default_certificates", ssl.create_default_context)
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate, and is not here")
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    words = f"req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=hub -addext {names}"
    subprocess.run([openssl, *words.split()], check=True, capture_output=True, cwd=tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    with HubServer(FILES, tls=context) as hub:
        hub.large = {LARGE}
        with pytest.raises(
            FangcunError, match=r"certificate of 127\.0\.0\.1:\d+ cannot be verified .* set SSL_CERT_FILE"
        ):
            get(hub.address)
        assert hub.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert large(get(hub.address)) == FILES[LARGE]


def test_through_a_proxy_the_same_comes(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake hub stands where the proxy would be: it is asked with whole addresses, also for the store's."""
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", hub.address)
    monkeypatch.setenv("http_proxy", hub.address)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.store_host = "store.invalid"
    assert large(get("http://hub.invalid:81", send_token=True)) == FILES[LARGE]
    assert {request.host for request in hub.requests} == {"hub.invalid:81", f"store.invalid:{hub.port}"}
    assert not any(SECRET in str(request) for request in hub.requests if request.host.startswith("store"))


def test_a_store_that_fails_is_named_beside_the_hub_that_sends_there(
    hub: HubServer, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.store_host = "store.invalid"
    there = socket.getaddrinfo

    def unknown(host: str, *rest: Any, **more: Any) -> Any:
        if host == "store.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return there(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    expected = (
        r"store\.invalid:\d+, where 127\.0\.0\.1:\d+ sends to, fails: connection failed \(Name or service not known\)"
    )
    with pytest.raises(FangcunError, match=expected):
        get(source)


def test_a_certificate_that_cannot_be_verified_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Transport(choose(NAME, "https://hub.example", "model"))
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_message = "self-signed certificate"

    def fail(*_: object, **__: object) -> None:
        raise urllib.error.URLError(refused)

    monkeypatch.setattr(there._opener, "open", fail)
    with pytest.raises(
        FangcunError, match=r"certificate of hub.example cannot be verified \(self-signed certificate\)"
    ):
        there.get_json("https://hub.example/x")


# The disk


def test_too_small_a_disk_is_said_before_anything_is_fetched(
    hub: HubServer, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 299_999})
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FangcunError, match=r"no room: .* has 300 kB free, 300 kB are to come"):
        get(source)
    assert hub.fetched() == []


def test_a_disk_that_runs_full_keeps_what_came(hub: HubServer, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fetch.sync_file

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "sync_file", full)
    with pytest.raises(FangcunError, match=r"no space left for downloads/owner/name\. What was fetched is kept"):
        get(source)
    monkeypatch.setattr(fetch, "sync_file", whole)
    hub.requests.clear()
    assert large(get(source)) == FILES[LARGE]
    assert hub.fetched() == []


def test_one_writer_at_a_time(hub: HubServer, source: str) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold(_: object, status: int, body: bytes) -> bytes:
        if len(body) > 100_000:
            inside.set()
            go.wait(20)
        return body

    hub.before_body = hold
    first = threading.Thread(target=get, args=(source,), daemon=True)
    first.start()
    assert inside.wait(20)
    with pytest.raises(FangcunError, match="is being written by process"):
        get(source)
    go.set()
    first.join(20)
    assert (Path("downloads/owner/name") / LARGE).read_bytes() == FILES[LARGE]


def test_an_error_of_the_verb_is_one_sentence(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["download", "owner/other", "--source", "huggingface"]) == 1
    assert re.fullmatch(r"error: .* has no dataset owner/other.*\n", capsys.readouterr().err)

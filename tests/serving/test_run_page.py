"""The live run page: curves grow without a reload, several runs lie over each other, and odd files are borne."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from browser import Open, chromium, until
from hypothesis import given
from hypothesis import strategies as st
from tiny_server import Serve, Served

from fangcun.serving.run_log import MOST_POINTS, RunLog, thin

RECIPE = "train:\n  max_steps: 100\n  global_batch_size: 4\nmodel:\n  block_size: 32\n"


def train_line(step: int, loss: float | str = 5.0) -> str:
    record = {
        "kind": "train", "step": step, "loss": loss, "lr": 0.001, "grad_norm": 1.0, "tokens": step * 128,
        "tokens_per_second": 900.0, "memory_bytes": 1 << 28, "seconds": step * 0.5,
    }  # fmt: skip
    return json.dumps(record) + "\n"


def make_run(folder: Path, steps: int, loss: float = 5.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    lines = [train_line(step, loss - step / 50) for step in range(1, steps + 1)]
    lines.append(
        json.dumps({"kind": "eval", "step": steps, "val_loss": 4.0, "val_bits_per_byte": 1.5, "seconds": steps * 0.5})
        + "\n"
    )
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    samples = [{"kind": "sample", "step": step, "prompt": "却说", "text": f"第{step}步所写"} for step in (10, 20)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "one", 20)
    make_run(root / "two", 30, loss=4.0)
    (root / "no-run").mkdir()
    return root


@pytest.fixture(scope="module")
def watched(serve_tiny: Serve, root: Path) -> Served:
    return serve_tiny(runs=root)


@pytest.fixture(scope="module")
def open_page() -> Iterator[Open]:
    with chromium() as opened:
        yield opened


def test_a_run_that_grows_is_drawn_without_a_reload(open_page: Open, watched: Served, root: Path) -> None:
    page = open_page(watched.url + "/runs", locale="en")
    page.wait_for_selector(".chart")
    if not page.locator("#list input[aria-label='one']").is_checked():
        page.check("#list input[aria-label='one']")
    until(page, "document.querySelector('#plan').innerText.includes('one')")
    assert "第20步所写" in page.inner_text("#written")
    with open(root / "one" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(train_line(77, 0.5))
    until(page, "document.querySelector('#plan').innerText.includes('step 77')")
    until(page, "document.querySelector('.chart .read').innerText.includes('@ 77')")


def test_several_runs_lie_over_each_other(open_page: Open, watched: Served) -> None:
    page = open_page(watched.url + "/runs", locale="en")
    for name in ("one", "two"):
        page.check(f"#list input[aria-label='{name}']")
    until(page, "document.querySelectorAll('#plan tr').length === 3")
    read = page.locator(".chart .read").first.inner_text()
    assert "one:" in read and "two:" in read
    canvas = page.locator(".chart canvas").first
    drawn = canvas.evaluate(
        "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const seen = new Set();"
        " for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 250) seen.add([d[i], d[i + 1], d[i + 2]].join()); return [...seen]; }"
    )
    assert {"179,52,42", "42,111,143"} <= set(drawn)  # both hues are on the canvas
    for value in ("tokens", "seconds"):
        page.select_option("#axis", value)
        assert "@" in page.locator(".chart .read").first.inner_text()
    page.check("#log")


def test_a_phone_shows_a_run_without_sideways_scrolling(open_page: Open, watched: Served) -> None:
    page = open_page(watched.url + "/runs", width=360)
    page.wait_for_selector(".chart")
    page.wait_for_selector("#written article")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_interface_knows_only_the_names_it_listed(watched: Served, root: Path) -> None:
    listed = httpx2.get(f"{watched.url}/api/runs").json()["runs"]
    assert {run["name"] for run in listed} == {"one", "two"}
    (root.parent / "secret").mkdir(exist_ok=True)
    (root.parent / "secret" / "metrics.jsonl").write_text(train_line(1), encoding="utf-8")
    for name in ("../secret", "no-run", "", "/etc", "one/../../secret", "%2e%2e/secret"):
        answer = httpx2.get(f"{watched.url}/api/runs/detail", params={"run": name})
        assert answer.status_code == 404
        assert "no run named" in answer.json()["error"]["message"]


def test_nothing_new_is_not_sent_again(watched: Served) -> None:
    first = httpx2.get(f"{watched.url}/api/runs/detail", params={"run": "two"})
    again = httpx2.get(
        f"{watched.url}/api/runs/detail", params={"run": "two"}, headers={"If-None-Match": first.headers["etag"]}
    )
    assert (first.status_code, again.status_code) == (200, 304)
    plan = first.json()["plan"]
    assert (plan["steps"], plan["tokens_per_step"]) == (100, 128)
    assert plan["seconds_left"] == pytest.approx(35.0)


def test_pages_allow_nothing_from_elsewhere(watched: Served) -> None:
    for path in ("/", "/runs", "/static/style.css", "/static/write.js"):
        answer = httpx2.get(watched.url + path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text.replace("http://www.w3.org/", "") and "https://" not in answer.text
    for path in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static/nothing.js"):
        assert httpx2.get(watched.url + path).status_code == 404


def test_a_log_is_read_on_and_bears_what_it_finds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = RunLog(path)
    log.refresh()  # not there yet
    assert log.curves == {}
    path.write_text(train_line(1) + "not json\n[1]\n" + train_line(2, "nan") + train_line(3)[:20], encoding="utf-8")
    log.refresh()
    assert log.curves["train.loss"]["y"] == [5.0, None]
    with open(path, "a", encoding="utf-8") as file:
        file.write(train_line(3)[20:] + train_line(2, 1.0))  # a restart goes back
    log.refresh()
    assert log.curves["train.loss"]["step"] == [1, 2, 3, 2]
    version = log.version
    log.refresh()
    assert log.version == version
    other = tmp_path / "other"
    other.write_text(train_line(1, 2.0), encoding="utf-8")
    other.replace(path)  # a resumed run replaces its log
    log.refresh()
    assert log.curves["train.loss"]["y"] == [2.0]
    assert log.version != version
    path.write_text("", encoding="utf-8")
    log.refresh()
    assert log.curves == {}


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=6000), st.integers(8, MOST_POINTS))
def test_thinning_keeps_the_ends_and_every_extreme(values: list[float | None], most: int) -> None:
    kept = thin(values, most)
    assert kept == sorted(set(kept))
    assert len(kept) <= most + 4
    numbers = [value for value in values if value is not None]
    shown = [value for value in (values[i] for i in kept) if value is not None]
    if values:
        assert kept[0] == 0 and kept[-1] == len(values) - 1
    if numbers:
        assert min(shown) == min(numbers) and max(shown) == max(numbers)

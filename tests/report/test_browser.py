"""The report in a headless Chromium: figures are drawn, nothing is requested, nothing complains."""

import json
import re
import shutil
import subprocess

import pytest

from flowexp.report.document import document
from tests.report.test_document import two_runs
from tests.tables.test_results import CLAIM, TABLE

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on this computer"),
]

# The policy of the page forbids scripts; the copy that is measured goes without it.
MEASURE = """<script>
const good = (all, test) => `${all.filter(test).length}/${all.length}`;
document.body.dataset.images = good([...document.images], i => i.complete && i.naturalWidth > 0);
document.body.dataset.charts = good([...document.querySelectorAll("img.chart")], i =>
  i.naturalWidth > 100 && i.getBoundingClientRect().height > 80);
document.body.dataset.wide = document.documentElement.scrollWidth > window.innerWidth;
</script>"""


def opened(folder, text):
    """DOM, console messages and requested addresses of a page."""
    file, log = folder / "page.html", folder / "net.json"
    file.write_text(text)
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--window-size=1180,900",
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            f"--log-net-log={log}",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # Chromium's own requests for updates have no page as their initiator.
    asked = [e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"]
    return done.stdout, console, [url for url in asked if not url.startswith(("data:", "file:"))]


def test_the_report_is_silent_and_asks_for_nothing(tmp_path):
    text = document(two_runs(tmp_path), results=[TABLE, CLAIM])
    dom, console, requests = opened(tmp_path, text)
    assert "Training curves" in dom
    assert console == []
    assert requests == []


def test_figures_are_drawn_and_the_page_does_not_scroll_sideways(tmp_path):
    text = document(two_runs(tmp_path), results=[TABLE, CLAIM])
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    dom, _, _ = opened(tmp_path, free.replace("</body>", MEASURE + "</body>"))
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', re.findall(r"<body[^>]*>", dom)[0]))
    assert found == {"images": "22/22", "charts": "7/7", "wide": "false"}


def test_what_a_bad_page_does_would_be_noticed(tmp_path):
    bad = '<img src="http://example.org/a.png" alt=""><script>console.error("bad")</script>'
    _, console, requests = opened(tmp_path, f"<!DOCTYPE html><body>{bad}</body>")
    assert len(console) == 1
    assert set(requests) == {"http://example.org/a.png"}


def test_the_policy_holds_back_what_should_never_be_there(tmp_path):
    text = document(two_runs(tmp_path))
    bad = '<img src="http://example.org/a.png" alt="">'
    _, console, requests = opened(tmp_path, text.replace("</main>", f"{bad}</main>"))
    assert console
    assert requests == []

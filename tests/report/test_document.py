"""The report is one file that needs nothing else, and says everything."""

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from flowexp.errors import UsageError
from flowexp.report.document import document, read_results, training_grids
from flowexp.report.run_record import read_run
from flowexp.tables.render import render
from tests.report.runs import entry, make_run
from tests.tables.test_results import CLAIM, TABLE

RESOURCES = ("src", "href", "srcset", "data", "poster", "action", "background", "xlink:href")


class Page(HTMLParser):
    """What a browser would look at."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.styles, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        self.tags.append((tag, own))
        self.ids += [own["id"]] if "id" in own else []
        if "style" in own:
            self.styles.append(own["style"])
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles.append(data)

    def all(self, name):
        return [own for tag, own in self.tags if tag == name]


def two_runs(tmp_path):
    entries = [
        entry(33.0, directory="/moved/eval/1"),
        entry(35.0, directory="/moved/eval/1", seeds="200-399"),
    ]
    a = make_run(tmp_path / "a", entries=entries)
    (a / "eval" / "1").mkdir(parents=True)
    Image.new("RGB", (30, 20), (200, 0, 0)).save(a / "eval" / "1" / "grid.png")
    b = make_run(tmp_path / "b<i>", grids=range(1, 31))
    return [read_run(path, name=path.name) for path in (a, b)]


@pytest.fixture
def page(tmp_path):
    return document(two_runs(tmp_path), results=[TABLE, CLAIM])


def outside_resources(text):
    """Whatever would make a browser ask for something."""
    page = Page(text)
    named = [own[key] for _, own in page.tags for key in RESOURCES if own.get(key)]
    found = [value for value in named if not value.startswith(("data:", "#"))]
    for style in page.styles:
        found += re.findall(r"url\([^)]*\)|@import[^;]*", style)
    return found + [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "base")]


def test_nothing_is_fetched(page):
    assert outside_resources(page) == []
    (policy,) = [m["content"] for m in Page(page).all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize(
    "bad",
    [
        '<img src="https://x.org/a.png">',
        '<p style="background:url(//x.org/a.png)">',
        "<style>@import 'x.css';</style>",
        "<script>1</script>",
        '<link href="x.css">',
    ],
)
def test_what_would_be_fetched_is_found(bad):
    assert outside_resources(bad)


def test_tables_alone_fetch_nothing_either():
    assert outside_resources(render(TABLE, "html")) == []


def test_it_is_balanced_and_what_users_wrote_is_text(page):
    parsed = Page(page)
    assert parsed.open == []
    assert "b&lt;i&gt;" in page
    assert "&lt;script&gt;alert(1)" in page
    assert len(parsed.ids) == len(set(parsed.ids))
    targets = [own["href"][1:] for own in parsed.all("a")]
    assert targets
    assert set(targets) <= set(parsed.ids)


def test_names_of_metrics_and_samplers_are_text_too(tmp_path):
    logged = [{"step": i, "kimg": float(i), "train/<b>&": float(i)} for i in range(3)]
    scored = [entry(1.0, sampler='<i title="x">')]
    run = make_run(tmp_path / "a", metrics=logged, entries=scored)
    parsed = Page(document([read_run(run, name="a")]))
    assert parsed.open == []
    assert not {"b", "i"} & {tag for tag, _ in parsed.tags}
    assert any(own["alt"].startswith("train/<b>&: Linear scale") for own in parsed.all("img"))


def test_it_is_accessible(page):
    parsed = Page(page)
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(own.get("alt") for own in parsed.all("img"))
    assert any("Training loss: Logarithmic scale" in own["alt"] for own in parsed.all("img"))
    assert parsed.all("html")[0]["lang"] == "en"
    assert "prefers-color-scheme: dark" in page


def test_pictures_are_inside_and_whole(page):
    images = [own for own in Page(page).all("img") if own.get("class") != "chart"]
    assert len(images) == 2 + 1 + 12
    for own in images:
        content = base64.b64decode(own["src"].partition("base64,")[2])
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (int(own["width"]), int(own["height"]))


def test_a_damaged_grid_is_named_and_hidden_files_are_none(tmp_path):
    folder = make_run(tmp_path / "a", grids=(2,))
    (folder / "samples/._grid-000004.000.png").write_bytes(b"of a file manager")
    assert len(read_run(folder, name="a").grids) == 1
    (folder / "samples/grid-000004.000.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"runs: .*000004\.000\.png is damaged or no image\. Rem"):
        document([read_run(folder, name="a")], grids=4)


def test_of_many_grids_the_first_and_the_last_are_shown(tmp_path):
    run = two_runs(tmp_path)[1]
    assert [p.caption for p in training_grids(run, most=4)] == [
        "1 kimg", "11 kimg", "20 kimg", "30 kimg",
    ]  # fmt: skip
    assert [p.caption for p in training_grids(run, most=1)] == ["30 kimg"]
    assert "26 of 30 grids are left out" in document([run], grids=4)


def test_large_pictures_are_made_smaller(tmp_path):
    run = make_run(tmp_path / "a", grids=())
    noise = Image.effect_noise((1500, 1200), 90)
    noise.save(run / "samples" / "grid-000001.000.png")
    html = document([read_run(run, name="a")], grids=1)
    assert "data:image/jpeg" in html
    assert 'width="1024" height="819"' in html
    assert "shown smaller" in html


def test_scores_protocols_config_manifest_and_commands_are_there(page):
    for text in (
        "34.0\u00a0±\u00a01.4",
        "FD[EfficientNet-Lite0 b4, 64px] 200 on digits",
        "torch bicubic antialias to 64",
        "0-199, 200-399",
        "max_kimg: 16",
        "torch 2.15.0",
        "role teacher, path outputs/t, sha256 cd",
        "flowexp train experiment=digits/edm path.D=inf",
        "Comparison",
        TABLE.title,
        CLAIM.title,
    ):
        assert text in page, text


def test_a_run_without_anything_is_a_page(tmp_path):
    run = make_run(tmp_path / "a", metrics=[], grids=(), manifest={})
    text = document([read_run(run, name="a")])
    assert Page(text).open == []
    assert "has not been evaluated" in text
    assert "No grid of samples" in text


def test_nothing_to_show_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither"):
        document([])
    with pytest.raises(ValueError, match="grids=0"):
        document(two_runs(tmp_path), grids=0)


def test_results_of_the_table_verb_are_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_text(json.dumps(TABLE.to_dict()))
    assert read_results(file) == [TABLE]
    file.write_text(json.dumps([CLAIM.to_dict(), CLAIM.to_dict()]))
    assert read_results(file) == [CLAIM, CLAIM]
    for foreign in ("{", "3", '{"rows": []}', "[[]]"):
        file.write_text(foreign)
        with pytest.raises(UsageError, match="not a result of flowexp table"):
            read_results(file)

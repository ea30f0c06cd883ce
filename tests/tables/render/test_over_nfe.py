"""Curves over network evaluations: what joins, what never shares an axis, what the file holds."""

import base64
import io
import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image

from flowexp.apps.table import _write
from flowexp.errors import UsageError
from flowexp.report.document import read_results
from flowexp.tables.render import render, table_picture
from flowexp.tables.render.over_nfe import claim_panels, is_drawn, method_of, picture, table_panels
from flowexp.tables.table_files import read_table
from tests.tables.test_results import CLAIM, MEASURED, ROW, TABLE

SVG = "{http://www.w3.org/2000/svg}"


def row(label, nfe, *, published=None, measured=None, scaled=True, spread=0.1, **more):
    cell = None
    if measured is not None:
        values = tuple(measured + delta * spread for delta in (-1.0, 0.0, 1.0))
        cell = replace(
            MEASURED, mean=measured, spread=spread, values=values, seeds=(0, 1, 2), nfe=float(nfe)
        )
    return replace(
        ROW, label=label, published=published, published_nfe=float(nfe), measured=cell,
        status="done" if cell else "missing", scaled=scaled, mismatch=(), **more,
    )  # fmt: skip


def table(*rows, **more):
    return replace(TABLE, rows=rows, **more)


UNIPC = [row(f"EDM, UniPC, {n}", n, published=100.0 / n, measured=7e4 / n) for n in (5, 8, 10)]
HEUN = [row(f"EDM, Heun, {n}", n, published=900.0 / n, measured=9e4 / n) for n in (5, 8, 10)]
SOLVERS = table(*UNIPC, *HEUN)


@pytest.mark.parametrize(
    ("label", "nfe", "method"),
    [
        ("EDM, UniPC, 8", 8, "EDM, UniPC"),
        ("8 even steps", 8, "even steps"),
        ("N=120, K=4096, 12", 12, "N=120, K=4096"),
        ("DPM-Solver-v3-1, 5", 5, "DPM-Solver-v3-1"),
        ("5 of 5, 5", 5, "5 of 5"),
        ("Heun 127.5", 127.5, "Heun"),
        # numbers that are part of something else, or not the count
        ("BOSS-6", 6, "BOSS-6"),
        ("K=12", 12, "K=12"),
        ("5.5 M", 5, "5.5 M"),
        ("1-RF, one step", 1, "1-RF, one step"),
        ("D=64, 9 bits", 35, "D=64, 9 bits"),
        ("8", 8, "8"),
        ("", 8, ""),
    ],
)
def test_a_method_is_the_label_without_the_number_of_evaluations(label, nfe, method):
    assert method_of(row(label, nfe)) == method


def test_the_stated_count_goes_before_the_measured_one():
    stated = row("A 9, 5", 5, measured=1.0)
    assert method_of(replace(stated, measured=replace(stated.measured, nfe=9.0))) == "A 9"
    assert method_of(replace(stated, published_nfe=None)) == "A 9"


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("dpm_solver_v3/table1", 7),
        ("dpm_solver_v3/table8", 4),
        ("dpm_solver_v3/table9", 2),
        ("dpm_solver_v3/table12", 1),
        ("boss/table1", 2),
    ],
)
def test_the_tables_over_evaluations_are_drawn_whole(name, methods):
    given = read_table(name)
    rows = [row(r.label, r.nfe, published=r.published) for r in given.rows]
    (panel,) = table_panels(table(*rows))
    assert len(panel.lines) == methods
    assert sum(len(line.points) for line in panel.lines) == len(rows)
    assert table_picture(table(*rows))


@pytest.mark.parametrize("name", ["edm/table2", "pfgmpp/robustness", "rfpp/table1"])
def test_tables_at_one_or_two_counts_are_not(name):
    given = read_table(name)
    assert not table_picture(table(*(row(r.label, r.nfe, published=2.0) for r in given.rows)))


def test_scaled_numbers_never_share_an_axis_with_published_ones():
    published, scaled = table_panels(SOLVERS)
    assert published.title == "published"
    assert scaled.title == "measured, budget cpu"
    assert scaled.protocols == (MEASURED.title,)
    assert not any(line.measured for line in published.lines)
    assert all(line.measured for line in scaled.lines)
    assert [line.method for line in scaled.lines] == ["EDM, UniPC", "EDM, Heun"]
    assert [p.value for p in scaled.lines[0].points] == [14000.0, 8750.0, 7000.0]
    assert [p.value for p in published.lines[0].points] == [20.0, 12.5, 10.0]


def test_comparable_numbers_stand_with_the_published_ones_and_other_protocols_apart():
    same = [replace(one, scaled=False) for one in UNIPC]
    other = [replace(one, scaled=False, mismatch=("n_gen",)) for one in HEUN]
    near, far = table_panels(table(*same, *other))
    assert near.title == "published and measured"
    assert near.protocols[-1] == f"measured: {MEASURED.title}"
    assert [line.method for line in near.lines if line.measured] == ["EDM, UniPC"]
    assert far.title == "measured, other protocol"
    assert [line.method for line in far.lines] == ["EDM, Heun"]


def studied(method, nfe, kimg, value, *, family="a family"):
    """A row of a study, trained for ten seconds per kimg."""
    one = row(f"{method}, {kimg:g}, {nfe}", nfe, measured=value, scaled=False)
    snapshot = f"checkpoint snapshot-{kimg:g}"
    of = {"title": f"{MEASURED.title}, {snapshot}", "protocol": {"selection": snapshot}}
    cell = replace(one.measured, kimg=kimg, training_seconds=10.0 * kimg, **of)
    return replace(one, published_nfe=None, method=method, family=family, measured=cell)


STUDY = table(
    *(studied("A", n, k, 100.0 / n / k) for n in (1, 2, 4) for k in (1.0, 2.0, 4.0)),
    *(studied("B", n, 3.0, 50.0 / n) for n in (1, 2, 4)),
    *(studied("C", n, 1.0, 20.0 / n, family="another") for n in (1, 2, 4)),
)


def test_over_evaluations_a_method_has_the_longest_of_its_trainings_and_its_family_s_axes():
    panels = [panel for panel in table_panels(STUDY) if panel.counts]
    assert [panel.title for panel in panels] == ["a family", "another"]
    assert panels[0].protocols == (MEASURED.title,)
    assert {line.method: [(p.x, p.value) for p in line.points] for line in panels[0].lines} == {
        "A": [(1.0, 25.0), (2.0, 12.5), (4.0, 6.25)],
        "B": [(1.0, 50.0), (2.0, 25.0), (4.0, 12.5)],
    }


def test_several_lengths_of_a_training_are_curves_over_its_time():
    panels = [panel for panel in table_panels(STUDY) if not panel.counts]
    assert [panel.protocols for panel in panels] == [
        ("with 1 evaluation per sample",),
        ("with 2 evaluations per sample",),
        ("with 4 evaluations per sample",),
    ]
    assert {line.method: [(p.x, p.value) for p in line.points] for line in panels[0].lines} == {
        "A": [(10.0, 100.0), (20.0, 50.0), (40.0, 25.0)],
        "B": [(30.0, 50.0)],
    }
    drawn = table_picture(STUDY)
    assert drawn.title.endswith("over network evaluations and training time")
    svg = drawn.svg()
    assert svg.count("seconds of training") == 3
    # five axes, three in a row
    width, height = (3 * drawn.size[0], 2 * drawn.size[1])
    assert f'viewBox="0 0 {width:g} {height:g}"' in svg


def test_two_metrics_have_two_panels():
    renamed = [replace(r, measured=replace(r.measured, title="KID")) for r in HEUN]
    assert [p.protocols for p in table_panels(table(*UNIPC, *renamed))][1:] == [
        (MEASURED.title,),
        ("KID",),
    ]


def test_what_was_not_measured_or_is_not_finite_leaves_a_gap():
    rows = [
        UNIPC[0],
        replace(UNIPC[1], measured=None),
        row("EDM, UniPC, 10", 10, measured=math.nan),
    ]
    (_, scaled) = table_panels(table(*rows))
    assert [point.x for point in scaled.lines[0].points] == [5.0]


@pytest.mark.parametrize("rows", [(), UNIPC[:2], [row(f"A, {n}", n) for n in (1, 2, 3)]])
def test_nothing_to_draw(rows):
    assert not is_drawn(table_panels(table(*rows)))
    assert table_picture(table(*rows)) is None


def places(svg, *, dashed=False):
    """Points of the curves of three points or more, from the upper left corner; no legend."""
    drawn = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none;([^"]*)"', svg)
    lines = [
        [tuple(map(float, point)) for point in re.findall(r"[ML] (\S+) (\S+)", path)]
        for path, style in drawn
        if ("dasharray" in style) == dashed
    ]
    return [line for line in lines if len(line) > 2]


def test_more_than_a_factor_of_eight_is_logarithmic():
    counts = (1, 10, 100)
    wide = table(*(row(f"A, {n}", n, published=float(n)) for n in counts))
    ((a, b, c),) = places(table_picture(wide).svg(), dashed=True)
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.2)
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.2)
    narrow = table(*(row(f"A, {n}", n, published=float(n)) for n in (4, 5, 8)))
    ((a, b, c),) = places(table_picture(narrow).svg(), dashed=True)
    assert (c[0] - b[0]) / (b[0] - a[0]) == pytest.approx(3.0, abs=0.02)
    assert (b[1] - c[1]) / (a[1] - b[1]) == pytest.approx(3.0, abs=0.02)


def test_bars_are_one_standard_deviation_up_and_down():
    rows = [row(f"A, {n}", n, measured=float(n), spread=1.0) for n in (4, 5, 6)]
    svg = table_picture(table(*rows)).svg()
    ((_, (px, _), (_, top)),) = places(svg)
    bar = r'd="M (\S+) (\S+)\s+L (\S+) (\S+)\s+"[^>]*style="fill: none; stroke: var\(--s1\)"'
    bars = re.findall(bar, svg)
    assert len(bars) == 3
    x, low, upper_x, high = map(float, bars[1])
    assert x == upper_x == px
    # 5 + 1 is as high as the mean at 6
    assert high == pytest.approx(top, abs=0.1)
    assert low > high


def test_bars_of_several_methods_stand_side_by_side():
    rows = [row(f"{name}, {n}", n, measured=float(n)) for name in "AB" for n in (4, 5, 6)]
    first, second = places(table_picture(table(*rows)).svg())
    assert [b[0] - a[0] for a, b in zip(first, second, strict=True)] == pytest.approx([3.0] * 3)


def test_a_bar_below_zero_ends_at_the_edge_of_a_logarithmic_axis():
    rows = [row(f"A, {n}", n, measured=10.0**n, spread=20.0) for n in (1, 2, 3)]
    svg = table_picture(table(*rows)).svg()
    assert "nan" not in svg.lower()
    assert len(places(svg)) == 1


def test_the_file_is_sound_describes_itself_and_fetches_nothing():
    hostile = [replace(r, label=r.label.replace("Heun", '<script>&"$x_1$')) for r in HEUN]
    svg = table_picture(table(*UNIPC, *hostile, title="a <b> & c")).svg()
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    ids = root.attrib["aria-labelledby"].split()
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert [title.attrib["id"], desc.attrib["id"]] == ids
    assert title.text == "a <b> & c, over network evaluations"
    assert "EDM, UniPC (published): 20 at 5, 12.5 at 8, 10 at 10" in desc.text
    assert f"measured, budget cpu ({MEASURED.title})" in desc.text
    assert 'EDM, <script>&"$x_1$' in [text.text for text in root.iter(f"{SVG}text")]
    assert root.find(f".//{SVG}script") is None
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text
    without_name_spaces = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    assert not re.search(r"https?:|href=\"[^#]|url\([^#]|@import|<image|src=", without_name_spaces)


def test_the_picture_is_the_same_every_time():
    drawn = picture(table_panels(SOLVERS), title="t")
    assert drawn.svg() == drawn.svg()
    assert drawn.png() == drawn.png()
    with Image.open(io.BytesIO(drawn.png())) as image:
        assert image.size == (2 * 2 * 430, 2 * 400)


def test_everything_lies_within_the_picture():
    root = ElementTree.fromstring(table_picture(SOLVERS).svg())
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    texts = root.findall(f".//{SVG}text")
    own = [text for text in texts if "x" in text.attrib]
    assert own
    assert all(0 <= float(t.attrib["x"]) <= width for t in own)
    assert all(0 <= float(t.attrib["y"]) <= height for t in own)
    shown = ["".join(text.itertext()) for text in texts]
    assert {"EDM, UniPC", "EDM, Heun"} <= set(shown)
    assert any("published" in text for text in shown)
    assert any("measured, budget cpu" in text for text in shown)


def test_a_page_shows_the_picture_and_brings_its_colours():
    (shown,) = re.findall(r"data:image/svg\+xml;base64,([^\"]*)", render(SOLVERS, "html"))
    assert base64.b64decode(shown).decode() == table_picture(SOLVERS).svg()
    assert "data:image/svg" not in render(TABLE, "html")


def claim(count, *, runs=("a", "b"), value=None):
    arms = [
        row(name, count, measured=value or factor / count, scaled=False, runs=runs)
        for name, factor in (("DPM-Solver++", 60.0), ("UniPC", 50.0))
    ]
    return replace(CLAIM, name=f"c{count}", arms=tuple(arms))


def test_arms_of_several_claims_are_curves():
    shared = replace(claim(8), arms=(claim(8).arms[1], row("v3", 8, measured=5.0, runs=("a", "b"))))
    (panel,) = claim_panels([claim(10), claim(5), claim(8), shared])
    assert {line.method: [p.x for p in line.points] for line in panel.lines} == {
        "DPM-Solver++": [5, 8, 10],
        "UniPC": [5, 8, 10],
        "v3": [8],
    }
    assert ElementTree.fromstring(picture([panel], title="t").svg())


def test_claims_of_two_budgets_have_two_panels():
    assert len(claim_panels([claim(5), replace(claim(5), budget="small")])) == 2
    assert claim_panels([]) == ()


def test_curves_join_no_different_runs_and_no_contradictions():
    with pytest.raises(ValueError, match="different runs"):
        claim_panels([claim(5), claim(8, runs=("c", "d"))])
    with pytest.raises(ValueError, match="NFE 5 has the numbers 12, 3"):
        claim_panels([claim(5), claim(5, value=3.0)])


def test_the_verb_writes_the_picture_beside_the_other_forms(tmp_path, capsys):
    _write([SOLVERS], name="a/b", budget="cpu", folder=tmp_path)
    suffixes = {"json", "md", "tex", "csv", "html", "svg"}
    assert {file.name for file in tmp_path.iterdir()} == {f"a_b_cpu.{s}" for s in suffixes}
    assert (tmp_path / "a_b_cpu.svg").read_text() == table_picture(SOLVERS).svg()
    assert "a_b_cpu.svg" in capsys.readouterr().out
    assert read_results(tmp_path / "a_b_cpu.json") == [SOLVERS]


def test_numbers_that_cannot_be_written_are_seen(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"out: .*file cannot be written"):
        _write([SOLVERS], name="x", budget="cpu", folder=tmp_path / "file")
    assert SOLVERS.title in capsys.readouterr().out


@pytest.mark.parametrize("results", [[TABLE], [CLAIM], [CLAIM, CLAIM]])
def test_the_verb_writes_no_picture_without_curves(results, tmp_path):
    _write(results, name="x", budget="cpu", folder=tmp_path)
    assert not list(tmp_path.glob("*.svg"))
    assert json.loads((tmp_path / "x_cpu.json").read_text())

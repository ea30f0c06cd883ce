"""Tables and claims as text: nothing incomparable in one column, nothing lost in escaping."""

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from flowexp.tables.render import FORMS, render, sheet_of
from flowexp.tables.results import ClaimResult
from tests.tables.test_results import CLAIM, FAILED, MEASURED, ROW, TABLE

OTHER_PROTOCOL = replace(ROW, label="other", scaled=False)
COMPARABLE = replace(ROW, label="same", scaled=False, mismatch=(), verified=False)
MISSING = replace(FAILED, label="later", status="missing", log=None, scaled=False, mismatch=())
ALL = replace(TABLE, rows=(ROW, OTHER_PROTOCOL, COMPARABLE, FAILED, MISSING))
HOSTILE = r"""50% of $a_1$ & {b}|c| <script>alert("1")</script> [x] *y* `z` ~^\#"""


def column(sheet, title):
    (place,) = [i for i, c in enumerate(sheet.columns) if c.title == title]
    return [line.cells[place] for line in sheet.lines]


def test_scaled_and_published_protocols_never_share_a_column():
    sheet = sheet_of(ALL)
    assert column(sheet, "measured") == [
        "",
        "",
        "12.50 ± 0.50 (3 seeds), minimum 12",
        "",
        "missing",
    ]
    scaled = column(sheet, "measured, budget cpu")
    assert scaled == ["12.50 ± 0.50 (3 seeds), minimum 12 ‡", "", "", "failed", ""]
    other = column(sheet, "measured, other protocol")
    assert other == ["", "12.50 ± 0.50 (3 seeds), minimum 12 ‡", "", "", ""]


def test_the_published_number_is_marked_where_it_cannot_be_compared_or_is_recalled():
    assert column(sheet_of(ALL), "published") == ["1.97 ‡", "1.97 ‡", "1.97 †", "1.97 ‡", "1.97"]
    text = render(ALL, "terminal")
    assert "† recalled" in text
    assert "scaled down by budget cpu" in text


def test_a_table_of_one_kind_has_one_column_and_no_marks():
    table = replace(TABLE, rows=(replace(COMPARABLE, verified=True),))
    titles = [c.title for c in sheet_of(table).columns]
    assert [t for t in titles if "measured" in t] == ["measured"]
    text = render(table, "terminal")
    assert "‡" not in text
    assert "†" not in text


@pytest.mark.parametrize("result", [ALL, CLAIM, [CLAIM, CLAIM]], ids=["table", "claim", "claims"])
def test_the_terminal_form_fits_eighty_columns_and_breaks_no_word(result, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = render(result, "terminal")
    assert all(len(line) <= 80 or " " not in line.strip() for line in text.splitlines())
    monkeypatch.setenv("COLUMNS", "400")
    whole = {word for word in render(result, "terminal").split() if "─" not in word}
    assert whole <= {*text.split(), *re.sub("[:;()]", " ", text).split()}


@pytest.mark.parametrize("form", FORMS)
def test_failed_and_missing_rows_are_named_with_their_log(form):
    text = render(ALL, form).replace("\\_", "_")
    assert "outputs/jobs/train/ff/job.log" in text
    assert "failed" in text
    assert "missing" in text


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "html"])
def test_the_differing_parts_of_the_protocol_are_named(form):
    text = render(ALL, form).replace("\\_", "_")
    assert "n_gen: 50000 and 500" in text


@pytest.mark.parametrize("form", FORMS)
def test_a_distance_on_other_features_is_never_called_fid(form):
    text = render(ALL, form)
    assert "EfficientNet-Lite0 b4, 64px" in text
    assert "FID" not in text


def test_the_minimum_stands_there_only_where_the_publication_reports_one():
    mean = replace(ALL, protocol={"num_samples": 50000, "reported": None})
    assert "minimum" not in render(mean, "terminal")


def test_one_seed_has_no_spread():
    one = replace(MEASURED, values=(12.5,), seeds=(0,), spread=float("nan"), minimum=12.5)
    row = replace(COMPARABLE, measured=one)
    assert column(sheet_of(replace(TABLE, rows=(row,))), "measured") == ["12.5 (1 seed)"]


def test_different_metrics_in_a_table_are_named_line_by_line():
    other = replace(COMPARABLE, measured=replace(MEASURED, title="FID 50k on cifar10"))
    sheet = sheet_of(replace(TABLE, rows=(ROW, other)))
    assert column(sheet, "metric") == [MEASURED.title, "FID 50k on cifar10"]


def test_nfe_names_the_published_one_where_it_differs():
    slow = replace(COMPARABLE, published_nfe=79.0)
    assert column(sheet_of(replace(TABLE, rows=(COMPARABLE, slow))), "NFE") == [
        "35",
        "35 (published 79)",
    ]


def hostile(text):
    rows = (replace(COMPARABLE, label=text), FAILED)
    return replace(TABLE, title=text, rows=rows)


def test_markdown_rows_have_the_columns_of_the_head():
    lines = [line for line in render(hostile(HOSTILE), "markdown").splitlines() if line[:1] == "|"]
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(lines) == 4
    assert len(counts) == 1
    assert r"\<script\>" in lines[2]
    sides = [cell.strip().endswith(":") for cell in lines[1].strip("|").split("|")]
    assert sides == [column.numeric for column in sheet_of(hostile(HOSTILE)).columns]


def test_latex_is_balanced_and_escaped():
    text = render(hostile(HOSTILE), "latex")
    body = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    bare = re.sub(r"\\[{}&%$#_\\]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in body.splitlines() if line.strip().endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {8}
    assert r"50\% of \$a\_1\$ \& \{b\}\textbar{}c\textbar{}" in text
    assert r"\textasciitilde{}\textasciicircum{}\textbackslash{}\#" in text
    assert r"\usepackage{booktabs}" in text


def test_latex_has_a_rule_between_claims_and_columns_on_their_side():
    text = render([CLAIM, CLAIM], "latex")
    assert r"\begin{tabular}{llllrlrrrrl}" in text
    assert text.count(r"\midrule") == 2
    assert r"\par\smallskip\footnotesize [1] other protocol" in text


def test_latex_cells_that_start_with_a_bracket_are_no_argument():
    row = replace(COMPARABLE, label="[a]")
    text = render(replace(TABLE, rows=(row,)), "latex")
    assert "\n{[a]} &" in text


def test_csv_has_every_number_on_its_own_and_unrounded():
    third = replace(COMPARABLE, measured=replace(MEASURED, mean=1 / 3))
    rows = list(csv.DictReader(io.StringIO(render(replace(ALL, rows=(*ALL.rows, third)), "csv"))))
    assert [row["row"] for row in rows] == ["A", "other", "same", "A", "later", "same"]
    assert float(rows[0]["budget_cpu_mean"]) == 12.5
    assert rows[0]["measured_mean"] == ""
    assert rows[1]["other_protocol_mean"] == "12.5"
    assert rows[2]["budget_cpu_mean"] == ""
    assert float(rows[5]["measured_mean"]) == 1 / 3
    assert [row["comparable"] for row in rows[:3]] == ["false", "false", "true"]
    assert rows[0]["budget_cpu_values"] == "12.5 12.0 13.0"
    assert [row["samples"] for row in rows[2:4]] == ["500", ""]
    assert list(rows[0]).index("metric") == list(rows[0]).index("budget_cpu_values") + 1


class Tags(HTMLParser):
    """Collects tags and refuses what is not balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("result", [hostile(HOSTILE), replace(CLAIM, title=HOSTILE)])
def test_html_is_balanced_and_escaped(result):
    tags = Tags()
    tags.feed(render(result, "html"))
    assert tags.open == []
    names = [tag for tag, _ in tags.seen]
    assert "script" not in names
    assert names.count("h1") == 1
    assert HOSTILE in tags.text


def test_the_terminal_shows_brackets_and_keeps_them_from_rich():
    text = render(hostile("[bold]x[/bold] :smile:"), "terminal")
    assert "[bold]x[/bold] :smile:" in text
    assert "\x1b" not in text


def test_claims_show_arms_verdict_and_the_stated_test():
    other = replace(CLAIM, name="x/y", title="Another", verdict="undecided", p_value=1e-5)
    sheet = sheet_of([CLAIM, other])
    assert column(sheet, "verdict") == ["holds", "", "undecided", ""]
    assert column(sheet, "p") == ["0.020", "", "< 0.001", ""]
    assert column(sheet, "arm") == ["A", "A", "A", "A"]
    assert column(sheet, "measured")[:2] == ["12.50 ± 0.50 (3 seeds)", "failed"]
    assert [line.tone for line in sheet.lines] == ["good", "plain", "open", "plain"]
    for form in FORMS:
        text = render([CLAIM, other], form)
        assert "paired t, one-sided, 5" in " ".join(text.split())
        assert "4.85 against 378" in text


def test_a_claim_that_is_not_measured_says_so():
    open_ = replace(CLAIM, verdict="missing", statistic=float("nan"), p_value=float("nan"))
    sheet = sheet_of(open_)
    assert column(sheet, "p")[0] == "-"
    assert "statistic" not in " ".join(sheet.notes)
    assert isinstance(open_, ClaimResult)


def test_notes_that_rows_share_have_one_number():
    sheet = sheet_of(replace(TABLE, rows=(ROW, OTHER_PROTOCOL)))
    assert column(sheet, "notes") == ["[1] [2]", "[1] [2]"]
    assert len(sheet.notes) == 2


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="allowed: terminal, markdown, latex, csv, html"):
        render(TABLE, "pdf")


def test_no_claims_are_refused():
    with pytest.raises(ValueError, match="no claim"):
        render([], "terminal")

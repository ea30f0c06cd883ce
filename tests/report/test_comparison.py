"""Side by side: numbers of one sheet can be compared, those of one line are of one config."""

import copy
import csv
import io

import pytest

from flowexp.report.comparison import compare
from flowexp.report.run_record import read_run
from flowexp.tables.render import draw
from tests.report.runs import CONFIG, entry, make_run

FIELDS = ("differs in", "runs", "value", "n")


def config(**changes):
    """The config of a run with other values at dotted keys."""
    own = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        group, _, name = key.partition("__")
        if name:
            own.setdefault(group, {})[name] = value
        else:
            own[group] = value
    return own


def records(tmp_path, **runs):
    """Runs by name; each is (config, entries) or (config, entries, metrics)."""
    found = []
    for name, (own, entries, *metrics) in runs.items():
        rows = metrics[0] if metrics else None
        path = make_run(tmp_path / name, config=own, entries=entries, metrics=rows, grids=())
        found.append(read_run(path, name=name))
    return found


def sheets(runs, name):
    return [sheet for sheet in compare(runs) if sheet.name.startswith(name)]


def lines(sheet):
    """The lines of a sheet, each as a mapping."""
    titles = [column.title for column in sheet.columns]
    return [dict(zip(titles, line.cells, strict=True)) for line in sheet.lines]


@pytest.fixture
def sweep(tmp_path):
    """Two values of D with three seeds each, and one more run without a score."""
    values = {("16", 0): 30.0, ("16", 1): 32.0, ("16", 2): 34.0, ("inf", 0): 50.0, ("inf", 1): 51.0}
    own = {
        f"D{D}-{seed}": (config(seed=seed, path__D=float(D)), [entry(value)])
        for (D, seed), value in values.items()
    }
    return records(tmp_path, **own, extra=(config(seed=2, path__D=float("inf")), []))


def test_runs_that_differ_in_the_seed_share_a_line(sweep):
    (scores,) = sheets(sweep, "scores")
    first, second = lines(scores)
    assert [first[key] for key in FIELDS] == ["path.D=16", "D16-0, D16-1, D16-2", "32.0 ± 2.0", "3"]
    assert [second[key] for key in FIELDS] == [
        "path.D=inf",
        "Dinf-0, Dinf-1",
        "50.50 ± 0.71",
        "2",
    ]
    assert any("sample standard deviation" in text for text in scores.intro)
    assert scores.title == "FD[EfficientNet-Lite0 b4, 64px] 200 on digits"
    assert "EDMHeun, 18 steps, sample seeds 0-199, at 16 kimg" in scores.intro[0]
    assert scores.notes == ("extra: not scored",)


def test_the_terminal_shows_it_in_80_columns(sweep):
    text = draw(compare(sweep), "terminal")
    assert max(map(len, text.splitlines())) <= 80
    assert "32.0 ± 2.0" in text
    assert "not scored" in text


def test_the_csv_has_a_row_per_run_and_evaluation(sweep):
    rows = list(csv.DictReader(io.StringIO(draw(compare(sweep), "csv"))))
    assert [row["run"] for row in rows] == [run.name for run in sweep]
    assert [row["path.D"] for row in rows] == ["16"] * 3 + ["inf"] * 3
    assert [row["seed"] for row in rows] == ["0", "1", "2"] * 2
    assert [row["value"] for row in rows] == ["30.0", "32.0", "34.0", "50.0", "51.0", ""]
    assert [row["status"] for row in rows] == ["scored"] * 5 + ["not scored"]
    expected = {"kimg": "16.0", "n_gen": "200", "seeds": "0-199", "sampler": "EDMHeun, 18 steps"}
    assert expected.items() <= rows[0].items()


def test_places_and_launchers_are_no_difference(tmp_path):
    first, second = (config(seed=s, dirs__run=f"somewhere/{s}", launcher__jobs=s) for s in (1, 2))
    runs = records(tmp_path, a=(first, [entry(1.0)]), b=(second, [entry(3.0)]))
    assert [line.cells for line in sheets(runs, "config")[0].lines] == [("seed", "1", "2")]
    (line,) = lines(sheets(runs, "scores")[0])
    assert line == {"runs": "a, b", "value": "2.00 ± 1.4", "n": "2"}


def test_the_same_seed_twice_is_no_sample_over_seeds(tmp_path):
    runs = records(tmp_path, a=(config(), [entry(1.0)]), b=(config(), [entry(3.0)]))
    assert [line["value"] for line in lines(sheets(runs, "scores")[0])] == ["1", "3"]


@pytest.mark.parametrize(
    ("part", "value"), [("n_gen", 5000), ("ema", "raw"), ("resize", "none"), ("reference", "mnist")]
)
def test_other_protocols_have_a_sheet_of_their_own_that_names_the_difference(tmp_path, part, value):
    runs = records(
        tmp_path,
        a=(config(seed=0), [entry(33.0)]),
        b=(config(seed=1), [entry(35.0, **{part: value})]),
    )
    first, second = sheets(runs, "scores")
    assert [lines(sheet)[0]["value"] for sheet in (first, second)] == ["33", "35"]
    assert any(text.startswith("Not comparable") and f"{part}: " in text for text in second.intro)
    assert first.notes == ("b: no such number",)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"checkpoint": {"kimg": 8.0}}, "at different kimg"),
        ({"seeds": "200-399"}, "on different sample seeds"),
    ],
)
def test_other_kimg_and_other_seeds_of_samples_are_never_averaged(tmp_path, changed, words):
    other = entry(35.0, **{k: v for k, v in changed.items() if k == "seeds"})
    other |= {k: v for k, v in changed.items() if k != "seeds"}
    runs = records(tmp_path, a=(config(seed=0), [entry(33.0)]), b=(config(seed=1), [other]))
    (scores,) = sheets(runs, "scores")
    assert [line["value"] for line in lines(scores)] == ["33", "35"]
    assert any(words in note and "not averaged" in note for note in scores.notes)


def test_samplers_are_compared_in_lines_of_their_own(tmp_path):
    few = {"sampler": "EDMHeun, 6 steps", "nfe": 11.0}
    first = [entry(33.0, directory="1"), entry(140.0, directory="2", **few)]
    second = [entry(150.0, directory="1", **few), entry(35.0, directory="2")]
    runs = records(tmp_path, a=(config(seed=0), first), b=(config(seed=1), second))
    (scores,) = sheets(runs, "scores")
    found = {line["sampler"]: (line["value"], line["NFE"]) for line in lines(scores)}
    assert found == {
        "EDMHeun, 18 steps": ("34.0 ± 1.4", "35"),
        "EDMHeun, 6 steps": ("145.0 ± 7.1", "11"),
    }


def test_the_latest_of_equal_evaluations_counts(tmp_path):
    twice = [entry(33.0, directory="1"), entry(31.0, directory="2")]
    runs = records(tmp_path, a=(config(seed=0), twice), b=(config(seed=1), [entry(35.0)]))
    (line,) = lines(sheets(runs, "scores")[0])
    assert line["value"] == "33.0 ± 2.8"


def test_two_evaluations_in_one_directory_are_no_ranges_of_seeds(tmp_path):
    ranges = [entry(33.0, directory="1"), entry(35.0, directory="1", seeds="200-399")]
    again = [entry(31.0, directory="1"), entry(36.0, directory="1", seeds="200-399")]
    (run, _) = records(tmp_path, a=(config(), [*ranges, *again]), b=(config(path__D=1), []))
    assert [one.values for one in run.evaluations] == [(33.0, 35.0), (31.0, 36.0)]
    (line, _) = lines(sheets([run, _], "scores")[0])
    assert line["value"].startswith("33.5 ± 3.5")


def test_a_diverged_run_is_shown_as_one(tmp_path):
    own = [{"step": 1, "kimg": 0.5, "train/loss": 3.0}]
    lost = entry(float("nan"))
    lost["records"][0]["reason"] = "12 of 200 samples are not finite"
    runs = records(
        tmp_path,
        a=(config(seed=0), [entry(33.0)]),
        b=(config(seed=1), [lost]),
        c=(config(seed=2), [], own),
    )
    log = "ERROR flowexp: the run failed\nflowexp.x.NonFiniteLossError: the loss is inf\n"
    (tmp_path / "c" / "log.txt").write_text(log)
    runs[2] = read_run(tmp_path / "c", name="c")
    trained = [line["trained"] for line in lines(sheets(runs, "training")[0])]
    assert trained[2] == "diverged at 0.5 of 16 kimg"
    (scores,) = sheets(runs, "scores")
    (line,) = lines(scores)
    assert line["value"] == "33"
    assert "b: 12 of 200 samples are not finite, left out of the mean" in scores.notes
    status = [record["status"] for record in sheets(runs, "training")[0].records]
    assert status == ["scored", "scored", "diverged"]


def test_losses_of_different_quantities_are_not_put_side_by_side(tmp_path):
    longer = [{"step": 1, "kimg": 1.0, "train/loss": 3.0}]
    same = records(tmp_path / "same", a=(config(), []), b=(config(seed=1), [], longer))
    other = records(tmp_path / "other", a=(config(), []), b=(config(path__D=16), [], longer))
    assert "last loss" in lines(sheets(same, "training")[0])[0]
    assert "last loss" not in lines(sheets(other, "training")[0])[0]


def test_runs_that_were_not_evaluated(tmp_path):
    (scores,) = sheets(records(tmp_path, a=(config(), []), b=(config(), [])), "scores")
    assert scores.lines == ()
    assert "No run has been evaluated." in scores.intro


def test_values_of_many_runs_are_listed_with_their_runs(tmp_path):
    own = {
        f"run-{seed}-{D}": (config(seed=seed, path__D=D), [])
        for D in (16, 128)
        for seed in range(1000000, 1000004)
    }
    found = {line["key"]: line for line in lines(sheets(records(tmp_path, **own), "config")[0])}
    values = found["path.D"]["value: runs"]
    assert values.startswith("16: run-1000000-16, ")
    assert "; 128: run-1000000-128, " in values

"""Stored artefacts know parts by their identity: what is written to disk stays as it was."""

import pytest

from flowexp.apps.list import options
from flowexp.config.check import check_job
from flowexp.config.instantiate import instantiate
from flowexp.paths import VE, VP, Linear, Path, Polynomial
from flowexp.runs.run_directory import changed_keys
from flowexp.samplers import EDMGrid, IDDPMGrid, InsetUniform, LogSNR, Natural, VPGrid
from flowexp.tables.jobs import identity_of
from flowexp.tree import select


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (
            Path(Linear()),
            "Path(Linear(t_min=0.0, t_max=1.0, sigma_min=0.0), D=inf, source=Gaussian())",
        ),
        (
            Path(VE(t_min=0.002, t_max=80.0), D=128),
            "Path(VE(t_min=0.002, t_max=80.0), D=128.0, source=StudentT(D=128.0))",
        ),
        (VP(), "VP(t_min=1e-05, t_max=1.0, beta_min=0.1, beta_max=20.0)"),
        (Polynomial(n=2.0), "Polynomial(t_min=0.0, t_max=0.999, n=2.0)"),
        (Natural(), "Natural(t_end=0.0)"),
        (InsetUniform(margin=1e-5), "InsetUniform(margin=1e-05, t_end=0.0)"),
        (
            LogSNR(sigma_min=0.002, sigma_max=80.0, to_zero=True),
            "LogSNR(sigma_min=0.002, sigma_max=80.0, to_zero=True)",
        ),
        (EDMGrid(), "EDMGrid(sigma_min=0.002, sigma_max=80.0, to_zero=True, rho=7.0)"),
    ],
)
def test_identities_are_those_of_version_0_1(part, text):
    assert part.identity() == text
    assert repr(part) == text


def test_an_option_added_later_counts_once_it_differs():
    """VPGrid and IDDPMGrid have options that version 0.1 lacked."""
    old = "VPGrid(sigma_min=0.1, sigma_max=9.0, to_zero=True)"
    assert VPGrid(sigma_min=0.1, sigma_max=9.0).identity() == old
    assert VPGrid(sigma_min=0.1, sigma_max=9.0, epsilon_s=0.01, rho=1.0).identity() == (
        "VPGrid(sigma_min=0.1, sigma_max=9.0, to_zero=True, epsilon_s=0.01)"
    )
    assert IDDPMGrid().identity() == "IDDPMGrid(sigma_min=0.002, sigma_max=81.0, to_zero=True)"
    assert "M=50" in IDDPMGrid(M=50).identity()
    before = {"sampler": {"time_grid": {"_target_": "flowexp.samplers.VPGrid", "to_zero": True}}}
    grid = before["sampler"]["time_grid"]
    same, other = (
        {"sampler": {"time_grid": grid | {"epsilon_s": value}}} for value in (0.001, 0.01)
    )
    jobs = [identity_of("eval", config) for config in (before, same, other)]
    assert jobs[0] == jobs[1] != jobs[2]
    assert not changed_keys({"refiner": grid}, {"refiner": grid | {"epsilon_s": 0.001}})
    assert changed_keys({"refiner": grid}, {"refiner": grid | {"epsilon_s": 0.01}})


@pytest.mark.parametrize(
    ("sampler", "later"),
    [
        ("Euler", {"analytic_first_step": False}),
        ("UniPC", {"analytic_first_step": False}),
        ("DPM2", {"analytic_first_step": False, "r": 0.5}),
        ("AdamsBashforth", {"analytic_first_step": False, "final_euler": False}),
    ],
)
def test_samplers_that_got_options_later_keep_the_jobs_they_had(sampler, later):
    node = {"_target_": f"flowexp.samplers.{sampler}", "steps": 5}
    known = identity_of("eval", {"sampler": node})
    assert identity_of("eval", {"sampler": node | later}) == known
    for name in later:
        changed = node | later | {name: 0.7 if name == "r" else True}
        assert identity_of("eval", {"sampler": changed}) != known


def test_private_attributes_are_no_part_of_it():
    path = VE(t_min=0.002, t_max=80.0)
    before = path.identity()
    path._cached = 3
    assert path.identity() == before


@pytest.mark.parametrize("group", ["path", "sampler/time_grid"])
def test_every_option_has_an_identity_that_names_its_arguments(group):
    found = set()
    for option in options(group):
        choice = [f"path={option}"] if group == "path" else ["sampler=euler", f"{group}={option}"]
        config = check_job("train", choice).config
        key = "path.schedule" if group == "path" else "sampler.time_grid"
        node = select(config, key)
        if None in node.values() and option == "given":
            continue
        part = instantiate(node, key=key)
        text = part.identity()
        assert text.startswith(f"{type(part).__name__}(")
        assert "object at" not in text
        found.add(text)
    assert len(found) >= 8

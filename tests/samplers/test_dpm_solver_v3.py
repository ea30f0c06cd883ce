"""DPM-Solver-v3: what it reduces to, what it is for, what it refuses."""

import json

import numpy as np
import pytest
import torch

from flowexp.calibration import measure, write_reference
from flowexp.models import Origin
from flowexp.paths import VE, VP, Linear, Path
from flowexp.samplers import (
    DDIM,
    ConstantStatistics,
    DormandPrince,
    DPMSolver,
    DPMSolverV3,
    EDMGrid,
    LogSNR,
    ModelStatistics,
    PowerGrid,
    ReferenceStatistics,
    Statistics,
    StoredStatistics,
    Uniform,
)
from flowexp.samplers.model_statistics import lambda_grid
from flowexp.samplers.stored_calibrations import identity_of
from tests.samplers.closed_forms import MixtureModel

GRID = LogSNR(sigma_min=0.01, sigma_max=50.0, to_zero=False)
PATHS = {
    "ve": Path(VE(t_min=0.002, t_max=80.0)),
    "vp": Path(VP(t_min=1e-3)),
    "linear": Path(Linear()),
}
SHAPE = (1, 2, 2)


def mixture(path):
    m = torch.tensor([[1.0, 0.5, -0.5, 0.2], [-1.0, 0.25, 0.75, -0.4]])
    return MixtureModel(path, [0.4, 0.6], m, [[0.3, 0.5, 0.2, 0.4], [0.4, 0.3, 0.6, 0.2]])


def draws(count, *, seed=0):
    return torch.randn(
        count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def data_of(model, count):
    rng = torch.Generator().manual_seed(3)
    k = torch.multinomial(model.w, count, replacement=True, generator=rng)
    noise = torch.randn(count, 4, dtype=torch.float64, generator=rng)
    return (model.m[k] + model.c[k] * noise).reshape(count, *SHAPE)


class Fixed(Statistics):
    def __init__(self, statistics):
        self.statistics = statistics

    def of(self, model, low, high):
        return self.statistics


@pytest.fixture(scope="module")
def measured():
    """Statistics of the mixture on the VE path over the range of GRID."""
    model = mixture(PATHS["ve"])
    lam = lambda_grid(model, t_start=50.0, t_end=0.01, N=120)
    count = 256
    return measure(
        model, lam, x=data_of(model, count), e=draws(count, seed=1), probes=None, batch_size=1024
    )


def solver(*, statistics=None, steps=8, **options):
    given = ConstantStatistics(N=steps * 160) if statistics is None else statistics
    return DPMSolverV3(
        steps=steps, **{"time_grid": GRID, "corrector": False, **options}, statistics=given
    )


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(
    ("order", "equal"),
    [(1, {}), (2, {"midpoint": False}), (3, {"midpoint": False, "halved_curvature": False})],
)
def test_degenerate_statistics_give_data_prediction(path, order, equal):
    """Up to the trapezoids' error, of second order in the statistics' grid."""
    model, e = mixture(path), draws(3)
    expected = DPMSolver(steps=8, time_grid=GRID, order=order, **equal).sample(model, e).x
    errors = []
    for points in (160, 320):
        given = ConstantStatistics(N=8 * points)
        found = solver(statistics=given, order=order).sample(model, e).x
        errors.append(float((found - expected).abs().max()))
    assert errors[1] < 2e-5
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)


def test_degenerate_statistics_can_be_noise_prediction():
    model, e = mixture(PATHS["vp"]), draws(3)
    expected = DPMSolver(
        steps=8, time_grid=GRID, order=2, predicts_data=False, midpoint=False
    ).sample(model, e)
    given = ConstantStatistics(l=0.0, s=-1.0, b=0.0, N=5120)
    found = solver(statistics=given, order=2).sample(model, e)
    torch.testing.assert_close(found.x, expected.x, rtol=2e-5, atol=2e-5)


def test_third_order_is_not_the_coded_3m():
    model, e = mixture(PATHS["ve"]), draws(3)
    coded = DPMSolver(steps=8, time_grid=GRID, order=3).sample(model, e).x
    found = solver(order=3).sample(model, e).x
    assert float((found - coded).abs().max()) > 1e-3


def test_first_order_beats_ddim(measured):
    model, e = mixture(PATHS["ve"]), draws(64)
    low, high = 0.01, 50.0
    narrow = mixture(PATHS["ve"])
    narrow.time_range = (low, high)
    exact = DormandPrince(rtol=1e-10, atol=1e-10, denoise_at_end=False, max_steps=5000)
    truth = exact.sample(narrow, e).x
    ddim = DDIM(steps=10, time_grid=GRID).sample(model, e).x
    found = solver(statistics=Fixed(measured), steps=10, order=1).sample(model, e).x

    def error(x):
        return float((x - truth).square().mean().sqrt())

    assert error(found) < 0.7 * error(ddim)


@pytest.mark.parametrize(
    "options",
    [
        {"corrector": True},
        {"corrector": True, "c_pseudo": True},
        {"p_pseudo": True, "corrector": True},
        {"corrector": True, "lower_order_final": False},
        {"corrector": True, "corrector_high": 0.5},
        {"corrector": True, "corrector_low": 0.5},
        {"order": 2, "corrector": True, "c_pseudo": True},
    ],
)
def test_options_cost_nothing_and_converge(measured, options):
    model, e = mixture(PATHS["ve"]), draws(8)
    coarse = solver(statistics=Fixed(measured), steps=10, **options).sample(model, e)
    fine = solver(statistics=Fixed(measured), steps=40, **options).sample(model, e)
    assert coarse.nfe.tolist() == [10] * 8
    assert fine.nfe.tolist() == [40] * 8
    truth = solver(statistics=Fixed(measured), steps=120).sample(model, e).x
    assert (fine.x - truth).abs().max() < 0.5 * (coarse.x - truth).abs().max()


def test_half_corrector_readings_are_complements(measured):
    """The paper corrects t <= 0.5, its Stable Diffusion code t > 0.5."""
    model, e = mixture(PATHS["ve"]), draws(2)

    def walk(**options):
        states = []
        solver(statistics=Fixed(measured), corrector=True, **options).sample(
            model, e, on_step=lambda t, x: states.append((float(t), x))
        )
        return states

    paper, code, full, none = (
        walk(corrector_high=0.5),
        walk(corrector_low=0.5),
        walk(),
        walk(corrector_low=1e9, corrector_high=2e9),
    )
    first = next(i for i, (t, _) in enumerate(full) if t <= 0.5)
    for i in range(first):
        assert torch.equal(paper[i][1], none[i][1])
        assert torch.equal(code[i][1], full[i][1])
    assert not torch.equal(paper[first][1], none[first][1])
    assert not torch.equal(code[first][1], full[first][1])


def test_last_step_to_zero(measured):
    """At t = 0 lambda is infinite: the model's data prediction at the last noise level."""
    model, e = mixture(PATHS["ve"]), draws(3)
    seen = []
    original = model.predict
    model.predict = lambda x, t, **k: seen.append(original(x, t, **k)) or seen[-1]
    grid = EDMGrid(sigma_min=0.01, sigma_max=50.0, to_zero=True)
    samples = solver(statistics=Fixed(measured), steps=6, time_grid=grid).sample(model, e)
    assert samples.nfe.tolist() == [6] * 3
    torch.testing.assert_close(samples.x, seen[-1].data, rtol=1e-10, atol=1e-10)


def test_the_network_is_asked_on_the_statistics_grid(measured):
    model, e = mixture(PATHS["ve"]), draws(2)
    solver(statistics=Fixed(measured), steps=7).sample(model, e)
    evaluated = -torch.stack(model.times).log()
    gaps = (evaluated[:, None] - measured.lam).abs().min(1).values
    assert float(gaps.max()) < 1e-12


def test_two_times_on_one_point_are_refused(measured):
    model = mixture(PATHS["ve"])
    crowded = PowerGrid(p=1.0, t_start=50.0, t_end=0.01)
    with pytest.raises(ValueError, match="fall twice on one of the 121 points"):
        solver(statistics=Fixed(measured), steps=100, time_grid=crowded).check(model)


def test_other_shapes_are_refused(measured):
    model = mixture(PATHS["ve"])
    with pytest.raises(ValueError, match=r"samples of shape \(1, 2, 2\)"):
        solver(statistics=Fixed(measured)).sample(model, torch.zeros(2, 1, 4, 4))


def test_infinite_start_is_refused():
    with pytest.raises(ValueError, match="no data is left"):
        solver(time_grid=Uniform()).check(mixture(PATHS["linear"]))


@pytest.mark.parametrize("broken", [{"lam": 3}, {"s": 3}])
def test_statistics_of_unequal_length_are_refused(broken):
    sizes = {"lam": 5, "l": 5, "s": 5, "b": 5} | broken
    parts = {key: torch.zeros(n, 2) for key, n in sizes.items() if key != "lam"}
    with pytest.raises(ValueError, match="one shape"):
        ModelStatistics(torch.arange(sizes["lam"]).double(), **parts)


def test_uneven_grid_is_refused():
    part = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="equal steps"):
        ModelStatistics(torch.tensor([0.0, 1.0, 3.0]), part, part, part)


def store(folder, model, statistics, *, name="made", **identity):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", **{k: v.numpy() for k, v in vars(statistics).items()})
    manifest = {
        "identity": {**identity_of(model), **identity},
        "settings": {"lam": [float(statistics.lam[0]), float(statistics.lam[-1])]},
    }
    (folder / f"{name}.json").write_text(json.dumps(manifest))


@pytest.fixture
def model_of_a_run(tmp_path):
    model = mixture(PATHS["ve"])
    model.origin = Origin("abc", "main", tmp_path / "calibrations")
    return model


def test_uses_what_is_stored_with_the_run(measured, model_of_a_run, tmp_path):
    folder = tmp_path / "calibrations" / "dpm_solver_v3"
    store(folder, model_of_a_run, measured)
    e = draws(2)
    found = solver(statistics=StoredStatistics()).sample(model_of_a_run, e).x
    assert torch.equal(found, solver(statistics=Fixed(measured)).sample(model_of_a_run, e).x)


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        ({"weights_sha256": "fed"}, "weights_sha256 fed, not abc"),
        ({"weights": "raw"}, "weights raw, not main"),
        ({"path": "Path(VP)"}, r"path Path\(VP\), not Path\(VE"),
    ],
)
def test_statistics_of_another_model_are_refused(
    measured, model_of_a_run, tmp_path, identity, told
):
    store(tmp_path / "calibrations" / "dpm_solver_v3", model_of_a_run, measured, **identity)
    with pytest.raises(ValueError, match=told):
        solver(statistics=StoredStatistics()).check(model_of_a_run)


def test_statistics_of_a_smaller_range_are_refused(measured, model_of_a_run, tmp_path):
    store(tmp_path / "calibrations" / "dpm_solver_v3", model_of_a_run, measured)
    wide = LogSNR(sigma_min=0.002, sigma_max=50.0, to_zero=False)
    with pytest.raises(ValueError, match=r"covers lambda from -3\.9120 to 4\.6052, but the time"):
        solver(statistics=StoredStatistics(), time_grid=wide).check(model_of_a_run)


def test_nothing_stored_says_how_to_calibrate(model_of_a_run):
    with pytest.raises(ValueError, match=r"flowexp calibrate run=.* for=dpm_solver_v3"):
        solver(statistics=StoredStatistics()).check(model_of_a_run)


def test_a_model_without_a_run_is_refused():
    with pytest.raises(ValueError, match="does not come from a run"):
        solver(statistics=StoredStatistics()).check(mixture(PATHS["ve"]))


def test_of_several_one_has_to_be_named(measured, model_of_a_run, tmp_path):
    folder = tmp_path / "calibrations" / "dpm_solver_v3"
    for name in ("first", "second"):
        store(folder, model_of_a_run, measured, name=name)
    with pytest.raises(ValueError, match=r"\(first, second\); choose one with sampler.statistics"):
        solver(statistics=StoredStatistics()).check(model_of_a_run)
    solver(statistics=StoredStatistics(name="second")).check(model_of_a_run)
    with pytest.raises(ValueError, match="no calibration 'third'"):
        solver(statistics=StoredStatistics(name="third")).check(model_of_a_run)


def test_the_beginning_of_a_name_is_enough(measured, model_of_a_run, tmp_path):
    folder = tmp_path / "calibrations" / "dpm_solver_v3"
    for name in ("N12_K4_aa", "N120_K4_bb", "N120_K8_cc"):
        store(folder, model_of_a_run, measured, name=name)
    for name in ("N12", "N120_K8"):
        solver(statistics=StoredStatistics(name=name)).check(model_of_a_run)
    with pytest.raises(ValueError, match="N120_K4_bb, N120_K8_cc"):
        solver(statistics=StoredStatistics(name="N120")).check(model_of_a_run)


def test_the_authors_layout_reads_back(measured, tmp_path):
    write_reference(tmp_path / "0.01_50_120_256", measured)
    model, e = mixture(PATHS["ve"]), draws(2)
    source = ReferenceStatistics(
        directory=str(tmp_path / "0.01_50_120_256"), t_start=50.0, t_end=0.01
    )
    found = solver(statistics=source).sample(model, e).x
    expected = solver(statistics=Fixed(measured)).sample(model, e).x
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    with pytest.raises(ValueError, match="the statistics cover lambda"):
        solver(statistics=source, time_grid=LogSNR(sigma_min=0.002, to_zero=False)).check(model)
    with pytest.raises(ValueError, match=r"has no l\.npz"):
        solver(statistics=ReferenceStatistics(directory=str(tmp_path))).check(model)


def test_the_plan_is_made_once_for_all_batches(measured):
    model, sampler = mixture(PATHS["ve"]), solver(statistics=Fixed(measured))
    first = sampler.sample(model, draws(2)).x
    plan = sampler._planned
    assert torch.equal(sampler.sample(model, draws(2)).x, first)
    assert sampler._planned is plan

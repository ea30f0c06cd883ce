import sys
from pathlib import Path

import pytest

from flowexp.config.check import check
from flowexp.config.schema import out_of_range


def problems(*overrides, verb="train", **options):
    return {p.key: str(p) for p in check(verb, list(overrides), **options).problems}


def test_the_default_is_sound():
    assert problems() == {}


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("pth=linear", "pth", ["path"]),
        ("path=liner", "path", ["linear"]),
        ("sampler/time_gird=edm", "sampler/time_gird", ["sampler/time_grid"]),
        ("experiment=fashion10k/rectifed_flow", "experiment", ["fashion10k/rectified_flow"]),
        ("trainer.max_king=3", "trainer.max_king", ["trainer.max_kimg"]),
        ("trainr.max_kimg=3", "trainr.max_kimg", ["trainer"]),
        ("max_kimg=3", "max_kimg", []),
        ("path.schedule.t_mx=3", "path.schedule.t_mx", ["path.schedule.t_max"]),
        ("trainer.max_kimg=many", "trainer.max_kimg", ["many", "float"]),
        ("trainer.batch_size=1.5", "trainer.batch_size", ["1.5", "int"]),
        ("network.channel_mult=3", "network.channel_mult", ["3"]),
        ("seed=one", "seed", ["one"]),
        ("path.D=-1", "path.D", ["-1", "positive"]),
        ("sampler.steps=0", "sampler.steps", ["0", "at least 1"]),
        ("optimizer.lr=0", "optimizer.lr", ["positive"]),
        ("trainer.max_kimg=0", "trainer.max_kimg", ["0", "positive"]),
        ("network.dropout=1", "network.dropout", ["1", "[0, 1)"]),
        ("network.label_dropout=-0.1", "network.label_dropout", ["-0.1", "[0, 1)"]),
        ("+path.nonsense=1", "path.nonsense", ["Path"]),
        ("path._target_=flowexp.paths.Pth", "path._target_", ["Path"]),
        ("path", "path", ["key=value"]),
        ("seed=1,2", "seed", ["-m"]),
        ("path=[ve,vp]", "path", ["ve and vp", "path=ve,vp -m"]),
        ("sampler/time_grid=[edm,vp]", "sampler/time_grid", ["edm and vp"]),
        ("dataset=image_folder", "dataset.archive", ["dataset.archive="]),
        ("network.label_dim=7", "network.label_dim", ["7", "10"]),
        ("task.label=11", "task.label", ["11"]),
        ("trainer.micro_batch=100000", "trainer.micro_batch", ["trainer.batch_size"]),
    ],
)
def test_each_mistake_names_its_key_and_a_remedy(override, key, words):
    found = problems(override)
    assert key in found, found
    for word in words:
        assert word in found[key]


POINTS = ["dataset=toy2d", "network=mlp"]
VAE = Path(__file__).parent.parent / "autoencoders" / "data" / "vae"
LATENTS = ["autoencoder=folder", f"autoencoder.folder={VAE}", "autoencoder.channels=4"]


@pytest.mark.parametrize(
    ("overrides", "key", "parts"),
    [
        (["path=edm", "timestep=logit_normal"], "timestep", ["LogitNormal", "VE"]),
        (["sampler=rk45", "sampler.control=me"], "sampler.control", ["me", "scipy, torchdiffeq"]),
        (["path=pfgmpp", "sampler=edm_heun", "sampler.S_churn=40"], "sampler.S_churn", ["path.D"]),
        (["path=linear", "path.D=64", "sampler=ddim", "sampler.eta=1"], "sampler.eta", ["path.D"]),
        (["network.label_dim=0", "guidance=cfg", "guidance.scale=2"], "guidance", ["label"]),
        (
            ["objective=velocity_refinement", "teacher=run"],
            "parameterization",
            ["VelocityRefinement", "EDMPreconditioning", "velocity_increment"],
        ),
        (
            ["parameterization=velocity_increment", "network.in_channels=2"],
            "objective",
            ["VelocityIncrement", "Regression"],
        ),
        (
            [*POINTS, "parameterization=velocity_increment", "objective=velocity_refinement"],
            "network.in_channels",
            ["VelocityIncrement", "EightGaussians", "network.in_channels=4"],
        ),
        (["sampler=dopri5", "sampler.rtol=0"], "sampler.rtol", ["0.0", "positive"]),
        (["path=pfgm", "sampler=sde"], "sampler", ["EulerMaruyama", "StudentT", "path.D=inf"]),
        (
            ["path=pfgm_original", "metric=bits_per_dim"],
            "metric.bits_per_dim",
            ["RadiusClippedStudentT", "path.source=null"],
        ),
        ([*POINTS, "metric=fid"], "metric.fid", ["fid", "EightGaussians", "metric=fd_raw"]),
        ([*POINTS, "metric=auto"], "metric.auto", ["EightGaussians", "metric=fd_raw"]),
        ([*POINTS, "objective=lpips"], "objective", ["LPIPS", "EightGaussians"]),
        ([*POINTS, "sampler=ancestral"], "sampler.clip", ["Ancestral", "EightGaussians", "null"]),
        ([*LATENTS, "sampler=ancestral"], "sampler.clip", ["Ancestral", "latents", "null"]),
        (
            [*LATENTS, "guidance=dynamic_thresholding"],
            "guidance",
            ["DynamicThresholding", "latents", "Leave it out"],
        ),
        (["coupling=pairs"], "pairs", ["StoredPairs", "flowexp pairs"]),
        (["pairs=somewhere"], "pairs", ["Independent", "coupling=pairs"]),
        (["augmentation=edm"], "network.augment_dim", ["EDMAugmentation", "augment_dim=9"]),
        (["timestep=fixed"], "timestep", ["Fixed", "EDMPreconditioning", "timestep.value"]),
        (["network=captioned"], "task", ["task=captions"]),
        (["task=captions"], "network", ["Captions", "network=captioned"]),
        (["objective=phased"], "teacher", ["teacher="]),
        (["coupling=chords"], "init", ["Chords"]),
        (["coupling=chords", "init=run", "augmentation=edm"], "augmentation", ["Chords"]),
        (["dataset=toy2d"], "network.img_resolution", ["dataset.resolution", "network"]),
    ],
)
def test_impossible_combinations_name_both_parts(overrides, key, parts):
    found = problems(*overrides)
    assert key in found, found
    for part in parts:
        assert part in found[key]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("parameterization=edm", True),
        ("parameterization=trigflow", True),
        ("parameterization=velocity", False),
        ("autoencoder.scaling.multiplier=0.5", False),
        ("autoencoder/scaling=factor", False),  # an unknown deviation
    ],
)
def test_latents_of_another_deviation_than_the_preconditioning_expects(choice, told):
    remarks = check("train", [*LATENTS, "parameterization=edm", choice]).remarks
    start = "parameterization.sigma_data: sigma_data is 0.5, but the latents' deviation is 1."
    assert [remark.startswith(start) for remark in remarks] == [True] * told


@pytest.mark.parametrize(
    ("parameterization", "allowed"),
    [("edm", {3}), ("poisson_field", {3, 4}), ("iddpm_precond", {3, 6})],
)
def test_output_channels_follow_the_parameterization(parameterization, allowed):
    """Data of 3 channels: PFGM adds one, improved DDPM's networks have as many again."""
    chosen = [f"parameterization={parameterization}", "dataset=cifar10", "network=adm"]
    for channels in (2, 3, 4, 5, 6, 7):
        found = problems(*chosen, f"network.out_channels={channels}")
        assert ("network.out_channels" not in found) == (channels in allowed), (channels, found)
        if channels not in allowed:
            assert f"={' or '.join(map(str, sorted(allowed)))}." in found["network.out_channels"]
    assert "network.in_channels" in problems(*chosen, "network.in_channels=6")


@pytest.mark.parametrize("key", ["num_samples", "repeats", "batch_size"])
def test_numbers_of_a_verb_have_ranges(key):
    config = {"num_samples": 2, "repeats": 1, "batch_size": 1}
    assert list(out_of_range("eval", config)) == []
    (problem,) = out_of_range("eval", config | {key: 0})
    assert problem.key == key
    assert "at least" in problem.remedy


def test_all_problems_are_reported_at_once():
    found = problems("path=liner", "sampler=hoin", "bogus=1")
    assert {"path", "sampler"} <= set(found)
    found = problems("trainer.max_king=3", "path.D=-2", "seed=x")
    assert "trainer.max_king" in found


def test_every_job_of_a_sweep_is_checked():
    found = problems("path=linear,edm", "timestep=logit_normal", multirun=True)
    assert "timestep" in found
    assert problems("path=linear,vp", "seed=1,2,3", multirun=True) == {}
    assert "path" in problems("path=linear,vq", multirun=True)


def test_a_verb_that_needs_a_run_says_so(tmp_path):
    assert "run=DIR" in problems(verb="eval")["run"]
    assert "no such folder" in problems(f"run={tmp_path}/none", verb="sample")["run"]


def test_a_missing_config_dir_is_named(tmp_path):
    assert "--config-dir" in problems(config_dir=str(tmp_path / "none"))


def test_nothing_heavy_is_imported():
    import subprocess

    code = (
        "import sys; from flowexp.config.check import check; "
        "from flowexp.config.here import missing_here; "
        "check('train', ['path=liner']); check('train', ['path.D=-1']); "
        "check('train', ['dataset=cifar10', 'metric=fid', 'init=x'], also=missing_here); "
        "bad = {'torch', 'pytorch_lightning', 'numpy'} & set(sys.modules); "
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

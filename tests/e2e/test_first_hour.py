"""What a user does in the first hour, each command after the other, in an empty home."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.e2e.command import flowexp

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SMALL = (
    "network.model_channels=8",
    "network.pixel_unshuffle=1",
    "trainer.batch_size=32",
    "sampler.steps=3",
)
FLOWERS, SWEEP = "outputs/flowers", "outputs/sweep/first"


def pictures(folder):
    """Two classes of pictures of mixed sizes and kinds; one is damaged."""
    rng = np.random.default_rng(0)
    kinds = ["L", "RGB", "RGBA", "P"]
    for k, name in enumerate(("rose", "tulip")):
        (folder / name).mkdir(parents=True)
        for i in range(24 + 8 * k):
            size = (rng.integers(9, 30), rng.integers(9, 30), 3)
            image = Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8))
            image.convert(kinds[i % len(kinds)]).save(folder / name / f"{i:02}.png")
    (folder / "tulip" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Runs commands in one folder, with a home that is empty."""
    place = tmp_path_factory.mktemp("first_hour")
    (place / "home").mkdir()
    environment = {"HOME": str(place / "home"), "COLUMNS": "80"}
    pictures(place / "my_pictures")

    def run(line, *, code=0):
        verb, *arguments = shlex.split(line)
        done = flowexp(verb, *arguments, cwd=place, env=environment)
        assert done.code == code, (line, done.out, done.err)
        assert max(map(len, done.out.splitlines()), default=0) <= 80, done.out
        return done

    run.place = place
    return run


def next_command(out):
    """The command that a verb proposes, without the program's name."""
    (line,) = re.findall(r"^ *next +flowexp (.*)$", out, re.MULTILINE)
    return line


def config_of(walk, run):
    return yaml.safe_load((walk.place / run / "config.yaml").read_text(encoding="utf-8"))


def test_own_pictures_to_a_chain_of_runs(walk):
    made = walk("prepare in=my_pictures out=flowers-8.zip resolution=8 crop=center", code=1)
    assert "broken.png" in made.out + made.err
    for count, name in ((24, "rose"), (32, "tulip")):
        assert re.search(rf"{count} .*{name}", made.out)
    small = " ".join((*SMALL, "trainer.max_kimg=0.128", f"dirs.run={FLOWERS}"))
    trained = walk(f"{next_command(made.out)} {small}")
    assert config_of(walk, FLOWERS)["network"]["label_dim"] == 2
    scored = walk(f"{next_command(trained.out)} metric=fd_raw num_samples=32")
    assert "0.128 kimg" in scored.out

    again = walk(f"train run={FLOWERS}")
    assert "already finished" in again.out + again.err
    longer = walk(f"train run={FLOWERS} trainer.max_kimg=0.256")
    assert "0.256 kimg" in longer.out

    made = walk(f"pairs run={FLOWERS} num=64")
    assert f"pairs={FLOWERS}/pairs" in made.out
    reflow = f"from={FLOWERS} coupling=pairs pairs={FLOWERS}/pairs"
    walk(f"train {reflow} trainer.max_kimg=0.064 dirs.run=outputs/reflow")
    first, second = (config_of(walk, run) for run in (FLOWERS, "outputs/reflow"))
    for group in ("network", "path", "parameterization", "dataset"):
        assert first[group] == second[group]
    assert second["init"] == FLOWERS


def test_a_sweep_to_a_data_frame(walk):
    small = " ".join((*SMALL, "trainer.max_kimg=0.064", f"dirs.sweep={SWEEP}"))
    sweep = walk(
        f"train dataset=digits path=pfgmpp path.D=64,inf seed=1,2 {small} launcher=joblib -m"
    )
    assert sweep.out.rstrip().splitlines()[-1].endswith(f"flowexp compare {SWEEP}")
    scored = walk(f"eval run={SWEEP} metric=fd_raw num_samples=32")
    assert scored.code == 0
    compared = walk(f"compare {SWEEP}")
    for text in ("path.D=64", "path.D=inf", "\u00b1", "  2\n"):
        assert text in compared.out
    walk(f"compare {SWEEP} format=csv out=sweep.csv")
    frame = pd.read_csv(walk.place / "sweep.csv")
    assert len(frame) == 4
    assert frame["seed"].tolist() == [1, 2, 1, 2]
    assert frame.groupby("path.D").size().tolist() == [2, 2]

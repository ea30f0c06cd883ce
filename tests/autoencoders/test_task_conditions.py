"""What a task makes of images, as a flow on their latents is given it."""

import numpy as np
import pytest
import torch

from flowexp.autoencoders import Factor
from flowexp.couplings import Independent
from flowexp.data import as_data, gather_batch
from flowexp.networks.conditions import Image, Mask
from flowexp.paths import Linear, Path
from flowexp.seeding import generator
from flowexp.tasks import Half, Inpainting, MaskedTokens
from flowexp.timesteps import Uniform
from flowexp.training.inputs import TrainingDraws
from tests.autoencoders.tiny import Random
from tests.training.tiny import Tiles

SEED = 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOWEXP_CACHE", str(tmp_path))


def task() -> Inpainting:
    inputs = {"image": Image(channels=2), "mask": Mask()}
    return Inpainting(dataset=Tiles(), inputs=inputs, mask=Half(), split="train")


def draws(ours: Random, **options) -> TrainingDraws:
    options = {"task": task(), "pixels": Tiles().train(), **options}
    return TrainingDraws(
        Path(Linear()),
        coupling=Independent(),
        timestep=Uniform(),
        conditional=False,
        seed=SEED,
        autoencoder=ours,
        **options,
    )


def encoded(ours: Random, image: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        mean, std = ours.encode(image)
    return mean + std * n


def batch_of(ours: Random, rows: range, mirrored: list[bool] | None = None):
    flips = None if mirrored is None else np.array(mirrored)
    return gather_batch(ours.data(Tiles()).train(), np.array(rows), mirrored=flips)


def test_the_image_is_encoded_with_draws_of_the_step_and_the_mask_is_left() -> None:
    ours = Random()
    pairs, _ = draws(ours)(batch_of(ours, range(4)), 5)
    x = as_data(torch.from_numpy(Tiles().train().images[:4]))
    holed = pairs.conditions["mask"] > 0
    assert holed.shape == (4, 1, 4, 4)
    n = torch.randn(4, 2, 2, 2, generator=generator(SEED, "condition posterior", 5, 0))
    expected = encoded(ours, x.masked_fill(holed, -1.0), n)
    torch.testing.assert_close(pairs.conditions["image"], expected)


def test_a_mirrored_latent_has_the_conditions_of_the_mirrored_image() -> None:
    class Mirrored(Tiles):
        def __init__(self) -> None:
            super().__init__()
            self.hflip = True

    ours = Random()
    arrays = ours.data(Mirrored()).train()
    batch = gather_batch(arrays, np.arange(2), mirrored=np.array([False, True]))
    pairs, _ = draws(ours)(batch, 0)
    x = as_data(torch.from_numpy(Tiles().train().images[:2]))
    x[1] = x[1].flip(-1)
    n = torch.randn(2, 2, 2, 2, generator=generator(SEED, "condition posterior", 0, 0))
    expected = encoded(ours, x.masked_fill(pairs.conditions["mask"] > 0, -1.0), n)
    torch.testing.assert_close(pairs.conditions["image"], expected)


def test_conditions_do_not_depend_on_the_number_of_processes() -> None:
    ours = Random()
    whole, _ = draws(ours)(batch_of(ours, range(4)), 1)
    for rank in range(2):
        rows = range(2 * rank, 2 * rank + 2)
        part, _ = draws(ours, rank=rank, world_size=2)(batch_of(ours, rows), 1)
        for name in ("image", "mask"):
            own = whole.conditions[name][rows.start : rows.stop]
            torch.testing.assert_close(part.conditions[name], own)


def test_known_tokens_are_those_of_the_latents_that_the_step_draws() -> None:
    ours = Random()
    tokens = MaskedTokens(patch_size=1)
    assert tokens.made_of_latents
    pairs, _ = draws(ours, task=tokens, pixels=None)(batch_of(ours, range(4)), 5)
    known = pairs.conditions["mask"] < 0
    assert known.shape == (4, 1, 2, 2)
    assert known.any()
    assert pairs.x.shape == (4, 2, 2, 2)
    torch.testing.assert_close(pairs.conditions["image"], pairs.x.masked_fill(~known, 0.0))


def test_masks_are_padded_like_images_by_none() -> None:
    ours = Random(side=3, scaling=Factor(factor=0.5))
    given = {"image": torch.zeros(1, 1, 3, 3), "mask": torch.ones(1, 1, 3, 3)}
    found = ours.conditions(given, task=task(), noise=lambda _, mean: torch.zeros_like(mean))
    assert found["image"].shape == (1, 2, 2, 2)
    assert found["mask"].shape == (1, 1, 4, 4)
    assert found["mask"].sum() == 9.0
    assert found["mask"][0, 0, :3, :3].eq(1.0).all()

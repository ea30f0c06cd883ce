"""``flowexp sample``: one sample per seed, whatever the batch size and number of processes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowexp.config.application import Job

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Draw samples from a run.

    Args:
        arguments: Overrides (``run=DIR seeds=0-63``) and Hydra's options.
    """
    from flowexp.config.application import launch

    launch("sample", sample, arguments)


def sample(job: "Job") -> None:
    """Generate the seeds' samples and write arrays, grid and pictures into the job's directory.

    Args:
        job: The checked config and the output directory.
    """
    import numpy as np
    import torch

    from flowexp.apps.from_run import open_run
    from flowexp.apps.terminal import shown, table
    from flowexp.checkpoints import write_npz
    from flowexp.config.instantiate import instantiate
    from flowexp.evaluation import Processes, generate, parse_seeds, save_grid, save_images

    config = job.config
    seeds = parse_seeds(config["seeds"])
    opened = open_run(config)
    with Processes.start() as processes:
        own = list(
            generate(
                opened.parts.model,
                sampler=opened.parts.sampler,
                guidance=opened.parts.guidance,
                task=opened.parts.task,
                seeds=seeds,
                shape=opened.parts.dataset.shape,
                batch_size=config["batch_size"],
                device=opened.device,
                latents=instantiate(config["latents"], key="latents"),
                processes=processes,
            )
        )
        gathered = processes.gather(
            [(b.seeds, b.x.cpu(), b.nfe.cpu(), b.conditions.get("labels")) for b in own]
        )
    if gathered is None:
        return
    batches = [batch for rank in gathered for batch in rank]
    # Processes share the batches in turn; the rows go back to the order of the seeds.
    row = {seed: i for i, seed in enumerate(seed for batch in batches for seed in batch[0])}
    order = torch.tensor([row[seed] for seed in seeds])
    x = torch.cat([batch[1] for batch in batches])[order]
    labels = [batch[3].cpu() for batch in batches if batch[3] is not None]
    arrays = {
        "x": x.numpy(),
        "seeds": np.asarray(seeds),
        "nfe": torch.cat([batch[2] for batch in batches])[order].numpy(),
    }
    if labels:
        arrays["labels"] = torch.cat(labels)[order].numpy()
    folder = job.directory
    write_npz(folder / "samples.npz", arrays)
    if config["grid"]:
        save_grid(folder / "grid.png", x)
    if config["png"]:
        save_images(folder, x, seeds)
    rows = [
        ("samples", f"{len(x)} at {arrays['nfe'].mean():.4g} NFE"),
        ("weights", f"{opened.weights.ema or 'raw'} at {opened.weights.kimg:g} kimg"),
        ("arrays", shown(folder / "samples.npz")),
    ]
    print(table([*rows, ("grid", shown(folder / "grid.png"))] if config["grid"] else rows))

"""``flowexp sample``: one sample per seed, for any batch size and number of processes."""

from functools import partial

from flowexp.apps.terminal import shown, table
from flowexp.config.application import Job, launch
from flowexp.files import write_npz
from flowexp.progress import stage

__all__ = ["main"]


def sample(job: Job) -> None:
    """Generate the seeds' samples and write arrays, grid and images into the job's directory."""
    with stage("loading PyTorch"):
        from flowexp.pipeline import (
            Processes,
            parse_seeds,
            sampling_threads,
            save_grid,
            save_images,
            with_given,
        )

    import numpy as np

    from flowexp.data.base import shown_mapping
    from flowexp.runs.opening import open_run

    config = job.config
    seeds = parse_seeds(config["seeds"])
    opened = open_run(config)
    chosen = sampling_threads(opened.pipeline, config["threads"])
    with Processes.start() as processes, chosen as threads:
        samples = opened.pipeline.gathered(seeds, processes=processes)
    if samples is None:
        return
    x, nfe = samples.x, samples.nfe.numpy()
    arrays = {"x": x.numpy(), "seeds": np.asarray(seeds), "nfe": nfe}
    labels = samples.conditions.get("labels")
    if labels is not None:
        arrays["labels"] = labels.numpy()
    of_data = opened.run.manifest().get("dataset_reading", {}).get("labels_of_classes")
    if labels is not None and of_data:
        # -1, no class, selects the last
        arrays["labels_of_data"] = np.array([*of_data, -1])[arrays["labels"]]
    folder = job.directory
    write_npz(folder / "samples.npz", arrays)
    if config["grid"]:
        names = opened.pipeline.class_names
        given = with_given(opened.pipeline.task, seeds, x)
        if given is None:
            save_grid(folder / "grid.png", x, labels=labels, class_names=names)
        else:
            save_grid(folder / "grid.png", given.images, columns=given.columns)
    if config["png"]:
        save_images(folder, x, seeds)
    rows = [
        ("samples", f"{len(x)} at {nfe.mean():.4g} NFE"),
        *((name, f"{float(values.mean()):.4g}") for name, values in samples.facts.items()),
        ("weights", opened.weights_in_words),
        ("arrays", shown(folder / "samples.npz")),
    ]
    if threads is not None:
        rows.append(("threads", threads))
    if "labels_of_data" in arrays:
        rows.append(("classes", shown_mapping(of_data)))
    print(table([*rows, ("grid", shown(folder / "grid.png"))] if config["grid"] else rows))


main = partial(launch, "sample", sample)

"""Is a smaller D more robust to noise? Trains PFGM++ for several D and scores it under noise.

Every D and seed is trained by ``flowexp train`` and scored by ``flowexp eval`` with noise of
``alpha sigma`` on the state before each step (``sampler/perturbation=state_noise``). Finished runs
and evaluations are found and not repeated, so the same command continues a study that was stopped.
Writes ``pfgmpp_robustness.json``, ``.md`` and ``.png``.

    python scripts/study_robustness.py --dataset digits --kimg 30 --seeds 0 1 2

Source of the claim: Xu et al., PFGM++, 2023, arXiv 2302.04265, section 5.2.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flowexp.files import write_bytes, write_json, write_text
from flowexp.tables.render.plots import Plot, Series, Subplot, is_log

NAME = "pfgmpp_robustness"


@dataclass(frozen=True)
class Study:
    """The trainings and scores of the study.

    Attributes:
        dataset: Data set with an experiment ``<dataset>/pfgmpp``.
        kimg: Thousands of images per training.
        seeds: Training seeds.
        D: Degrees of freedom as written on the command line, ``inf`` among them.
        alphas: Noise relative to the noise level.
        num_samples: Samples per score.
        steps: Steps of Heun's method on EDM's grid.
        metric: Metric option of ``flowexp eval``.
        device: Device option.
        extra: Further overrides of the training.
        runs: Folder of the runs.
    """

    dataset: str
    kimg: float
    seeds: tuple[int, ...]
    D: tuple[str, ...]
    alphas: tuple[float, ...]
    num_samples: int
    steps: int
    metric: str
    device: str
    extra: tuple[str, ...]
    runs: Path

    def run(self, D: str, seed: int) -> Path:
        """The run directory of one training."""
        return self.runs / self.dataset / f"D{D}_seed{seed}_{self.kimg:g}kimg"

    def training(self, D: str, seed: int) -> list[str]:
        """Arguments of one training."""
        return [
            f"experiment={self.dataset}/pfgmpp", f"path.D={D}", f"seed={seed}",
            f"trainer.max_kimg={self.kimg:g}", f"trainer.accelerator={self.device}",
            f"dirs.run={self.run(D, seed)}", *self.extra,
        ]  # fmt: skip

    def evaluation(self, D: str, seed: int, alpha: float) -> list[str]:
        """Arguments of one score."""
        return [
            f"run={self.run(D, seed)}", "sampler=heun", "sampler/time_grid=edm",
            "sampler/variable=nsr", f"sampler.steps={self.steps}",
            "sampler/perturbation=state_noise", f"sampler.perturbation.scale={alpha:g}",
            f"metric={self.metric}", f"num_samples={self.num_samples}", f"device={self.device}",
        ]  # fmt: skip


def flowexp(verb: str, arguments: Sequence[str]) -> None:
    """Run one command; its output stays visible."""
    print("flowexp", verb, *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "flowexp", verb, *arguments], check=True)


def is_trained(study: Study, D: str, seed: int) -> bool:
    """Whether the run has reached its last image."""
    metrics = study.run(D, seed) / "metrics.jsonl"
    if not metrics.is_file() or not metrics.read_text().strip():
        return False
    last = json.loads(metrics.read_text().strip().splitlines()[-1])
    return bool(last["kimg"] >= study.kimg)


def stored_score(study: Study, D: str, seed: int, alpha: float) -> dict[str, Any] | None:
    """The entry of this evaluation in the run's results, or None."""
    file = study.run(D, seed) / "results.json"
    if not file.is_file():
        return None
    wanted = set(study.evaluation(D, seed, alpha))
    found = [
        e for e in json.loads(file.read_text())["evaluations"] if set(e["overrides"]) == wanted
    ]
    return found[-1] if found else None


def measure(study: Study) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Train and score whatever is missing; the entries by (D, alpha), one per seed."""
    scores: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for seed in study.seeds:
        for D in study.D:
            if not is_trained(study, D, seed):
                flowexp("train", study.training(D, seed))
            for alpha in study.alphas:
                if stored_score(study, D, seed, alpha) is None:
                    flowexp("eval", study.evaluation(D, seed, alpha))
                entry = stored_score(study, D, seed, alpha)
                if entry is None:
                    raise RuntimeError(f"{study.run(D, seed)} holds no score at alpha={alpha:g}")
                scores.setdefault((D, alpha), []).append(entry)
    return scores


def summary(
    study: Study, scores: Mapping[tuple[str, float], Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """The study as plain builtins: protocol, circumstances, and one row per (D, alpha)."""
    rows = []
    for (D, alpha), entries in scores.items():
        values = [float(e["records"][0]["value"]) for e in entries]
        spread = statistics.stdev(values) if len(values) > 1 else None
        row = {"D": D, "alpha": alpha, "values": values, "mean": statistics.fmean(values)}
        rows.append({**row, "std": spread, "nfe": entries[0]["nfe"]})
    first = next(iter(scores.values()))[0]
    return {
        "claim": "smaller D degrades less under noise of alpha sigma per step",
        "source": "Xu et al., PFGM++, 2023, arXiv 2302.04265, section 5.2",
        "metric": first["records"][0]["key"],
        # the sampler's noise differs between the rows
        "protocol": {k: v for k, v in first["records"][0]["protocol"].items() if k != "sampler"},
        "dataset": study.dataset,
        "kimg": study.kimg,
        "num_samples": study.num_samples,
        "seeds": list(study.seeds),
        "steps": study.steps,
        "training": study.training(study.D[0], study.seeds[0]),
        "hardware": hardware(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("flowexp", "torch")},
        "rows": rows,
    }


def hardware() -> str:
    """The processor, its cores, and the accelerator if there is one."""
    import torch

    from flowexp.runs.manifest import processor

    names = [processor()]
    if torch.cuda.is_available():
        names.append(torch.cuda.get_device_name())
    return ", ".join(names)


def markdown(found: Mapping[str, Any]) -> str:
    """A table with one row per D and one column per alpha."""
    alphas = sorted({row["alpha"] for row in found["rows"]})
    names = list(dict.fromkeys(row["D"] for row in found["rows"]))
    cells = {(row["D"], row["alpha"]): row for row in found["rows"]}
    head = f"| D | {' | '.join(f'alpha={a:g}' for a in alphas)} | worst / clean |"
    lines = [head, "|" + " --- |" * (len(alphas) + 2)]
    for D in names:
        shown = [_cell(cells[D, a]) for a in alphas]
        ratio = cells[D, alphas[-1]]["mean"] / cells[D, alphas[0]]["mean"]
        lines.append(f"| {D} | {' | '.join(shown)} | {ratio:.2f} |")
    about = (
        f"{found['metric']} on {found['dataset']}, {found['num_samples']} samples, "
        f"{found['kimg']:g} kimg, Heun {found['steps']} steps, training seeds {found['seeds']}: "
        f"mean and standard deviation over seeds. {found['hardware']}; torch "
        f"{found['versions']['torch']}; {found['date']}."
    )
    text = json.dumps(found["protocol"])
    return "\n".join(["# PFGM++ under noise", "", about, "", *lines, "", f"Protocol: {text}", ""])


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.4g}" + ("" if row["std"] is None else f" ± {row['std']:.2g}")


def write(study: Study, found: Mapping[str, Any], folder: Path) -> None:
    """Write the three files of the study."""
    write_json(folder / f"{NAME}.json", found)
    write_text(folder / f"{NAME}.md", markdown(found))
    write_bytes(folder / f"{NAME}.png", plot(study, found).png())


def plot(study: Study, found: Mapping[str, Any]) -> Plot:
    """Mean scores over alpha, one curve per D, with bars of one standard deviation."""
    series = []
    for number, D in enumerate(study.D):
        rows = sorted((r for r in found["rows"] if r["D"] == D), key=lambda r: r["alpha"])
        points = tuple((r["alpha"], r["mean"]) for r in rows)
        bars = tuple(r["std"] for r in rows) if len(study.seeds) > 1 else ()
        series.append(Series(label=f"D={D}", points=points, number=number, bars=bars, marked=True))
    subplot = Subplot(
        series=tuple(series),
        x_label="alpha: noise per step over sigma",
        title=found["metric"],
        log_y=is_log([row["mean"] for row in found["rows"]]),
        ticks=tuple(sorted(study.alphas)),
    )
    title = f"{study.dataset}: mean and standard deviation over {len(study.seeds)} seeds"
    return Plot(subplots=(subplot,), size=(480.0, 360.0), title=title, described=markdown(found))


def parsed(arguments: Sequence[str] | None = None) -> tuple[Study, Path]:
    """The study of a command line, and the folder of its tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--kimg", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--D", nargs="+", default=["16", "128", "2048", "inf"])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3, 0.4])
    parser.add_argument("--num-samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--metric", default="fd_efflite0")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--extra", nargs="*", default=[], help="further overrides of the training")
    parser.add_argument("--runs", type=Path, default=Path("outputs/study_robustness"))
    parser.add_argument("--tables", type=Path, default=Path("outputs/tables"))
    values = vars(parser.parse_args(arguments))
    tables = values.pop("tables")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Study(**plain), tables


def main() -> None:
    """Run the study and write its tables."""
    study, tables = parsed()
    found = summary(study, measure(study))
    write(study, found, tables)
    print(markdown(found))


if __name__ == "__main__":
    main()

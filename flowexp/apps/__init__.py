"""The verbs: one module each, with a ``main(arguments)``."""

__all__ = ["VERBS"]

VERBS = {
    "train": "train a model; the run directory holds everything it made",
    "eval": "score a run: run=DIR",
    "sample": "draw samples from a run: run=DIR seeds=0-63",
    "stream": "send frames through a run's model one after the other: run=DIR frames=folder",
    "pairs": "noise-data pairs of a run, for reflow and distillation: run=DIR num=100000",
    "calibrate": "measure the numbers of a run that a sampler needs: run=DIR for=dpm_solver_v3",
    "prepare": "a data set of your own pictures: in=FOLDER out=flowers-64.zip resolution=64",
    "import": "turn a published checkpoint into a run: import FILE",
    "export": "one safetensors file with weights and config: run=DIR",
    "table": "a paper's table, published and measured: table list, table pfgmpp/cifar10 budget=cpu",
    "compare": "runs side by side: run=a run=b",
    "report": "one self-contained HTML file of runs and tables: report DIR",
    "check": "check a configuration: all problems at once, nothing is run",
    "list": "the options of every group: flowexp list, flowexp list sampler",
    "doctor": "devices, data and weights of this computer, and how to add what is missing",
    "completion": "Tab completion: completion bash|zsh|fish",
}
"""What each module of this package does, as ``flowexp --help`` lists it."""

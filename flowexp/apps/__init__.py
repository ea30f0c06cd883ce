"""The verbs: one module each, with a ``main(arguments)``."""

__all__ = ["VERBS"]

VERBS = {
    "train": "train a model, continue one (run=DIR) or start from one (from=DIR)",
    "eval": "score a run: run=DIR",
    "sample": "draw samples from a run: run=DIR seeds=0-63",
    "stream": "send frames through a run's model: run=DIR frames=folder",
    "pairs": "make noise-data pairs for reflow and distillation: run=DIR",
    "calibrate": "measure statistics that a sampler needs: run=DIR for=METHOD",
    "prepare": "make a data set of your pictures: in=DIR out=X.zip resolution=64",
    "import": "turn a published checkpoint into a run: import FILE",
    "export": "write weights and config into one safetensors file: run=DIR",
    "table": "reproduce a paper's table: table list, table pfgmpp/cifar10",
    "compare": "compare runs: run=a run=b, or compare SWEEPDIR",
    "report": "write one HTML file about runs and tables: report DIR",
    "check": "report all problems of a configuration without running it",
    "list": "list the options of all groups, or explain some: list sampler",
    "doctor": "check devices, data and weights of this computer",
    "completion": "set up Tab completion: completion bash|zsh|fish",
}
"""The verbs with their lines in ``flowexp --help``."""

"""Masked autoregressive models and speculative decoding, with the commands of a user."""

import json

import numpy as np
import pytest

from tests.e2e.command import TINY, flowexp

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
MAR = [
    *(one for one in TINY if not one.startswith(("network", "sampler"))),
    "network=mar",
    "network.hidden_size=16",
    "network.depth=1",
    "network.num_heads=2",
    "network.head_width=16",
    "network.head_depth=1",
    "task=masked_tokens",
    "objective=masked",
    "path=linear",
    "parameterization=velocity",
    "sampler=mar",
    "sampler.tokens.steps=2",
]


def done(*arguments, cwd):
    outcome = flowexp(*arguments, cwd=cwd, env=ONE_THREAD)
    assert outcome.code == 0, outcome.err
    return outcome.out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    done("train", *MAR, "network.patch_size=4", "dirs.run=target", cwd=folder)
    done("train", *MAR, "network.patch_size=4", "seed=1", "dirs.run=draft", cwd=folder)
    return folder


SPECULATIVE = ["sampler=speculative", "sampler.draft=draft", "sampler.tokens.steps=2"]


def test_a_draft_proposes_and_what_was_accepted_is_reported_and_stored(folder):
    told = done("sample", "run=target", "seeds=0-3", *SPECULATIVE, "dirs.run=out", cwd=folder)
    for words in ("target passes", "draft passes", "accepted share of drafted tokens"):
        assert words in told
    stored = np.load(folder / "out" / "samples.npz")
    assert np.isfinite(stored["x"]).all()

    told = done("eval", "run=target", *SPECULATIVE, "sampler/criterion=aligned", "num_samples=8",
                "metric=[fd_raw,processor_seconds]",
                "metric.processor_seconds.num=2", cwd=folder)  # fmt: skip
    assert "accepted share of judged tokens" in told
    (entry,) = json.loads((folder / "target" / "results.json").read_text())["evaluations"]
    assert 0.0 <= entry["sampler_facts"]["accepted share of judged tokens"] <= 1.0
    assert entry["sampler_facts"]["target passes"] == entry["nfe"]
    seconds = next(r for r in entry["records"] if r["name"] == "processor_seconds")
    assert seconds["value"] > 0.0
    assert "drafted by draft" in seconds["protocol"]["sampler"]


def test_a_draft_with_other_tokens_or_none_is_refused_in_words(folder):
    done("train", *MAR, "network.patch_size=2", "dirs.run=other", cwd=folder)
    refused = flowexp("sample", "run=target", "sampler=speculative", "sampler.draft=other",
                      cwd=folder, env=ONE_THREAD)  # fmt: skip
    assert refused.code == 2
    assert "the draft has patch_size=2, the target 4" in refused.err
    refused = flowexp("sample", "run=target", "sampler=speculative", cwd=folder, env=ONE_THREAD)
    assert refused.code == 2
    assert "sampler.draft" in refused.err
    refused = flowexp("sample", "run=target", *SPECULATIVE, "sampler.tokens.time_grid.t_end=0",
                      cwd=folder, env=ONE_THREAD)  # fmt: skip
    assert refused.code == 2
    assert "adds no noise" in refused.err

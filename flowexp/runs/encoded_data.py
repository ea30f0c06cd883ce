"""What a run on latents records of its autoencoder, and whether that is still the same."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowexp.autoencoders import Autoencoder, LatentAutoencoder, Statistics
from flowexp.errors import UsageError

if TYPE_CHECKING:
    from flowexp.data import Dataset

__all__ = ["KEY", "recorded", "restore", "space"]

KEY = "autoencoder"


def space(identity: str | None) -> str:
    """Where a flow is learned, by the identity of its autoencoder, for a person."""
    return "the data themselves" if identity is None else f"latents of {identity}"


def recorded(autoencoder: Autoencoder, dataset: "Dataset") -> dict[str, Any]:
    """For the manifest: weights, scaling, statistics and fingerprint; empty without latents.

    The data are encoded now, unless they are cached.
    """
    if not isinstance(autoencoder, LatentAutoencoder):
        return {}
    arrays = autoencoder.data(dataset).train()
    found = autoencoder.statistics
    assert found is not None  # measured when the data were encoded
    return {
        KEY: {
            "identity": autoencoder.identity(),
            "latents": arrays.fingerprint,
            "statistics": {"mean": list(found.mean), "std": list(found.std)},
        }
    }


def restore(autoencoder: Autoencoder, manifest: Mapping[str, Any], *, run: object) -> None:
    """Give an autoencoder the statistics that a run was trained with.

    Raises:
        UsageError: The run was trained on latents of other weights or another scaling.
    """
    known = manifest.get(KEY)
    if not isinstance(autoencoder, LatentAutoencoder):
        return
    identity = autoencoder.identity()
    if not isinstance(known, Mapping) or known.get("identity") != identity:
        before = known.get("identity") if isinstance(known, Mapping) else "none"
        raise UsageError(
            f"{run} was trained on latents of another autoencoder ({before}) than this one "
            f"({identity}).",
            key=KEY,
            remedy="Put its weights and scaling back, or train a new run.",
        )
    found = known["statistics"]
    autoencoder.statistics = Statistics(tuple(found["mean"]), tuple(found["std"]))

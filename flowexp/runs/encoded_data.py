"""What a run on latents records of its autoencoder, and whether that is still the same."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowexp.autoencoders import Autoencoder, LatentAutoencoder, Statistics
from flowexp.errors import UsageError

if TYPE_CHECKING:
    from flowexp.data import Dataset

__all__ = ["KEY", "identity_in", "recorded", "restore", "space"]

KEY = "autoencoder"


def identity_in(manifest: Mapping[str, Any]) -> str | None:
    """The identity of the autoencoder that a run records; None without one."""
    identity: str | None = (manifest.get(KEY) or {}).get("identity")
    return identity


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
    if not isinstance(autoencoder, LatentAutoencoder):
        return
    before, identity = identity_in(manifest), autoencoder.identity()
    if before != identity:
        raise UsageError(
            f"{run} was trained on latents of another autoencoder ({before or 'none'}) than this "
            f"one ({identity}).",
            key=KEY,
            remedy="Put its weights and scaling back, or train a new run.",
        )
    found = manifest[KEY]["statistics"]
    autoencoder.statistics = Statistics(tuple(found["mean"]), tuple(found["std"]))

"""Preconditioners of EDM's code base as flowexp's ``parameterization`` group."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flowexp.errors import UsageError

__all__ = ["PRECONDITIONERS", "Preconditioner", "preconditioner"]

_INTERFACE = ("img_resolution", "img_channels", "label_dim", "use_fp16")
_PFGMPP = ("pfgmpp", "N", "D")


@dataclass(frozen=True)
class Preconditioner:
    """One class of the authors' code.

    Attributes:
        option: Option of the ``parameterization`` group.
        arguments: The option's arguments, from the authors' constructor arguments.
        names: The constructor's parameters in their order; those of the network follow.
        takes_range: Whether the option has the range of noise levels as arguments.
    """

    option: str
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]
    names: tuple[str, ...]
    takes_range: bool = False


def _vp(given: Mapping[str, Any]) -> dict[str, Any]:
    beta_min = given.get("beta_min", 0.1)
    return {
        "beta_min": beta_min,
        "beta_max": beta_min + given.get("beta_d", 19.9),
        "time_steps": given.get("M", 1000),
        "eps_t": given.get("epsilon_t", 1e-5),
    }


def _renamed(**names: tuple[str, float]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Arguments from those of the authors: our name = (their name, their default)."""
    return lambda given: {our: given.get(*their) for our, their in names.items()}


PRECONDITIONERS: Mapping[str, Preconditioner] = {
    "EDMPrecond": Preconditioner(
        option="edm",
        arguments=_renamed(sigma_data=("sigma_data", 0.5)),
        names=(*_INTERFACE, "sigma_min", "sigma_max", "sigma_data", "model_type", *_PFGMPP),
        takes_range=True,
    ),
    "VPPrecond": Preconditioner(
        option="vp_precond",
        arguments=_vp,
        names=(*_INTERFACE, "beta_d", "beta_min", "M", "epsilon_t", "model_type", *_PFGMPP),
    ),
    "VEPrecond": Preconditioner(
        option="ve_precond",
        arguments=_renamed(sigma_min=("sigma_min", 0.02), sigma_max=("sigma_max", 100.0)),
        names=(*_INTERFACE, "sigma_min", "sigma_max", "model_type", *_PFGMPP),
    ),
    "iDDPMPrecond": Preconditioner(
        option="iddpm_precond",
        arguments=_renamed(C1=("C_1", 0.001), C2=("C_2", 0.008), time_steps=("M", 1000)),
        names=(*_INTERFACE, "C_1", "C_2", "M", "model_type", *_PFGMPP),
    ),
}


def preconditioner(class_name: str) -> Preconditioner:
    """The entry for a class of the authors' code.

    Raises:
        UsageError: The class is unknown.
    """
    if class_name not in PRECONDITIONERS:
        raise UsageError(
            f"{class_name!r} is not a preconditioner that can be imported.",
            key="file",
            remedy=f"Known preconditioners: {', '.join(PRECONDITIONERS)}.",
        )
    return PRECONDITIONERS[class_name]

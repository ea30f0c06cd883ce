"""``init: ${trained:RECIPE}``: a recipe that tunes a trained model does not train from scratch.

The value stands where ``init=`` is not given. It is the run that ``from=RUN`` names, and without
one the recipe is refused; ``init=null`` trains from random weights on purpose.
"""

from omegaconf import DictConfig, OmegaConf

from flowexp.errors import UsageError

__all__ = ["register_trained"]


def register_trained() -> None:
    """Register the resolver ``trained``."""
    OmegaConf.register_new_resolver("trained", _trained, replace=True)


def _trained(recipe: str, *, _root_: DictConfig) -> str:
    """The run to start from.

    Args:
        recipe: The experiment that trains such a run.

    Raises:
        UsageError: The command names none.
    """
    if "parent" in _root_:
        return str(_root_.parent)
    raise UsageError(
        "this recipe tunes a trained model, but init is not given.",
        key="init",
        remedy=f"Set init=RUN, the directory of a run of {recipe} or of one like it; "
        "init=null trains from random weights on purpose.",
    )

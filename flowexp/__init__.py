"""flowexp: flow-based and diffusion image generation as reproducible, composable experiments.

Importing the package imports neither torch nor Lightning; the parts live in its sub-packages.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"

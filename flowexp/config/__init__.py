"""Configuration: where it lives, what is allowed in it, and how it becomes objects.

With ``flowexp.apps`` and ``flowexp.cli`` this is the only package that imports Hydra.
"""

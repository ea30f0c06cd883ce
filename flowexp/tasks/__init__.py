"""Tasks: what is asked of a model at evaluation."""

from flowexp.tasks.base import Task
from flowexp.tasks.generation import Generation

__all__ = ["Generation", "Task"]

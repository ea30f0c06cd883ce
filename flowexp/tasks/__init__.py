"""Tasks: the conditions and targets of samples at evaluation."""

from flowexp.tasks.base import Task
from flowexp.tasks.captions import Captions, Tokenizer, WordTokenizer
from flowexp.tasks.generation import Generation

__all__ = ["Captions", "Generation", "Task", "Tokenizer", "WordTokenizer"]

"""Tasks: the conditions and targets of samples at evaluation."""

from flowexp.tasks.base import Generation, Task
from flowexp.tasks.captions import Captions, Tokenizer, WordTokenizer

__all__ = ["Captions", "Generation", "Task", "Tokenizer", "WordTokenizer"]

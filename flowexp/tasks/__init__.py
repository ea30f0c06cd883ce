"""Tasks: the conditions of samples, in training and at evaluation, and their targets."""

from flowexp.tasks.base import Generation, Task, refuse_given
from flowexp.tasks.captions import Captions, Tokenizer, WordTokenizer
from flowexp.tasks.class_examples import ClassExamples
from flowexp.tasks.edges import Edges
from flowexp.tasks.held_out import HeldOut, OfImages, TowardsImages
from flowexp.tasks.inpainting import Inpainting
from flowexp.tasks.masked_tokens import MaskedTokens
from flowexp.tasks.masks import Box, Half, MaskLaw, RandomPixels, Strokes
from flowexp.tasks.paired_image import PairedImage
from flowexp.tasks.reconstruction import Reconstruction
from flowexp.tasks.semantic_map import FromLevels, FromPartner, Maps, SemanticImages

__all__ = [
    "Box",
    "Captions",
    "ClassExamples",
    "Edges",
    "FromLevels",
    "FromPartner",
    "Generation",
    "Half",
    "HeldOut",
    "Inpainting",
    "Maps",
    "MaskLaw",
    "MaskedTokens",
    "OfImages",
    "PairedImage",
    "RandomPixels",
    "Reconstruction",
    "SemanticImages",
    "Strokes",
    "Task",
    "Tokenizer",
    "TowardsImages",
    "WordTokenizer",
    "refuse_given",
]

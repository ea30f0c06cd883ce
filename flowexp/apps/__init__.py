"""The verbs: one module each, with a ``main(arguments)``."""

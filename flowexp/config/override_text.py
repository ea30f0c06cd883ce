"""Writing an override in Hydra's grammar."""

import math
import re

__all__ = ["override"]

_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_./-]+")


def override(key: str, value: object) -> str:
    """``key=value``, quoted as the value needs; a list becomes ``key=[a,b]``."""
    return f"{key}={_value(value)}"


def _value(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(_value(item) for item in value)}]"
    if isinstance(value, str) and not _PLAIN_TEXT.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return str(value)

import ast
from pathlib import Path

import flowexp

PACKAGE = Path(flowexp.__file__).parent
HOME = "config/hydra_internals.py"


def imported_modules(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def private_to_hydra(module: str) -> bool:
    top, *rest = module.split(".")
    return top in ("hydra", "omegaconf") and any(part.startswith("_") for part in rest)


def test_one_module_imports_what_hydra_keeps_private():
    users = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(map(private_to_hydra, imported_modules(file)))
    }
    assert users == {HOME}

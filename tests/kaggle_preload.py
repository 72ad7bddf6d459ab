"""What the process that all workers are forked from imports: the workbench, and whatever the client will import."""

import ast
import importlib
import importlib.util
from pathlib import Path

import kaggle_workbench  # noqa: F401 (it is here to be imported)


def import_for_the_client() -> None:
    """Imports what the client imports; the client itself would authenticate while it is imported."""
    folder = Path(importlib.util.find_spec("kaggle").submodule_search_locations[0])
    for file in ("api/kaggle_api_extended.py", "cli.py"):
        for node in ast.parse((folder / file).read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.partition(".")[0] != "kaggle":
                    importlib.import_module(name)


import_for_the_client()

"""The package as a whole: light imports, the contract of names, notebooks and package in step."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(p.stem for p in (ROOT / "dppt_nb").glob("[a-z]*.py"))
HEAVY = (
    "matplotlib", "cv2", "nbdev", "fastcore", "IPython", "ipywidgets", "pyarrow", "pycocotools",
)


def loaded_after(statement):
    "Modules that are loaded in a fresh interpreter after `statement`."
    code = (
        f"{statement}; import sys, json; print(json.dumps(sorted({{m.split('.')[0] "
        f"for m in sys.modules}})))"
    )
    return json.loads(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
    )


def test_import_is_light():
    assert not {"torch", *HEAVY} & set(loaded_after("import dppt_nb"))


@pytest.mark.parametrize("module", MODULES)
def test_modules_need_no_jupyter_and_draw_nothing_yet(module):
    assert not set(HEAVY) & set(loaded_after(f"import dppt_nb.{module}"))


def test_contract_of_names():
    import dppt_nb
    from dppt_nb.crops import crop_affine  # noqa: F401

    # noqa: F401
    from dppt_nb.metrics import evaluate_coco, pck, pckh  # noqa: F401
    assert all(
        callable(getattr(dppt_nb, name))
        for name in ("create_model", "list_models", "load_released", "macs")
    )
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"): dppt_nb.nonsense
    sizes = dict(
        tokenpose="t s_v1 s_v2 b l_d6 l_d24 nano", ppt="s b l_d6 nano", dppt="s b l_d6 nano",
        sdpose="t s_v1 s_v2 b nano",
    )
    assert {f"{family}_{size}" for family, row in sizes.items() for size in row.split()} <= set(
        dppt_nb.list_models()
    )


@pytest.mark.parametrize("path", sorted((ROOT / "nbs").rglob("*.ipynb")), ids=lambda p: p.name)
def test_notebook_is_small_and_stores_no_errors(path):
    notebook = json.loads(path.read_text())
    assert path.stat().st_size < 1_500_000
    assert "widgets" not in notebook["metadata"]
    outputs = [o for c in notebook["cells"] for o in c.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "error"]


def test_functions_are_short():
    import ast
    lengths = []
    for module in MODULES:
        tree = ast.parse((ROOT / "dppt_nb" / f"{module}.py").read_text())
        lengths += [
            (n.end_lineno - n.lineno + 1, f"{module}.{n.name}")
            for n in ast.walk(tree)
            if isinstance(n, ast.FunctionDef)
        ]
    assert max(lengths)[0] <= 45, max(lengths)


def test_text_names_no_place_on_a_machine():
    mine = [
        p
        for folder in ("nbs", "dppt_nb", "data")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in (".ipynb", ".py", ".md")
    ]
    told = [
        p.name for p in mine if re.search(r"/(work|root|home)/\w+|/tmp/\w+/\w+\.py", p.read_text())
    ]
    assert not told

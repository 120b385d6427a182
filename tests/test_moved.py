"""Names that changed their module go on working at their former place, and say so."""
import subprocess
import sys
import warnings
from importlib import import_module

import pytest

from dppt_nb.moved import MOVED

ROWS = [
    (module, name, home)
    for module, homes in MOVED.items()
    for home, names in homes.items()
    for name in names.split()
]


@pytest.mark.parametrize("module, name, home", ROWS, ids=lambda part: part)
def test_a_former_name_is_the_one_of_today(module, name, home):
    former, wanted = import_module(f"dppt_nb.{module}"), import_module(f"dppt_nb.{home}")
    assert name in wanted.__all__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert getattr(former, name) is getattr(wanted, name)
    if name in vars(former): return    # the module uses it itself
    assert f"dppt_nb.{home}.{name}" in str(caught[-1].message)
    assert caught[-1].category is DeprecationWarning and caught[-1].filename == __file__


def test_names_that_never_were_are_not_found():
    for module in MOVED:
        former = import_module(f"dppt_nb.{module}")
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"): former.nonsense
        assert not hasattr(former, "nonsense")


def test_the_former_module_of_runs_is_there_and_light():
    code = (
        "import sys, dppt_nb.train; assert 'torch' not in sys.modules\n"
        "from dppt_nb.train import synthetic_people, train_recipe\n"
        "from dppt_nb.training import Recipe, load_network"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code], check=True, capture_output=True, text=True
    )
    assert "dppt_nb.train.synthetic_people is now dppt_nb.store.synthetic_people" in done.stderr

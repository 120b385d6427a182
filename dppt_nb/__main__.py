"`python -m dppt_nb` is `dppt`: for launchers that start a module, and for the command itself."
import os
import sys


def wait_briefly():
    """How long PyTorch's threads stay awake while they wait for each other. GNU's OpenMP reads this
    as it is loaded, and by itself waits so long that one other busy program makes a training more
    than ten times slower (nbs/machinery/training_costs.ipynb)."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "20000"


def main():
    "The command; a Ctrl-C while it is still being loaded ends it as a later one does."
    try:
        wait_briefly()
        from dppt_nb.cli import main as dppt
        dppt(prog_name="dppt")
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__": main()

"`python -m dppt_nb` is `dppt`: for launchers that start a module."
from dppt_nb.cli import main

if __name__ == "__main__": main(prog_name="dppt")

"`python -m dppt_nb` is `dppt`: for launchers that start a module, and for the command itself."
import sys


def main():
    "The command; a Ctrl-C while it is still being loaded ends it as a later one does."
    try:
        from dppt_nb.cli import main as dppt
        dppt(prog_name="dppt")
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__": main()

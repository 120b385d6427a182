"""The command in processes that start at once: each is forked from one that has PyTorch already."""
import multiprocessing
import os
import signal
import sys
import time

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["torch._dynamo", "dppt_nb.cli", "dppt_nb.runner"])


def run_command(words, place, output, people):
    "The command, on one thread, in the folder `place`; what it prints goes into the pipe `output`."
    import torch

    import dppt_nb.store
    from dppt_nb.cli import main
    for stream in (1, 2): os.dup2(output.fileno(), stream)
    output.close()
    sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))
    torch.set_num_threads(1)
    # a test run that was itself sent to the background hands on that Ctrl-C is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if people: dppt_nb.store.SYNTHETIC_PEOPLE.update(people)
    os.chdir(place)
    sys.argv = ["dppt", *words]    # which `--devices` hands on to the processes that it starts
    main(prog_name="dppt")


class Command:
    "The command with some words under way; as much of `subprocess.Popen` as tests need."
    def __init__(self, *words, cwd=".", people=None):
        self.output, its_end = FORKED.Pipe(duplex=False)
        words = [str(word) for word in words]
        self.process = FORKED.Process(target=run_command, args=(words, cwd, its_end, people))
        self.process.start()
        its_end.close()

    @property
    def returncode(self):
        "None while it runs; minus the number of the signal that ended it."
        return self.process.exitcode

    def wait_for(self, ready):
        "Until something is there, or the process has ended."
        while self.process.is_alive() and not ready(): time.sleep(0.002)

    def send_signal(self, number): os.kill(self.process.pid, number)

    def kill(self): self.process.kill()

    def end(self):
        "What it printed, once it and all that it started have ended."
        parts = iter(lambda: os.read(self.output.fileno(), 1 << 16), b"")
        said = b"".join(parts).decode()
        self.process.join()
        return said

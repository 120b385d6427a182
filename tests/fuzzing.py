"What became of mutated inputs, counted, for the fuzzers and for the page on files."
import os
import re
import time
from collections import Counter
from pathlib import Path

from dppt_nb.checks import DataError

# of the processor, and of memory more than before, for one input
SECONDS, MEBIBYTES = 20, 1024


def how_many(few):
    "Inputs of each kind: a few, unless DPPT_FUZZ says how many."
    return int(os.environ.get("DPPT_FUZZ", few))


def peak():
    "Mebibytes that this process had at most; 0 where the system does not tell."
    status = Path("/proc/self/status")
    if not status.exists(): return 0
    return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) // 2**10


def forget_peak():
    "Begin a new peak, where the system lets a process do so."
    try: Path("/proc/self/clear_refs").write_text("5")
    except OSError: pass


class Tally:
    "Outcomes of one kind of input."
    def __init__(self, kind):
        self.kind, self.counts, self.foreign = kind, Counter(), {}
        self.slowest, self.most = 0, 0

    def take(self, number, read, sentences=(DataError,)):
        "What was read; None where it was refused by one sentence, or by anything else."
        forget_peak()    # memory that earlier inputs had may be kept, and used again
        start, before = time.process_time(), peak()
        try:
            found = read()
            self.counts["read"] += 1
            return found
        except sentences as error:
            text = str(error)
            plain = text and "\n" not in text and "\x1b" not in text
            if not plain: self.foreign.setdefault("no sentence", number)
            self.counts["refused" if plain else "no sentence"] += 1
        except Exception as error:
            self.foreign.setdefault(type(error).__name__, number)
            self.counts[type(error).__name__] += 1
        finally:
            self.slowest = max(self.slowest, time.process_time() - start)
            self.most = max(self.most, peak() - before)

    def check(self):
        "Print the counts; nothing but reading and refusing, in time and within the memory."
        total = sum(self.counts.values())
        said = ", ".join(f"{name} {n:,}" for name, n in sorted(self.counts.items()))
        print(f"{self.kind}: {total:,} inputs, {said}; "
              f"longest {self.slowest:.1f} s of the processor, at most {self.most} MiB")
        assert not self.foreign, (self.kind, self.foreign)
        assert self.slowest < SECONDS and self.most < MEBIBYTES

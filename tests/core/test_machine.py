import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from regraft.core.machine import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(100_000_000, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_freed_memory()
print(faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at once")
def test_freed_memory_is_used_again_without_asking_the_system():
    def run(word):
        done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True)
        return [int(number) for number in done.stdout.split()]

    (first, again), (_, by_default) = run("keep"), run("as it is")
    assert 10 * again < min(first, by_default)

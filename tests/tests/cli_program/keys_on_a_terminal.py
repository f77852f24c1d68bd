"""Starts a program on a pseudo terminal, types keys at the right moments, and prints how the program ended."""

import os
import pty
import select
import sys
import time

CTRL_C, CTRL_D, ENTER = b"\x03", b"\x04", b"\r"

# What is waited for, and the keys that are typed then.
STEPS = [
    (b"leaves.", b""),
    (b"> ", b"Write a very long story of a dragon." + ENTER),
    (b"the ", CTRL_C),
    (b"(stopped)", b""),
    (b"> ", b"half a line" + CTRL_C),
    (b"> ", b"/stats" + ENTER),
    (b"answer: ", b""),
    (b"> ", CTRL_D),
]


def main():
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.argv[1], sys.argv[1:])
    output = b""
    seen = 0
    for marker, keys in STEPS:
        deadline = time.monotonic() + 30
        while marker not in output[seen:]:
            if time.monotonic() > deadline:
                sys.exit(f"{marker!r} did not come; there came {output[seen:]!r}")
            if select.select([terminal], [], [], 0.1)[0]:
                output += os.read(terminal, 4096)
        seen = output.index(marker, seen) + len(marker)
        if keys:
            os.write(terminal, keys)
    print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


main()

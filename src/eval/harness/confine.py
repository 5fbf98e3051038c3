"""Landlock around one command within that of the harness: the candidate's own walls where there is no bubblewrap.

    python3 -I confine.py FOLDER PROGRAM COUNT PATH... COMMAND...

COMMAND may read PROGRAM and COUNT more paths and write below FOLDER.  From Landlock's version 6 on it cannot send
signals to the harness either.
"""

import ctypes
import os
import struct
import sys

CREATE, ADD, RESTRICT = 444, 445, 446
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, SIGKILL = 1, 38, 9
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
O_PATH = 0o10000000

libc = ctypes.CDLL(None, use_errno=True)


def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        sys.exit(f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


def main(folder, program, count, *rest):
    readable, command = rest[:int(count)], rest[int(count):]
    version = call(CREATE, None, 0, 1)
    handled = (1 << 15) - 1
    attributes = struct.pack("QQQ", handled, 3, 3)[:24 if version >= 6 else 16]
    rules = call(CREATE, attributes, len(attributes), 0)

    def allow(path, access):
        if not os.path.exists(path):
            return
        descriptor = os.open(path, O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            access &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
        call(ADD, rules, 1, struct.pack("=Qi", access, descriptor), 0)
        os.close(descriptor)

    for path in (program, "/proc", *readable):
        allow(path, EXECUTE | READ_FILE | READ_DIR)
    for path in DEVICES:
        allow(path, READ_FILE | WRITE_FILE)
    allow(folder, handled)
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call(RESTRICT, rules, 0)
    os.environ["TMPDIR"] = folder
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])

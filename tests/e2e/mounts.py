# SPDX-License-Identifier: BSD-2-Clause
"""Another machine for one process: files of this one replaced, in a mount
namespace of its own. Nobody else sees that."""
import ctypes
import os
import subprocess
import tempfile

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def replace(target, source):
    """In a child before its exec: it sees `source` in the place of `target`, and
    has no more rights to a file than its mode gives."""
    libc = ctypes.CDLL(None, use_errno=True)

    def must(result):
        if result != 0:
            raise OSError(ctypes.get_errno(), "no mount namespace")

    must(libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if os.getuid() != 0 else 0)))
    must(libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))
    must(libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(MS_BIND), None))
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def can_replace(target):
    try:
        with tempfile.NamedTemporaryFile() as source:
            subprocess.run(["true"], check=True, preexec_fn=lambda: replace(target, source.name))
    except (OSError, subprocess.SubprocessError):
        return False
    return True

# SPDX-License-Identifier: BSD-2-Clause
"""What the end-to-end tests share: run `ebb`, and see that nothing is left of it.

Each test program is called with the path of the `ebb` program and that of the
reference guest. Exit status 0, 1, or 77: nothing failed, but not everything was
tested, and it says what was not.
"""
import ctypes
import fcntl
import importlib.machinery
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import uuid

EBB = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
# Where it was built, or among the others in a build's bin/.
EBBD = next(filter(os.path.isfile, (os.path.join(os.path.dirname(EBB), *path) for path in (
    ("ebbd", "ebbd"), ("ebbd",)))), None) if EBB else None
GUEST = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
HERE = os.path.dirname(os.path.abspath(__file__))
QEMU = shutil.which("qemu-system-x86_64")
SEED = int(os.environ.get("EBB_SEED", str(random.SystemRandom().randrange(1 << 32))))

# Seconds until what is waited for is said never to come. No test takes nearly so long on a quiet
# machine, and on a busy one none fails by it.
PATIENCE = 600

LINUX_BUILD = "lab/linux/build"

# Marks every process that comes from a test, by its environment.
MARK = "EBB_E2E"


def skip_all(why):
    print(f"SKIP: {why}", file=sys.stderr)
    sys.exit(77)


def need_qemu():
    if not QEMU:
        skip_all("qemu-system-x86_64 is not installed (Debian: qemu-system-x86): "
                 "NOTHING was tested end to end")
    if not GUEST or not os.path.exists(GUEST):
        skip_all("there is no reference guest: NOTHING was tested end to end")


def kept(name, variable):
    """Where what was fetched stays: the environment's directory, or else the build's."""
    return os.environ.get(variable) or os.path.join(os.path.dirname(os.path.dirname(EBB)), name)


def linux_dir():
    return kept("linux-guest", "EBB_LINUX_DIR")


def run_script(path, *args):
    """One of the project's own; its messages in English."""
    return subprocess.run([os.path.join(HERE, "..", "..", path), *args], text=True, capture_output=True,
                          timeout=4 * PATIENCE, env=dict(os.environ, LC_ALL="C"))


def made(untested, path, *args):
    """What a script prints, in words. Skips what cannot be tested without that."""
    done = run_script(path, *args)
    if done.returncode == 77:
        skip_all(f"{untested}: {done.stderr}")
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout.split()


def linux_guest(untested, *options):
    """Paths of a Linux guest: kernel, initrd, and the modules that were asked for."""
    count = 2 + len({"--module", "--holds"} & set(options))
    return made(untested, LINUX_BUILD, *options, linux_dir())[-count:]


def qemu_for_ebbd(untested):
    """The path of a QEMU that can have ebbd's balloon."""
    directory = os.path.abspath(kept("qemu", "EBB_QEMU_DIR"))
    made(untested, "scripts/qemu", directory)
    return os.path.join(directory, "qemu-system-x86_64")


def load_build():
    """lab/linux/build as a module, for what it knows."""
    loader = importlib.machinery.SourceFileLoader("build", os.path.join(HERE, "..", "..", LINUX_BUILD))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("build", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def died_of_qemu(log):
    """A Linux that boots patches its own code, which QEMU's translator gets wrong now and then on a
    busy machine, and looks for timer interrupts that come in time: it dies of either before its
    init runs."""
    return "Oops: int3" in log or "IO-APIC + timer doesn't work" in log


def thp_available():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as f:
            text = f.read()
    except OSError:
        return False
    return "[always]" in text or "[madvise]" in text


def marked(mark):
    """Processes that a test has started, directly or not: {pid: program}."""
    found = {}
    want = f"{MARK}={mark}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if want not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] in "ZX":
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                found[int(pid)] = f.read().split(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
    return found


class Run:
    """One call of ebb, in a directory of its own for all that it writes."""

    def __init__(self, *args, env=None, json_file=True, stdin=subprocess.DEVNULL,
                 stdout=subprocess.PIPE, preexec=None):
        self.mark = uuid.uuid4().hex
        self.dir = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.json_path = os.path.join(self.dir, "result.json")
        self.args = [EBB, *args]
        if args and args[0] == "run" and json_file:
            self.args += ["--json", self.json_path]
        if args and args[0] == "run" and "--timeout" not in args:
            self.args += ["--timeout", str(PATIENCE)]  # the guest may be silent for so long
        full = dict(os.environ, TMPDIR=self.dir, LC_ALL="C.UTF-8")
        full.update(env or {})
        full[MARK] = self.mark
        self.seen = ""
        self.process = subprocess.Popen(self.args, cwd=self.dir, env=full, text=True,
                                        errors="replace", stdin=stdin, stdout=stdout,
                                        stderr=subprocess.PIPE, preexec_fn=preexec)
        self.out = self.err = ""
        self.rc = None

    def wait_for(self, text, seconds=PATIENCE):
        """Until its standard output has this text. False: it ended before."""
        end = time.monotonic() + seconds
        fd = self.process.stdout.fileno()
        while text not in self.seen:
            if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
                return False
            data = os.read(fd, 4096)
            if not data:
                return False
            self.seen += data.decode(errors="replace")
        return True

    def wait_full(self):
        """Until it has filled the pipe of its standard output, which nobody reads."""
        fd = self.process.stdout.fileno()
        size = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
        end = time.monotonic() + PATIENCE
        full, since = 0, time.monotonic()
        while full < size // 2 or time.monotonic() < since + 1:  # a page may have less than it takes
            if time.monotonic() > end:
                raise AssertionError("the pipe is never full")
            time.sleep(0.01)
            before, full = full, struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
            since = since if full == before else time.monotonic()

    def guest_memory(self):
        """A descriptor of the guest's memory, for --backing memfd."""
        fds = f"/proc/{self.qemu()}/fd"
        for fd in os.listdir(fds):
            try:
                if "memory-backend-memfd" in os.readlink(f"{fds}/{fd}"):
                    return os.open(f"{fds}/{fd}", os.O_RDWR)
            except OSError:
                continue
        raise AssertionError("QEMU has no memory of the guest's")

    def qemu(self, seconds=PATIENCE):
        """The pid of its QEMU, once that runs; None: never."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            for pid, program in marked(self.mark).items():
                if pid != self.process.pid and "qemu" in os.path.basename(program):
                    try:
                        with open(f"/proc/{pid}/cmdline") as f:
                            if "-kernel" in f.read():
                                return pid
                    except OSError:
                        pass
            time.sleep(0.01)
        return None

    def wait(self, seconds=PATIENCE):
        self.out, self.err = self.process.communicate(timeout=seconds)
        self.out = self.seen + (self.out or "")
        self.rc = self.process.returncode
        return self

    def json(self):
        with open(self.json_path) as f:
            return json.load(f)

    def describe(self):
        return f"{' '.join(self.args)}\nexit {self.rc}\n{self.out or ''}{self.err or ''}"

    def leftovers(self):
        """Processes that outlive it by more than what they need to end."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            left = marked(self.mark)
            if not left:
                break
            time.sleep(0.02)
        return left

    def files(self):
        return sorted(set(os.listdir(self.dir)) - {"result.json"})

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def drop(fd, offset, length):
    """What a host does to memory that it believes to be free."""
    libc = ctypes.CDLL(None, use_errno=True)
    keep_size_punch_hole = 3
    if libc.fallocate(fd, keep_size_punch_hole, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


class Case(unittest.TestCase):
    """A test case that leaves nothing behind, or fails."""

    def start(self, *args, **keywords):
        run = Run(*args, **keywords)
        self.addCleanup(run.close)
        return run

    def ebb(self, *args, rc=0, seconds=PATIENCE, **keywords):
        for _ in range(3):
            run = self.start(*args, **keywords).wait(seconds)
            if "linux" not in args or not died_of_qemu(run.err):
                break
            print("Linux died while it booted, of its host: once more", file=sys.stderr)
        self.assertEqual(run.rc, rc, run.describe())
        self.assert_clean(run)
        return run

    def assert_clean(self, run, files=()):
        self.assertEqual(run.leftovers(), {}, "left running by " + run.describe())
        self.assertEqual(run.files(), sorted(files), "files left by " + run.describe())

    def assert_says(self, run, *texts):
        for text in texts:
            self.assertIn(text, run.err, run.describe())

    def assert_no_json(self, run):
        self.assertFalse(os.path.exists(run.json_path), run.describe())


def main():
    print(f"EBB_SEED={SEED}", file=sys.stderr)
    result = unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2, exit=False).result
    if not result.wasSuccessful() or result.testsRun == 0:
        sys.exit(1)
    if result.skipped:
        skip_all(f"{len(result.skipped)} of {result.testsRun} cases: "
                 + "; ".join(sorted({why for _, why in result.skipped})))

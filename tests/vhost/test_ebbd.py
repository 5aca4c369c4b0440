# SPDX-License-Identifier: BSD-2-Clause
"""ebbd, over its sockets: options, control, metrics, sandbox, front-ends good and bad.

Called with the path of the program. Nothing here depends on how fast it is: what must come is
waited for, for a minute."""
import errno
import fcntl
import json
import os
import pwd
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import frontend
from daemon import (Control, PATIENCE, descriptors, guest_maps, listens, own_memory, sanitized,
                    wait_for)
from frontend import (DEFLATE, FrontEnd, Gone, HINT, INFLATE, MIB, PAGE, REPORTING, STATS,
                      WRITE)

EBBD = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
EBBD_VM = os.path.join(os.path.dirname(EBBD), "..", "ebbd-vm", "ebbd-vm") if EBBD else None
HERE = os.path.dirname(os.path.abspath(__file__))
SEED = int(os.environ.get("EBB_SEED", str(random.SystemRandom().randrange(1 << 32))))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebbd-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.log = self.path("log")
        self.daemon = None

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self, *args, sandbox=None, vms=("a", "b"), env=None, wait=True, program=None,
              **keywords):
        """ebbd with a control socket and VMs; ends with the test, and must end well."""
        env = dict(os.environ if env is None else env)
        for vm in vms:
            args += ("--socket", self.path(vm + ".sock"))
        if sandbox is None:
            sandbox = not SANITIZED
        if not sandbox:
            args += ("--no-sandbox",)
        elif SANITIZED:
            env["ASAN_OPTIONS"] = "detect_leaks=0"
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(
                [program or EBBD, "--control", self.path("control"), "--stats=0", *args], stderr=log,
                stdin=subprocess.DEVNULL, env=env, **keywords)
        self.addCleanup(self.stop)
        if wait:
            wait_for("ebbd is ready", lambda: "ready" in self.said() or self.daemon.poll() is not None)
            self.assertIsNone(self.daemon.poll(), self.said())
            self.control = self.client()
        return self.daemon

    def client(self):
        control = Control(self.path("control"))
        self.addCleanup(control.close)
        return control

    def said(self):
        with open(self.log) as f:
            return f.read()

    def stop(self, how=signal.SIGINT):
        """With its back ends, unless by SIGTERM."""
        if self.daemon is None:
            return
        daemon, self.daemon = self.daemon, None
        if daemon.poll() is None:
            daemon.send_signal(how)
        self.assertEqual(daemon.wait(PATIENCE), 0, self.said())

    def front(self, vm="a", **keywords):
        front = FrontEnd(self.path(vm + ".sock"), **keywords)
        self.addCleanup(front.close)
        return front

    def back_end(self, vm="a"):
        """The process that serves it."""
        return self.control.vm(vm)["back_end"]["pid"]

    def fds(self):
        return [descriptors(pid) for pid in (self.daemon.pid, self.back_end(), self.back_end("good"))]

    def maps(self):
        return guest_maps(self.back_end()), guest_maps(self.back_end("good"))

    def gone(self, vm="a"):
        wait_for("the daemon lets go", lambda: not self.control.vm(vm)["connected"])

    def report(self, front, at=8 * MIB, length=4 * MIB, queue=REPORTING):
        """Report a range that is filled; until it came back, and went away: a machine that stood still was late."""
        front.fill(at, length)
        before = front.blocks()

        def gone():
            used = front.used(queue)
            front.add(queue, [(at, length, WRITE)])
            wait_for("the report comes back", lambda: front.used(queue) == (used + 1) & 0xFFFF)
            return front.blocks() <= before - length
        self.assertTrue(any(gone() for _ in range(5)))


class Options(Case):
    def run_it(self, *args, rc=2):
        run = subprocess.run([EBBD, *args], capture_output=True, text=True, timeout=PATIENCE,
                             stdin=subprocess.DEVNULL)
        self.assertEqual(run.returncode, rc, run.stderr)
        return run

    def test_help(self):
        text = self.run_it("--help", rc=0).stdout
        for option in ("--socket", "--socket-dir", "--control", "--metrics", "--state", "--rate",
                       "--inhibit", "--user", "--withhold"):
            self.assertIn(option, text)
        self.assertRegex(self.run_it("--version", rc=0).stdout, r"^ebbd \d+\.\d+\.\d+\n$")

    def test_wrong(self):
        for args in (["stray"], ["--nonsense"], ["--fd", "5"],
                     ["--rate", "-1"], ["--rate", "x"], ["--rate", "1K"], ["--check-every", "x"],
                     ["--gather", "100001"], ["--stats", "3601"], ["--offer", "reporting"],
                     ["--withhold", "deflate-on-oom"], ["--queues", "dense"], ["--files", "all"],
                     ["--metrics", "0.0.0.0:80"], ["--metrics", "80"], ["--metrics", "unix:"],
                     ["--metrics", "127.0.0.1:"], ["--metrics", "127.0.0.1:65536"],
                     ["--discard-hints", "--withhold", "hint"]):
            with self.subTest(args=args):
                run = self.run_it("--socket", self.path("x.sock"), *args)
                self.assertRegex(run.stderr, r"^(.*/)?ebbd: ")
                self.assertFalse(os.path.exists(self.path("x.sock")))

    def test_nothing_to_serve(self):
        self.assertIn("nothing to serve", self.run_it().stderr)

    def test_names(self):
        for name in (".sock", "-x.sock", "a b.sock", "x" * 65 + ".sock"):
            with self.subTest(name=name):
                self.assertIn("NAME.sock", self.run_it("--socket", self.path(name)).stderr)
        os.makedirs(self.path("d"))
        run = self.run_it("--socket", self.path("x.sock"), "--socket", self.path("d/x.sock"))
        self.assertIn("two sockets for the VM x", run.stderr)

    def test_sockets(self):
        with open(self.path("file.sock"), "w") as f:
            f.write("precious")
        for path, why in ((self.path("file.sock"), "no socket"),
                          (self.path("none/x.sock"), "No such file"),
                          (self.path("x" * 120 + ".sock"), "107 bytes")):
            with self.subTest(path=path):
                self.assertIn(why, self.run_it("--socket", path, rc=4).stderr)
        with open(self.path("file.sock")) as f:
            self.assertEqual(f.read(), "precious")
        self.assertIn("--socket-dir", self.run_it("--socket-dir", self.path("none"), rc=4).stderr)
        self.assertIn("no user", self.run_it("--socket", self.path("x.sock"), "--user", "nobody-at-all",
                                             rc=4).stderr)

    def test_a_live_socket_is_not_taken(self):
        self.start()
        self.assertIn("another process listens",
                      self.run_it("--socket", self.path("a.sock"), rc=4).stderr)
        self.assertEqual(len(self.control.ask("list")["vms"]), 2)

    def test_one_state_directory_has_one_daemon(self):
        self.start("--state", self.path("state"))
        said = self.run_it("--socket", self.path("c.sock"), "--state", self.path("state"), rc=4).stderr
        self.assertIn("another ebbd", said)


class Life(Case):
    def test_signals(self):
        self.start()
        self.daemon.send_signal(signal.SIGHUP)
        self.assertEqual(self.control.ask("version")["protocol"], 1)
        self.stop(signal.SIGINT)
        self.assertIn("ends", self.said())

    def test_parent_blocked_sigbus(self):
        self.start(preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS}))
        front = self.front().start()
        os.ftruncate(front.memfd, 0)
        os.eventfd_write(front.kicks[REPORTING], 1)
        self.assertTrue(front.hung_up())
        self.gone()
        self.report(self.front("b").start())

    def test_starts_again_on_the_sockets_left_behind(self):
        self.start()
        daemon, self.daemon = self.daemon, None
        daemon.kill()
        daemon.wait()
        self.start()
        self.front().start()

    def test_sockets_are_for_owner_and_group(self):
        self.start("--metrics", "unix:" + self.path("metrics"))
        for name in ("a.sock", "control", "metrics"):
            self.assertEqual(os.stat(self.path(name)).st_mode & 0o777, 0o660)

    def test_ends_in_the_middle(self):
        self.start()
        front = self.front().start()
        front.fill(8 * MIB, 16 * MIB)
        front.add(REPORTING, [(8 * MIB, 16 * MIB, WRITE)])
        self.stop(signal.SIGINT)
        self.assertTrue(front.hung_up())

    def test_notify(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.settimeout(PATIENCE)
            notify.bind(self.path("notify"))
            self.start(env=dict(os.environ, NOTIFY_SOCKET=self.path("notify")))
            self.assertEqual(notify.recv(100), b"READY=1\n")
            self.stop()
            self.assertEqual(notify.recv(100), b"STOPPING=1\n")

    def test_socket_activation(self):
        names = ("web1.sock", "db.sock", "any", "other")
        listening = []
        for name in names:
            sock = socket.socket(socket.AF_UNIX)
            self.addCleanup(sock.close)
            sock.bind(self.path(name))
            sock.listen()
            listening.append(sock)
        # What systemd does: descriptors 3 and up, and the process's own id.
        script = ("export LISTEN_PID=$$ LISTEN_FDS=4 "
                  "LISTEN_FDNAMES=ebbd.socket:ebbd.socket:control:metrics; exec \"$@\"")
        numbers = [sock.fileno() for sock in listening]

        def place():
            high = [os.dup2(fd, 100 + i) for i, fd in enumerate(numbers)]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
                os.close(fd)

        args = [] if not SANITIZED else ["--no-sandbox"]
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(["sh", "-c", script, "sh", EBBD, *args],
                                           stderr=log, preexec_fn=place, close_fds=False)
        self.addCleanup(self.stop)
        control = Control(self.path("any"))
        self.addCleanup(control.close)
        self.assertEqual(sorted(vm["name"] for vm in control.ask("list")["vms"]), ["db", "web1"])
        self.control = control
        self.report(FrontEnd(self.path("web1.sock")).start())
        with socket.socket(socket.AF_UNIX) as metrics:
            metrics.settimeout(PATIENCE)
            metrics.connect(self.path("other"))
            metrics.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            self.assertIn(b" 200 ", metrics.recv(100))


class Supervisor(Case):
    """It comes and goes; back ends die and hang. Guests do not notice."""

    def again(self, how):
        daemon, self.daemon = self.daemon, None
        daemon.send_signal(how)
        daemon.wait(PATIENCE)
        self.start()

    def test_restarts_while_a_guest_reports(self):
        self.start()
        front = self.front().start()
        self.control.ask("limits", vm="a", rate=77 * MIB)
        pid = self.back_end()
        for i in range(1, 11):
            self.again(signal.SIGKILL if i % 2 else signal.SIGTERM)
            self.report(front)
            vm = self.control.vm("a")
            self.assertEqual((vm["back_end"]["pid"], vm["rate"], vm["connected"]), (pid, 77 * MIB, True))
            self.assertEqual(vm["reported_bytes"], i * 4 * MIB)
            self.assertEqual(vm["front_ends"]["connections"], 1)
        self.assertIn("adopted", self.said())

    def test_whoever_asks_first_sees_all(self):
        """However long a back end takes to start."""
        ebbd = shutil.copy(EBBD, self.path("ebbd"))
        with open(self.path("ebbd-vm"), "w", opener=lambda path, flags: os.open(path, flags, 0o700)) as slow:
            slow.write(f"#!/bin/sh\nsleep 0.5\nexec {shlex.quote(EBBD_VM)} \"$@\"\n")
        self.start(wait=False, program=ebbd)
        wait_for("it listens", lambda: listens(self.path("control")))
        vms = self.client().ask("status")["vms"]
        self.assertEqual([vm["name"] for vm in vms if "discard" in vm], ["a", "b"])

    def test_adopts_by_socket(self):
        """Not by name alone: the socket may be another."""
        os.makedirs(self.path("other"))
        self.start("--state", self.path("state"), vms=("a",))
        front = self.front().start()
        pid = self.back_end()
        self.stop(signal.SIGTERM)
        self.start("--state", self.path("state"), "--socket", self.path("other/a.sock"), vms=())
        self.assertIn(f"a: its back end, process {pid}, serves another socket", self.said())
        self.assertNotEqual(self.back_end(), pid)
        self.report(front)  # its guest does not notice
        self.report(FrontEnd(self.path("other/a.sock")).start())
        front.close()
        wait_for("it ends with its guest", lambda: not alive(pid))

    def test_long_state(self):
        state = self.path("s" * 90)
        run = subprocess.run([EBBD, "--socket", self.path("a.sock"), "--state", state], capture_output=True, text=True,
                             timeout=PATIENCE)
        self.assertEqual(run.returncode, 4)
        self.assertRegex(run.stderr, "--state: .*a.vm: the path of a socket has at most 107 bytes")

    def test_an_adopted_one_that_dies_is_replaced(self):
        """Its socket was its own: the next one listens at the same place, of the same directory."""
        os.mkdir(self.path("d"))
        args = ["--socket-dir", os.path.relpath(self.path("d")), "--socket", os.path.relpath(self.path("a.sock"))]
        self.start(*args, vms=())
        self.control.ask("add", vm="late")
        fronts = [FrontEnd(self.path(name)).start() for name in ("a.sock", "d/late.sock")]
        self.control.ask("inhibit", on=True)
        self.control.ask("limits", rate=9 * MIB)
        daemon, self.daemon = self.daemon, None
        daemon.kill()
        daemon.wait()
        self.start(*args, vms=())
        for vm, path, front in zip(("a", "late"), ("a.sock", "d/late.sock"), fronts):
            os.kill(self.back_end(vm), signal.SIGKILL)
            self.assertTrue(front.hung_up())
            state = wait_for("it is replaced", lambda name=vm: self.replaced(name))
            self.assertEqual((state["inhibited"], state["rate"]), (True, 9 * MIB))
            self.control.ask("inhibit", vm=vm, on=False)
            again = FrontEnd(self.path(path)).start()
            self.report(again)
            again.close()
            front.close()
        self.assertIn("vms", self.control.ask("remove", vm="late"))
        self.assertFalse(os.path.exists(self.path("d/late.sock")))

    def test_a_start_that_fails_harms_no_guest(self):
        self.start()
        front, pid = self.front().start(), self.back_end()
        daemon, self.daemon = self.daemon, None
        daemon.kill()
        daemon.wait()
        daemon = self.start("--metrics", "unix:" + self.path("no/such"), wait=False)
        self.assertEqual(daemon.wait(PATIENCE), 4)
        self.daemon = None
        self.assertTrue(alive(pid))
        self.report(front)
        self.start()
        self.assertEqual(self.back_end(), pid)

    def test_those_of_no_vm_end_with_their_guests(self):
        self.start()
        front, pid = self.front().start(), self.back_end()
        daemon, self.daemon = self.daemon, None
        daemon.kill()
        daemon.wait()
        self.start(vms=("b",))
        self.report(front)
        self.assertIn("a: it is no VM of ours any more", self.said())
        front.close()
        wait_for("it ends", lambda: not alive(pid))

    def test_back_ends_end_with_their_guests(self):
        self.start()
        front = self.front().start()
        served, idle = self.back_end(), self.back_end("b")
        self.stop(signal.SIGTERM)
        wait_for("the idle one ends", lambda: not alive(idle))
        self.report(front)
        self.assertTrue(alive(served))
        front.close()
        wait_for("the other ends", lambda: not alive(served))

    def test_a_back_end_that_dies_is_replaced(self):
        self.start()
        good = self.front("b").start()
        front = self.front().start()
        self.control.ask("inhibit", vm="a", on=True)
        self.control.ask("limits", vm="a", rate=55 * MIB)
        pid = self.back_end()
        os.kill(pid, signal.SIGKILL)
        self.assertTrue(front.hung_up())
        self.report(good)
        vm = wait_for("it is replaced", lambda: self.replaced("a"))
        self.assertNotEqual(vm["back_end"]["pid"], pid)
        self.assertEqual((vm["rate"], vm["inhibited"]), (55 * MIB, True))
        self.assertIn("was ended by signal 9; the next one is started; the guest has no balloon", self.said())
        self.assertEqual((vm["connected"], vm["back_end"]["lost"]), (False, True))
        self.control.ask("inhibit", vm="a", on=False)
        self.report(self.front().start())
        self.assertEqual([vm["back_end"]["lost"] for vm in self.control.ask("status")["vms"]], [False, False])

    def test_one_without_a_guest_loses_none(self):
        self.start()
        os.kill(self.back_end(), signal.SIGKILL)
        vm = wait_for("it is replaced", lambda: self.replaced("a"))
        self.assertFalse(vm["back_end"]["lost"])

    def replaced(self, name):
        vm = self.control.vm(name)
        return vm if vm["back_end"]["replaced"] == 1 and vm["back_end"]["answers"] else None

    def test_one_that_hangs_is_killed(self):
        self.start()
        good = self.front("b").start()
        pid = self.back_end()
        os.kill(pid, signal.SIGSTOP)
        # Nobody waits for it.
        for _ in range(5):
            a, b = self.control.ask("status")["vms"]
            self.assertFalse(a["back_end"]["answers"])
            self.assertEqual(b["name"], "b")
            self.report(good)
        self.assertIn("does not answer", self.control.ask("flush", vm="a", timeout_ms=1)["error"])
        wait_for("it is replaced", lambda: self.replaced("a"))
        self.assertIn("does not answer, and was killed", self.said())
        self.report(self.front().start())

    def test_takes_no_descriptor(self):
        """Whatever front-ends send: the supervisor has none of it."""
        self.start()
        self.control.ask("status")  # all links are there, and no other
        before = descriptors(self.daemon.pid)
        fronts = [self.front(vm).start() for vm in ("a", "b")]
        wait_for("as many as before", lambda: descriptors(self.daemon.pid) == before)
        self.assertEqual(guest_maps(self.daemon.pid), 0)
        for front in fronts:
            front.close()


class BackEnd(unittest.TestCase):
    """ebbd-vm by itself."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebbd-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.sandbox = ["--no-sandbox"] if SANITIZED else []

    def start(self, *args, **keywords):
        process = subprocess.Popen([EBBD_VM, *args, *self.sandbox], stderr=subprocess.PIPE, text=True,
                                   stdin=subprocess.DEVNULL, **keywords)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def path(self, name):
        return os.path.join(self.dir, name)

    def test_capabilities(self):
        said = subprocess.run([EBBD_VM, "--print-capabilities"], check=True, stdout=subprocess.PIPE).stdout
        self.assertEqual(json.loads(said)["type"], "balloon")

    def test_wrong(self):
        for args in ([], ["--fd=1"], ["--socket-path=a", "--fd=5"], ["--socket-path=x y"], ["--wait"],
                     ["--socket-path=" + self.path("a.sock"), "--wait"], ["--fd=99"],
                     ["--socket-path=" + self.path("a.sock"), "--name=a b"]):
            with self.subTest(args=args):
                run = subprocess.run([EBBD_VM, *args], capture_output=True, text=True, timeout=PATIENCE)
                self.assertEqual(run.returncode, 2, run.stderr)
                self.assertRegex(run.stderr, r"^(.*/)?ebbd-vm: ")

    def test_ends_with_its_front_end(self):
        process = self.start("--socket-path", self.path("web1.sock"), "--control", self.path("control"))
        wait_for("it listens", lambda: os.path.exists(self.path("control")) and listens(self.path("control")))
        front = FrontEnd(self.path("web1.sock")).start()
        control = Control(self.path("control"))
        self.assertEqual(control.vm("web1")["connected"], True)
        self.assertIn("error", control.ask("list", vm="web2"))
        control.close()
        front.close()
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_connection_handed_over(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        process = self.start(f"--fd={theirs.fileno()}", pass_fds=[theirs.fileno()])
        theirs.close()
        front = FrontEnd(sock=ours).start()
        front.fill(8 * MIB, 4 * MIB)
        front.add(REPORTING, [(8 * MIB, 4 * MIB, WRITE)])
        wait_for("the report comes back", lambda: front.used(REPORTING) == 1)
        front.close()
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_descriptors_of_a_parent(self):
        """None but the one that was meant."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        kept = [os.open("/dev/zero", os.O_RDONLY) for _ in range(3)]
        kept.append(fcntl.fcntl(kept[0], fcntl.F_DUPFD, theirs.fileno() + 10))
        process = self.start(f"--fd={theirs.fileno()}", pass_fds=[theirs.fileno(), *kept])
        theirs.close()
        front = FrontEnd(sock=ours).start()
        self.assertNotIn("/dev/zero", descriptors(process.pid))
        if self.sandbox == []:  # as its log is no file
            with open(f"/proc/{process.pid}/limits") as f:
                self.assertRegex(f.read(), f"Max file size +{64 * MIB} +{64 * MIB} ")
        for fd in kept:
            os.close(fd)
        front.close()
        self.assertEqual(process.wait(PATIENCE), 0)

    def test_next_front_end(self):
        process = self.start("--socket-path", self.path("a.sock"), "--control", self.path("control"), "--wait")
        wait_for("it listens", lambda: os.path.exists(self.path("control")) and listens(self.path("control")))
        for _ in range(3):
            FrontEnd(self.path("a.sock")).start().close()
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 0)


class Log(Case):
    """Its lines go where nobody reads, and what it serves does not notice."""

    def start_on_pipe(self):
        self.read, write = os.pipe()
        self.addCleanup(os.close, self.read)
        open(self.log, "w").close()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PAGE)
        with open(f"/proc/self/fd/{write}", "wb", buffering=0) as filler:  # an open file of its own
            os.set_blocking(filler.fileno(), False)
            while filler.write(b"x"):
                pass
        self.daemon = subprocess.Popen(
            [EBBD, "--control", self.path("control"), "--socket", self.path("a.sock"), "--stats=0",
             *(["--no-sandbox"] if SANITIZED else [])], stderr=write, stdin=subprocess.DEVNULL)
        os.close(write)
        self.addCleanup(self.stop)
        wait_for("it listens", lambda: listens(self.path("control")))
        self.control = self.client()

    def test_nobody_reads(self):
        self.start_on_pipe()
        self.assertIn("protocol", self.control.ask("version"))
        self.report(self.front().start())
        self.control.ask("limits", rate=MIB)
        self.stop()

    def test_says_what_was_lost(self):
        self.start_on_pipe()
        for _ in range(5):
            self.control.ask("limits", rate=MIB)
        os.read(self.read, PAGE)
        self.control.ask("limits", rate=2 * MIB)
        lines = os.read(self.read, PAGE).decode().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r"2097152 bytes a second .*\([5-9] lines before this were lost")
        self.control.ask("limits", rate=3 * MIB)
        self.assertNotIn("lost", os.read(self.read, PAGE).decode())

    def test_names_operators(self):
        """Each that changed something, also if others did a moment before."""
        os.mkdir(self.path("d"))
        self.start("--socket-dir", self.path("d"))
        who = rf" \(by uid {os.getuid()}, pid {os.getpid()}\)$"
        self.control.ask("limits", vm="a", rate=MIB)
        self.control.ask("limits", vm="a", rate=2 * MIB)
        self.control.ask("inhibit", on=False)
        self.control.ask("add", vm="c")
        self.control.ask("remove", vm="c")
        for line in ("a: at most 1048576 bytes", "a: at most 2097152 bytes", "a: discarding is allowed",
                     "b: discarding is allowed", "c: added", "c: removed"):
            self.assertRegex(self.said(), re.compile(f"{line}.*{who}", re.M))
        self.front().start()
        self.assertNotRegex(self.said(), r"a front-end connected.* by uid")


class Signals(Case):
    def test_log_that_may_not_grow(self):
        if SANITIZED:
            print("NOT tested with a sanitizer, whose runtime writes files itself", file=sys.stderr)
            return

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        self.start(wait=False, preexec_fn=limit)
        wait_for("it listens", lambda: listens(self.path("control")))
        self.control = self.client()
        self.assertIn("protocol", self.control.ask("version"))
        self.assertEqual(self.said(), "")

    def test_of_a_parent(self):
        """What it blocked or ignored is not so for ebbd."""
        wanted = {signal.SIGTERM, signal.SIGINT, signal.SIGBUS, signal.SIGXFSZ, signal.SIGPIPE}

        def spoil():
            for number in wanted - {signal.SIGPIPE}:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        self.start(preexec_fn=spoil)
        with open(f"/proc/{self.daemon.pid}/status") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        self.assertEqual(int(status["SigBlk"], 16), 0)
        ignored = int(status["SigIgn"], 16)
        self.assertEqual({number for number in wanted if ignored & 1 << number - 1},
                         {signal.SIGPIPE, signal.SIGXFSZ})
        front = self.front().start()
        os.ftruncate(front.memfd, 0)
        os.eventfd_write(front.kicks[REPORTING], 1)
        self.assertTrue(front.hung_up())
        self.gone()
        self.stop()


class Systemd(Case):
    """Its own tools, on the units and the daemon as they are."""

    def need(self, program):
        if not shutil.which(program):
            self.skipTest(f"{program} is not installed (Debian: systemd): NOT tested with systemd's own tools")

    def test_units(self):
        self.need("systemd-analyze")
        units = ("ebbd.service", "ebbd.socket", "ebbd-metrics.socket", "ebbd-vm@.service")
        for unit in units:
            with open(os.path.join(HERE, "..", "..", "dist", "systemd", unit + ".in")) as f:
                text = f.read()
            with open(self.path(unit), "w") as f:
                f.write(text.replace("@sbindir@", os.path.dirname(EBBD))
                        .replace("@libexecdir@", os.path.dirname(EBBD_VM)))
        paths = [self.path(unit) for unit in units]
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True,
                              timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        # What it may still do at most, in systemd's own measure: 0 nothing to 10 all; here, tenths.
        for path in (paths[0], paths[3]):
            done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=10", path],
                                  capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_socket_activate(self):
        self.need("systemd-socket-activate")
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(
                ["systemd-socket-activate", "-l", self.path("web1.sock"), "-l", self.path("control"),
                 "--fdname=ebbd.socket:control", EBBD, *(["--no-sandbox"] if SANITIZED else [])],
                stdin=subprocess.DEVNULL, stderr=log)
        self.addCleanup(self.stop)
        wait_for("it listens", lambda: listens(self.path("control")))  # that is what starts ebbd
        self.control = self.client()
        self.assertEqual([vm["name"] for vm in self.control.ask("list")["vms"]], ["web1"])
        self.report(self.front("web1").start())


class Commands(Case):
    def setUp(self):
        super().setUp()
        self.start()

    def refused(self, why, command, **members):
        answer = self.control.ask(command, **members)
        self.assertEqual(list(answer), ["error"], answer)
        self.assertRegex(answer["error"], why)

    def test_version_list(self):
        self.assertRegex(self.control.ask("version")["version"], r"^\d+\.\d+\.\d+$")
        self.assertEqual(self.control.ask("list")["vms"],
                         [{"name": n, "connected": False, "socket": self.path(n + ".sock")}
                          for n in ("a", "b")])

    def test_id(self):
        for value in (7, "x", 1.5, True):
            self.assertEqual(self.control.ask("version", id=value)["id"], value)
        # Those of many digits come back as they came, or not at all.
        for text in (b"18446744073709551614", b"-9223372036854775807", b"1.00", b"1e400", b'"NaN"',
                     b"0.12345678901234567890123", b"12345678901234567890123", b"18446744073709551616",
                     b"-9223372036854775809"):
            self.control.send(b'{"command":"version","id":%s}\n' % text)
            answer = self.control.file.readline()
            self.assertIn(b'"id":' + text + b"}" if b"protocol" in answer
                          else b'{"error":"a whole number has at most 64 bits"}', answer)
        for text in (b"NaN", b"Infinity", b"-Infinity", b"[NaN]", b"[99999999999999999999]"):
            client = self.client()
            client.send(b'{"command":"version","id":%s}\n' % text)
            self.assertIn("not a JSON object", client.line()["error"])
            self.assertIsNone(client.line())
        answer = self.control.ask("nonsense", id="y")
        self.assertEqual(answer["id"], "y")
        self.assertIn("version, list, status", answer["error"])

    def test_wrong_members(self):
        self.refused("no member 'vn'", "status", vn="a")
        self.refused("no member 'vm'", "version", vm="a")
        self.refused("no VM zz", "status", vm="zz")
        self.refused("'vm' is the name", "status", vm=5)
        self.refused("'vm' is the name", "status", vm="../a")
        self.refused("'vm' is the name", "status", vm="a\0")
        self.refused("'vm' is the name", "stats")
        self.refused("not connected", "stats", vm="a")
        self.refused("'on'", "inhibit")
        self.refused("'on'", "inhibit", on="yes")
        self.refused("whole number", "limits", rate=-1)
        self.refused("whole number", "limits", rate=1.5)
        self.refused("whole number", "limits", rate=1 << 60)
        self.refused("whole number", "watch", interval_ms=1)
        self.refused("whole number", "flush", timeout_ms="5")
        self.refused("--socket-dir", "add", vm="c")
        self.refused("there is a VM", "add", vm="a")
        self.refused("stays as long as ebbd runs", "remove", vm="a")
        self.assertIn("error", self.control.ask(5))

    def test_lines(self):
        self.control.send(b'\n\n{"command":"version"}\r\n{"command":"list"}\n')
        self.assertIn("protocol", self.control.line())
        self.assertIn("vms", self.control.line())
        for junk in (b"nonsense\n", b"[1]\n", b"5\n", b'{"command":"list"} x\n', b'{"command"\n',
                     b'{"a":[[[[[1]]]]]}\n', b"{'command':'list'}\n", b'{"command":"\xff"}\n',
                     b"\0\n", b"x" * 4095 + b"\n", b"x" * 5000):
            with self.subTest(junk=junk[:20]):
                client = self.client()
                client.send(junk)
                self.assertIn("error", client.line())
                self.assertIsNone(client.line())
        self.assertIn("protocol", self.control.ask("version"))

    def test_half_closed(self):
        """As `nc` does."""
        client = self.client()
        client.send(b'{"command":"version"}\n{"command":"flush"}\n{"command":"list"}')
        client.sock.shutdown(socket.SHUT_WR)
        self.assertIn("protocol", client.line())
        self.assertEqual(client.line(), {"vms": 2})
        self.assertIsNone(client.line())

    def test_clients_that_do_not_read(self):
        """They cost one answer each, and nobody else notices."""
        lazy = [self.client() for _ in range(8)]
        for client in lazy:
            client.sock.setblocking(False)
            try:
                while True:
                    client.sock.send(b'{"command":"status"}\n' * 100)
            except BlockingIOError:
                pass
        for _ in range(20):
            self.assertEqual(len(self.control.ask("status")["vms"]), 2)
        self.report(self.front().start())

    def test_one_too_many(self):
        """The one that has been silent for the longest time goes, but none that waits for ebbd."""
        self.control.close()
        clients = [self.client() for _ in range(64)]
        for client in clients[1:]:
            self.assertIn("protocol", client.ask("version"))
        for i in range(64):
            last = self.client()
            self.assertIn("protocol", last.ask("version"))
            self.assertIsNone(clients[i].line())
            clients.append(last)
        for client in clients[64:]:
            client.ask("watch", interval_ms=60000)
        self.assertIn("64 clients", self.client().line()["error"])
        self.assertIn("protocol", clients[64].ask("version"))
        self.assertIn("protocol", self.client().ask("version"))
        self.assertIsNone(clients[64].line())

    def test_request_in_drops(self):
        """A time-out is not for a byte, but for all of a request."""
        client = self.client()
        client.sock.settimeout(0.5)
        began = time.monotonic()
        with self.assertRaises((ConnectionError, AssertionError)):
            while time.monotonic() - began < PATIENCE:
                client.send(b" ")
                try:
                    self.assertNotEqual(client.sock.recv(1), b"")
                except TimeoutError:
                    pass
        self.assertGreater(time.monotonic() - began, 9)
        self.assertLess(time.monotonic() - began, PATIENCE)

    def test_watch(self):
        client = self.client()
        self.assertEqual(len(client.ask("watch", interval_ms=100, id=3)["vms"]), 2)
        first, second = client.line(), client.line()
        self.assertGreater(second["now_ns"], first["now_ns"])
        self.assertEqual(second["id"], 3)
        client.send(b'{"command":"version","id":4}\n')
        while (answer := client.line())["id"] == 3:
            pass
        self.assertIn("protocol", answer)
        client.ask("watch", vm="b")
        client.close()
        self.assertIn("protocol", self.control.ask("version"))

    def test_status(self):
        front = self.front().start()
        self.report(front)
        front.add(REPORTING, [(1 << 40, 2 * MIB, WRITE)])
        wait_for("the fault is counted", lambda: self.control.vm("a")["faults"]["pfn"] == 1)
        vm = self.control.vm("a")
        self.assertTrue(vm["connected"])
        self.assertGreater(vm["connected_ns"], 0)
        self.assertEqual(vm["memory"]["assigned_bytes"], 64 * MIB)
        self.assertEqual(vm["memory"]["resident_bytes"], front.blocks())
        self.assertEqual(vm["memory"]["regions"],
                         [{"backing": "shared", "page_bytes": PAGE, "regions": 1, "bytes": 64 * MIB}])
        self.assertEqual(vm["reported_bytes"], 4 * MIB)
        self.assertEqual(vm["discard"]["discarded_bytes"], 4 * MIB)
        self.assertEqual(vm["discard"]["not"]["resident"], {"bytes": 0, "ranges": 0})
        self.assertEqual(sum(vm["discard"]["latency"]), vm["discard"]["batches"])
        self.assertEqual(len(vm["discard"]["latency"]), 24)
        self.assertIsNone(vm["discard"]["last_error"])
        self.assertIsNone(vm["guest"])
        self.assertEqual(vm["front_ends"]["connections"], 1)
        self.assertFalse(self.control.vm("b")["connected"])

    def test_status_of_all(self):
        """Brief, unless all is asked for."""
        front = self.front().start()
        self.report(front)
        brief, full = (self.control.ask("status", **more)["vms"] for more in ({}, {"full": True}))
        self.assertEqual([vm["name"] for vm in brief], ["a", "b"])
        a, b = brief
        self.assertEqual(a["memory"], {"assigned_bytes": 64 * MIB, "resident_bytes": front.blocks(), "note": None})
        self.assertEqual(set(a["balloon"]), {"target_bytes", "actual_bytes", "needs_reset"})
        self.assertEqual((a["connected"], a["reported_bytes"], a["discard"]["discarded_bytes"], a["faults"],
                          a["discard"]["not"]), (True, 4 * MIB, 4 * MIB, {}, {}))
        self.assertEqual(sum(a["discard"]["latency"]), a["discard"]["batches"])
        self.assertNotIn("latency", b["discard"])
        self.assertTrue(b["back_end"]["answers"])
        self.assertLess(len(json.dumps(b)), 600)
        self.assertEqual(set(full[0]), set(self.control.vm("a")))
        self.assertEqual(len(full[0]["faults"]), 9)
        self.assertEqual(set(self.control.ask("status", vm="a", full=False)["vms"][0]), set(a))
        self.refused("true or false", "status", full=1)
        client = self.client()
        self.assertEqual(set(client.ask("watch", full=True)["vms"][0]), set(full[0]))

    def test_long_request(self):
        """One as long as may be is passed on, though it grows on the way."""
        line = b'{"command":"hint","vm":"a","action":"%s"}'
        line %= b"/" * (4095 - len(line) + 2)
        self.assertEqual(len(line), 4095)
        self.front().start()
        self.control.send(line + b"\n")
        self.assertIn("needs 'action'", self.control.line()["error"])
        self.assertTrue(self.control.vm("a")["back_end"]["replaced"] == 0)

    def test_counters_stay(self):
        for i in range(1, 4):
            front = self.front().start()
            self.report(front)
            front.close()
            self.gone()
            vm = self.control.vm("a")
            self.assertEqual(vm["reported_bytes"], i * 4 * MIB)
            self.assertEqual(vm["discard"]["discarded_bytes"], i * 4 * MIB)
            self.assertEqual(vm["front_ends"]["hangups"], i)
            self.assertEqual(vm["memory"]["assigned_bytes"], 0)

    def test_resize(self):
        self.refused("not connected", "resize", vm="a", balloon_bytes=0)
        front = self.front()
        front.greet()
        front.config()
        self.refused("not shared any memory", "resize", vm="a", balloon_bytes=0)
        front.close()
        self.gone()
        front = self.front().start()
        self.refused("either", "resize", vm="a")
        self.refused("either", "resize", vm="a", balloon_bytes=0, memory_bytes=0)
        for wrong in (1, -PAGE, 64 * MIB + PAGE, "1M", 1 << 63):
            self.refused("multiple of 4096", "resize", vm="a", balloon_bytes=wrong)
        self.assertEqual(self.control.ask("resize", vm="a", memory_bytes=48 * MIB),
                         {"balloon_bytes": 16 * MIB})
        # The front-end is told, by the channel that it gave.
        self.assertEqual(front.backend.recv(100), struct.pack("<III", 2, 1, 0))
        self.assertEqual(front.config()[0], 16 * MIB // PAGE)
        front.set_actual(5)
        wait_for("the actual size",
                 lambda: self.control.vm("a")["balloon"]["actual_bytes"] == 5 * PAGE)
        self.assertEqual(self.control.vm("a")["balloon"]["target_bytes"], 16 * MIB)

    def test_inflate(self):
        front = self.front().start()
        front.fill(16 * MIB, MIB)
        before = front.blocks()
        front.inflate(range(16 * MIB // PAGE, 17 * MIB // PAGE))
        wait_for("the pages come back", lambda: front.used(frontend.INFLATE) == 1)
        self.assertLess(front.blocks(), before - MIB + 64 * PAGE)
        self.assertEqual(self.control.vm("a")["inflated_bytes"], MIB)

    def test_stats(self):
        front = self.front().start()
        front.give_stats({4: 1})  # the first is stale by definition
        wait_for("it is held", lambda: self.control.vm("a")["kicks"] > 0)
        self.control.send(b'{"command":"stats","vm":"a","id":1}\n')
        wait_for("the guest is asked", lambda: front.used(STATS) == 1)
        front.give_stats({4: 123 * MIB, 5: 456 * MIB, 99: 7})
        answer = self.control.line()
        self.assertEqual(answer["id"], 1)
        self.assertEqual(answer["guest"]["free_bytes"], 123 * MIB)
        self.assertEqual(answer["guest"]["total_bytes"], 456 * MIB)
        self.assertNotIn("caches_bytes", answer["guest"])
        self.assertGreaterEqual(self.control.vm("a")["guest"]["age_ns"], 0)
        # Now it is silent: an error, in time; and another client is served meanwhile.
        other = self.client()
        self.control.send(b'{"command":"stats","vm":"a","timeout_ms":300}\n')
        self.assertIn("protocol", other.ask("version"))
        self.assertIn("not answered in time", self.control.line()["error"])
        self.control.send(b'{"command":"stats","vm":"a","timeout_ms":60000}\n')
        front.close()
        self.assertRegex(self.control.line()["error"], "hung up|not connected")

    def test_stats_not_negotiated(self):
        self.front().start(features=frontend.F_REPORTING, queues=range(3))
        self.refused("did not negotiate", "stats", vm="a")
        self.refused("did not negotiate", "hint", vm="a", action="start")

    def test_inhibit(self):
        front = self.front().start()
        self.assertEqual(self.control.ask("inhibit", vm="a", on=True), {"vms": 1})
        front.fill(8 * MIB, MIB)
        before = front.blocks()
        front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
        wait_for("it comes back all the same", lambda: front.used(REPORTING) == 1)
        self.assertEqual(front.blocks(), before)
        vm = self.control.vm("a")
        self.assertTrue(vm["inhibited"])
        self.assertEqual(vm["discard"]["not"]["inhibited"]["bytes"], MIB)
        self.assertFalse(self.control.vm("b")["inhibited"])
        # It is the VM's, not the connection's.
        front.close()
        self.gone()
        front = self.front().start()
        self.assertTrue(self.control.vm("a")["inhibited"])
        self.assertEqual(self.control.ask("inhibit", on=False), {"vms": 2})
        self.report(front)

    def test_limits(self):
        self.assertEqual(self.control.ask("limits"), {"rate": 0})
        self.assertEqual(self.control.ask("limits", vm="b", rate=MIB), {"rate": MIB})
        self.assertEqual(self.control.ask("limits", vm="b"), {"rate": MIB})
        self.assertEqual(self.control.ask("limits", vm="a"), {"rate": 0})
        self.assertEqual(self.control.ask("limits", rate=2 * MIB), {"rate": 2 * MIB})
        self.assertEqual(self.control.ask("limits", vm="b"), {"rate": 2 * MIB})

    def test_flush(self):
        front = self.front().start()
        front.fill(8 * MIB, 8 * MIB)
        front.add(REPORTING, [(8 * MIB, 8 * MIB, WRITE)])
        self.assertEqual(self.control.ask("flush", vm="a"), {"vms": 1})
        self.assertEqual(front.used(REPORTING), 1)
        self.assertEqual(self.control.ask("flush"), {"vms": 2})

    def test_hint(self):
        front = self.front().start()
        self.refused("'action'", "hint", vm="a")
        self.refused("'action'", "hint", vm="a", action="go")
        self.assertIn("hinting", self.control.ask("hint", vm="a", action="start"))
        self.refused("has not ended", "hint", vm="a", action="start")
        self.assertGreater(front.config()[2], 1)
        self.assertIn("hinting", self.control.ask("hint", vm="a", action="status"))
        self.assertIn("hinting", self.control.ask("hint", vm="a", action="done"))


class AtWork(Case):
    """Options that change what becomes of what a guest hands over."""

    def test_rate(self):
        """What is beyond the rate is left, and nobody waits for it."""
        self.start("--rate", "4M")
        front = self.front().start()
        for used in range(1, 21):  # 4 MiB are there at once, and 4 more in each second that passes
            front.fill(8 * MIB, 2 * MIB)
            front.add(REPORTING, [(8 * MIB, 2 * MIB, WRITE)])
            wait_for("the report comes back", lambda: front.used(REPORTING) == used)
            if self.control.vm("a")["discard"]["not"]["rate"]["bytes"] > 0:
                break
        self.assertGreater(self.control.vm("a")["discard"]["not"]["rate"]["bytes"], 0)
        self.assertEqual(self.control.vm("b")["rate"], 4 * MIB)
        # And no longer, once the operator says so.
        self.control.ask("limits", rate=0)
        left = self.control.vm("a")["discard"]["not"]["rate"]
        for _ in range(3):
            used += 1
            front.add(REPORTING, [(8 * MIB, 2 * MIB, WRITE)])
            wait_for("the report comes back", lambda: front.used(REPORTING) == used)
        self.assertEqual(self.control.vm("a")["discard"]["not"]["rate"], left)

    def test_gather(self):
        self.start("--gather", "100000")
        front = self.front().start()
        for attempt in range(1, 21):  # it may be so slow here that the first does not wait long enough
            before = self.control.vm("a")["discard"]
            front.fill(8 * MIB, 2 * MIB)
            front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
            front.add(REPORTING, [(9 * MIB, MIB, WRITE)], head=1)
            wait_for("both come back", lambda: front.used(REPORTING) == 2 * attempt)
            after = self.control.vm("a")["discard"]
            late = after["not"]["late"]["bytes"] - before["not"]["late"]["bytes"]
            self.assertEqual(after["discarded_bytes"] + late, before["discarded_bytes"] + 2 * MIB)
            if after["batches"] == before["batches"] + 1 and not late:
                self.assertEqual(after["calls"], before["calls"] + 1)
                return
        self.fail("reports that follow each other are never merged")

    def test_queue_numbers(self):
        """Reporting alone is queue 2 as Linux has it, and stays queue 4 as the specification has it."""
        for numbering, queue in (("linux", 2), ("spec", 4)):
            self.start("--queues", numbering)
            front = self.front().start(features=frontend.F_REPORTING, queues=(0, 1, queue))
            self.report(front, queue=queue)
            front.close()
            self.stop()

    def test_inhibit(self):
        self.start("--inhibit")
        front = self.front().start()
        front.fill(8 * MIB, MIB)
        before = front.blocks()
        front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
        wait_for("the report comes back", lambda: front.used(REPORTING) == 1)
        self.assertEqual(front.blocks(), before)
        self.control.ask("inhibit", on=False)
        self.report(front)

    def checked(self, every):
        self.start("--check-every", every)
        front = self.front().start()
        for _ in range(3):
            self.report(front)
        return self.control.vm("a")["discard"]["checked_bytes"]

    def test_check_each(self):
        self.assertGreater(self.checked("1"), 0)

    def test_check_none(self):
        self.assertEqual(self.checked("0"), 0)

    def test_files(self):
        """Memory that can be cut is refused, if the operator says so; what cannot be is taken."""
        self.start("--files", "sealed")
        front = self.front()
        front.greet()
        front.share()
        self.assertTrue(front.hung_up())
        self.gone()
        self.assertIn("can be made shorter", self.said())
        front = self.front()
        front.greet()
        front.share(seals=0x2)  # F_SEAL_SHRINK
        front.config()

    def test_features(self):
        self.start("--withhold", "reporting", "--withhold", "stats", "--offer", "deflate-on-oom")
        offered = self.front().greet()
        self.assertFalse(offered & (frontend.F_REPORTING | frontend.F_STATS))
        self.assertTrue(offered & frontend.F_DEFLATE_ON_OOM)

    def test_discards_that_fail(self):
        """The front-end forbids to write to its file: nothing goes, all comes back, and it is told."""
        self.start()
        front = self.front().start()
        fcntl.fcntl(front.memfd, fcntl.F_ADD_SEALS, 0x10)  # F_SEAL_FUTURE_WRITE
        front.fill(8 * MIB, 4 * MIB)
        before = front.blocks()
        front.add(REPORTING, [(8 * MIB, 4 * MIB, WRITE)])
        wait_for("the report comes back", lambda: front.used(REPORTING) == 1)
        self.assertEqual(front.blocks(), before)
        discard = self.control.vm("a")["discard"]
        self.assertEqual(discard["not"]["failed"], {"bytes": 4 * MIB, "ranges": 1})
        self.assertEqual(discard["last_error"], os.strerror(errno.EPERM))
        wait_for("it is logged", lambda: "4 MiB could not be discarded" in self.said())

    def test_repeated(self):
        """The same page again and again is one page, and the rest is counted."""
        self.start()
        front = self.front().start()
        front.inflate([2000] * 7)
        wait_for("the pages come back", lambda: front.used(frontend.INFLATE) == 1)
        self.assertEqual(self.control.vm("a")["discard"]["repeated_bytes"], 6 * PAGE)

    def test_front_end_that_holds_its_file(self):
        """One that is at work on its file keeps its own discards waiting, and nobody else: not when it
        takes its memory back meanwhile, nor when an operator inhibits it."""
        self.start()
        good = self.front("b").start()
        for _ in range(10):
            front = self.front().start()
            os.ftruncate(front.memfd, 2048 * MIB)
            worker = threading.Thread(target=os.posix_fallocate, args=(front.memfd, 64 * MIB, 1984 * MIB))
            worker.start()
            while front.blocks() < 128 * MIB:
                time.sleep(0.001)
            front.add(REPORTING, [(8 * MIB, 4 * MIB, WRITE)])
            wait_for("it is kicked", lambda: self.control.vm("a")["kicks"] > 0)
            front.send(frontend.SET_MEM_TABLE, front.table, [front.memfd])
            self.control.send(b'{"command":"inhibit","vm":"a","on":true}\n')
            other = self.client()
            other.ask("version")
            self.report(good)
            waited = worker.is_alive() and front.used(REPORTING) == 0
            worker.join()
            self.assertEqual(self.control.line(), {"vms": 1})
            wait_for("the report comes back", lambda: front.used(REPORTING) == 1)
            front.config()
            self.control.ask("inhibit", vm="a", on=False)
            other.close()
            front.close()
            self.gone()
            if waited:
                return
        self.fail("the file was never held long enough")

    def hint(self, *args):
        """Hint 4 MiB; by how much memory shrinks."""
        self.start(*args)
        front = self.front().start()
        front.fill(8 * MIB, 4 * MIB)
        before = front.blocks()
        self.control.ask("hint", vm="a", action="start")
        front.memory[MIB:MIB + 4] = struct.pack("<I", front.config()[2])
        front.add(HINT, [(MIB, 4, 0)])
        wait_for("the command comes back", lambda: front.used(HINT) == 1)
        front.add(HINT, [(8 * MIB, 4 * MIB, WRITE)])
        wait_for("the hint comes back", lambda: front.used(HINT) == 2)
        self.assertEqual(self.control.vm("a")["hinted_bytes"], 4 * MIB)
        return before - front.blocks()

    def test_hints(self):
        self.assertEqual(self.hint(), 0)

    def test_discard_hints(self):
        self.assertEqual(self.hint("--discard-hints"), 4 * MIB)


class Windows(Case):
    """Windows' driver, as its published source has it. It waits for an answer for a second, then goes on and uses
    its buffer and its pages again. It frees what it deflates, then tells; nobody told it that it must not. Its page
    numbers have 64 bits. Pages that it reports it keeps, until the guest wants them: it says so to nobody."""

    WAIT = 1.0
    REPORTING = 3  # there are no hints
    TABLE = MIB  # where the page numbers are, of every request

    def wait(self, front, queue, used):
        begin = time.monotonic()
        while front.used(queue) != used and time.monotonic() < begin + self.WAIT:
            time.sleep(0.001)
        self.waits.append(time.monotonic() - begin)

    def tell(self, front, queue, at, pages):
        used = (front.used(queue) + 1) & 0xFFFF
        front.memory[self.TABLE:self.TABLE + 8 * pages] = struct.pack(
            f"<{pages}Q", *range(at // PAGE, at // PAGE + pages))
        front.add(queue, [(self.TABLE, 8 * pages, 0)])
        self.wait(front, queue, used)
        front.memory[self.TABLE:self.TABLE + 8 * pages] = bytes(8 * pages)

    def test_memory_in_use_stays(self):
        """With a rate that is far too low for it: each answer is in time, and what was used after it is there."""
        self.start("--rate", "4M")
        front = self.front().start(mib=128, queues=range(4),
                                   features=frontend.F_STATS | frontend.F_REPORTING)
        self.assertFalse(front.features & 1)  # MUST_TELL_HOST
        self.waits = []
        for i in range(10):
            block = (16 + 8 * (i % 4)) * MIB
            # Its thread that reports, 16 MiB in blocks of 2 MiB, of which it releases some when they came back.
            reported = (front.used(self.REPORTING) + 1) & 0xFFFF
            front.add(self.REPORTING, [((64 + 2 * n) * MIB, 2 * MIB, WRITE) for n in range(16)])
            self.tell(front, INFLATE, block, 512)
            front.fill(block, 2 * MIB)
            self.tell(front, DEFLATE, block, 512)
            self.wait(front, self.REPORTING, reported)
            front.fill((64 + 2 * i) * MIB, 2 * MIB)
            for at in [block, (64 + 2 * i) * MIB]:
                self.assertEqual(front.memory[at:at + 2 * MIB].count(b"\x5a"), 2 * MIB)
        self.control.send(b'{"command":"flush","vm":"a","id":1}\n')
        self.assertEqual(self.control.line()["id"], 1)
        for at in (16, 24, 32, 40, 64 + 18):
            self.assertEqual(front.memory[at * MIB:(at + 2) * MIB].count(b"\x5a"), 2 * MIB)
        # A machine that stands still for a moment may make one late; a host that holds answers makes all.
        self.assertLess(sorted(self.waits)[len(self.waits) * 9 // 10], self.WAIT / 2, self.waits)
        vm = self.control.vm("a")
        self.assertEqual(vm["inflated_bytes"], 10 * 2 * MIB)
        self.assertGreater(vm["discard"]["not"]["rate"]["bytes"], 0)
        self.assertFalse(any(vm["faults"].values()), vm["faults"])

    def test_statistics(self):
        """All ones where it does not know, and all of them where it failed to ask."""
        self.start()
        front = self.front().start(queues=range(4), features=frontend.F_STATS | frontend.F_REPORTING)
        front.give_stats({4: 1})
        wait_for("it is held", lambda: self.control.vm("a")["kicks"] > 0)
        for used, values in enumerate(({4: 5 * MIB, 5: 2 ** 64 - 1}, {0xFFFF: 2 ** 64 - 1})):
            self.control.send(b'{"command":"stats","vm":"a"}\n')
            wait_for("the guest is asked", lambda: front.used(STATS) == used + 1)
            front.give_stats(values)
            guest = self.control.line()["guest"]
            guest.pop("age_ns")
            self.assertEqual(guest, {"free_bytes": 5 * MIB} if used == 0 else {})


class Directory(Case):
    def test_add_and_remove(self):
        os.mkdir(self.path("d"))
        self.start("--socket-dir", self.path("d"), vms=())
        self.assertEqual(self.control.ask("list"), {"vms": []})
        path = os.path.join(self.path("d"), "web1.sock")
        self.assertEqual(self.control.ask("add", vm="web1"), {"socket": path})
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)
        front = FrontEnd(path).start()
        self.addCleanup(front.close)
        self.report(front)
        self.assertIn("error", self.control.ask("add", vm="web1"))
        self.assertIn("error", self.control.ask("add", vm="../x"))
        with open(os.path.join(self.path("d"), "file.sock"), "w"):
            pass
        self.assertIn("exists", self.control.ask("add", vm="file")["error"])
        self.assertEqual(self.control.ask("remove", vm="web1"), {"vms": 1})
        self.assertTrue(front.hung_up())
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.control.ask("list"), {"vms": []})
        self.assertEqual(self.control.ask("add", vm="web1"), {"socket": path})

    def test_removes_its_own(self):
        """Not what somebody else put in the place of its socket."""
        os.mkdir(self.path("d"))
        self.start("--socket-dir", self.path("d"), vms=())
        path = self.control.ask("add", vm="web1")["socket"]
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            self.assertEqual(self.control.ask("remove", vm="web1"), {"vms": 1})
            self.assertTrue(os.path.exists(path))
            self.assertIn("web1.sock is not removed: another is in its place", self.said())
        self.assertEqual(os.listdir(self.path("d")), ["web1.sock"])

    def test_later(self):
        """What holds for all holds for VMs that come later."""
        os.mkdir(self.path("d"))
        self.start("--socket-dir", self.path("d"), vms=("a",))
        self.control.ask("inhibit", on=True)
        self.control.ask("limits", rate=3 * MIB)
        self.control.ask("add", vm="late")
        vm = self.control.vm("late")
        self.assertEqual((vm["inhibited"], vm["rate"]), (True, 3 * MIB))

    def test_comes_again(self):
        os.mkdir(self.path("d"))
        self.start("--socket-dir", self.path("d"), vms=("a",))
        for i in range(20):
            self.assertIn("socket", self.control.ask("add", vm=f"vm{i}"))
        self.stop()
        wait_for("back ends end", lambda: not any(listens(self.path(f"d/vm{i}.sock")) for i in range(20)))
        self.start("--socket-dir", self.path("d"), vms=("a",))
        names = {vm["name"] for vm in self.control.ask("list")["vms"]}
        self.assertEqual(names, {"a", *(f"vm{i}" for i in range(20))})
        self.report(FrontEnd(os.path.join(self.path("d"), "vm7.sock")).start())


class Rights(Case):
    """Who may connect, look, and change something. For root: the users `nobody` and `daemon`, and
    groups by number."""
    OPERATORS, LOOKERS, MACHINE = 54321, 54322, 54323

    def setUp(self):
        if os.geteuid():
            self.skipTest("not root: NOT tested who may do what")
        super().setUp()
        os.chmod(self.dir, 0o711)
        self.users = {name: pwd.getpwnam(name).pw_uid for name in ("nobody", "daemon")}

    def as_user(self, path, request=None, user="nobody", groups=(), group=None):
        """What a process that the kernel knows as this user gets for it there, or None."""
        uid = self.users[user]
        here, there = socket.socketpair()
        pid = os.fork()
        if not pid:
            try:
                os.setgroups(groups)
                os.setresgid(*[uid if group is None else group] * 3)
                os.setresuid(uid, uid, uid)
                with Control(path) as control:
                    answer = control.ask(**request) if request else True
            except PermissionError:
                answer = None
            except Exception as error:
                answer = repr(error)
            finally:
                there.sendall(json.dumps(answer).encode())
                os._exit(0)
        there.close()
        with here, here.makefile() as said:
            answer = json.load(said)
        os.waitpid(pid, 0)
        return answer

    def connects(self, name, *args, **keywords):
        answer = self.as_user(self.path(name), None, *args, **keywords)
        self.assertIn(answer, (True, None))
        return answer is not None

    def ask_as(self, request, **keywords):
        return self.as_user(self.path("control"), request, **keywords)

    def fails(self, why, *args, rc=4, **keywords):
        run = subprocess.run([EBBD, *args], capture_output=True, text=True, timeout=PATIENCE, **keywords)
        self.last = run.stderr
        self.assertEqual(run.returncode, rc, run.stderr)
        self.assertIn(why, run.stderr)

    def test_own_socket_only(self):
        self.start("--socket", self.path("a.sock") + ",for=nobody", "--socket",
                   self.path("b.sock") + f",for=daemon:{self.MACHINE}", vms=())
        self.assertEqual({vm["name"] for vm in self.control.ask("list")["vms"]}, {"a", "b"})
        for name, user, groups, right in (
                ("a", "nobody", (), True), ("b", "nobody", (), False), ("a", "daemon", (), False),
                ("b", "daemon", (), True), ("b", "nobody", (self.MACHINE,), True),
                ("control", "nobody", (self.MACHINE,), False)):
            with self.subTest(name=name, user=user, groups=groups):
                self.assertEqual(self.connects(name if name == "control" else name + ".sock", user, groups), right)
        self.assertEqual(os.stat(self.path("a.sock")).st_mode & 0o777, 0o660)

    def test_stays(self):
        """With the socket, when a back end or ebbd is started anew."""
        os.mkdir(self.path("d"), 0o711)
        args = ("--socket-dir", self.path("d"))
        self.start(*args, vms=())
        self.assertIn("socket", self.control.ask("add", vm="a", **{"for": f":{self.MACHINE}"}))
        self.assertIn("socket", self.control.ask("add", vm="b"))
        for _ in range(2):
            self.assertTrue(self.connects("d/a.sock", groups=(self.MACHINE,)))
            self.assertFalse(self.connects("d/b.sock", groups=(self.MACHINE,)))
            self.stop()
            wait_for("its back ends end", lambda: not listens(self.path("d/a.sock")))
            self.start(*args, vms=())

    def test_unknown(self):
        path = self.path("x.sock")
        self.fails("there is no user nobody-at-all", "--socket", path + ",for=nobody-at-all", rc=2)
        self.fails("there is no group none-at-all", "--socket", path + ",for=:none-at-all", rc=2)
        self.fails("USER:GROUP", "--socket", path + ",for=", rc=2)
        self.fails("there is no group none-at-all", "--socket", path, "--operators", "none-at-all", rc=2)
        self.assertFalse(os.path.exists(path))
        os.mkdir(self.path("d"))
        self.start("--socket-dir", self.path("d"), vms=())
        for whom in ("nobody-at-all", "", ":", 5, "x" * 100):
            self.assertIn("error", self.control.ask("add", vm="a", **{"for": whom}))
        self.assertEqual(os.listdir(self.path("d")), [])

    def test_without_root(self):
        """A user may let others connect to what is his."""
        uid = self.users["nobody"]
        for program in (EBBD, EBBD_VM):
            shutil.copy(program, self.dir)
        os.mkdir(self.path("d"), 0o711)
        for name in ("", "d"):
            os.chown(self.path(name), uid, uid)
        self.start("--socket-dir", self.path("d"), "--socket", self.path("b.sock") + ",for=daemon", vms=(),
                   program=self.path("ebbd"), user=uid, group=uid, extra_groups=())
        self.assertIn("socket", self.control.ask("add", vm="a", **{"for": f":{self.MACHINE}"}))
        self.assertTrue(self.connects("d/a.sock", "daemon", (self.MACHINE,)))
        self.assertFalse(self.connects("d/a.sock", "daemon"))
        self.assertTrue(self.connects("b.sock", "daemon"))

    def test_user(self):
        """Sockets of the command line are made by root, for others than the user that ebbd becomes."""
        os.chmod(self.dir, 0o755)
        self.start("--user", "nobody", "--socket", self.path("a.sock") + ",for=daemon", "--socket",
                   self.path("b.sock"), "--metrics", "unix:" + self.path("metrics") + f",for=:{self.LOOKERS}",
                   vms=())
        self.assertTrue(self.connects("a.sock", "daemon"))
        self.assertFalse(self.connects("b.sock", "daemon"))
        self.assertTrue(self.connects("metrics", "daemon", (self.LOOKERS,)))
        self.assertFalse(self.connects("metrics", "daemon"))

    def test_operators(self):
        os.mkdir(self.path("d"))
        both = (self.LOOKERS, self.OPERATORS)
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(
                [EBBD, "--control", self.path("control") + f",for=:{self.LOOKERS}", "--operators",
                 str(self.OPERATORS), "--socket", self.path("a.sock"), "--socket-dir", self.path("d"), "--stats=0",
                 *(["--no-sandbox"] if SANITIZED else [])], stderr=log)
        self.addCleanup(self.stop)
        wait_for("ebbd is ready", lambda: "ready" in self.said())
        self.control = self.client()  # root's
        changes = ({"command": "resize", "vm": "a", "balloon_bytes": 0}, {"command": "limits", "rate": 0},
                   {"command": "inhibit", "on": True}, {"command": "flush"}, {"command": "add", "vm": "b"},
                   {"command": "hint", "vm": "a", "action": "start"}, {"command": "remove", "vm": "a"})
        for request in changes:
            with self.subTest(request=request):
                said = self.ask_as(request, groups=(self.LOOKERS,)).get("error", "")
                self.assertIn(f"for root and the group {self.OPERATORS}", said)
        self.assertFalse(self.control.vm("a")["inhibited"])
        self.assertRegex(self.said(), f"refused 'resize' by uid {self.users['nobody']}, pid [0-9]+, who is not in "
                                      f"the group {self.OPERATORS}")
        for request, member in (({"command": "list"}, "vms"), ({"command": "status"}, "vms"),
                                ({"command": "version"}, "protocol"), ({"command": "limits"}, "rate"),
                                ({"command": "watch"}, "vms")):
            with self.subTest(request=request):
                self.assertIn(member, self.ask_as(request, groups=(self.LOOKERS,)))
        request = {"command": "inhibit", "on": True, "vm": "a"}
        for keywords in ({"groups": both}, {"groups": (self.LOOKERS,), "group": self.OPERATORS},
                         {"groups": (*both, *range(60000, 60200))}):
            with self.subTest(keywords=keywords):
                self.assertEqual(self.ask_as(request, **keywords), {"vms": 1})
        self.assertEqual(self.control.ask("inhibit", on=False), {"vms": 1})
        self.assertFalse(self.connects("control", groups=(self.OPERATORS,)))

    def test_places_that_others_can_change(self):
        uid = self.users["nobody"]
        for name, mode, owner, why in (("open", 0o777, 0, "chmod go-w"), ("group", 0o770, 0, "chmod go-w"),
                                       ("theirs", 0o755, uid, f"belongs to uid {uid}")):
            os.makedirs(self.path(name + "/in"))
            os.chmod(self.path(name), mode)
            os.chown(self.path(name), owner, 0)
            os.symlink(self.path("open/in"), self.path(name + "/link"))
            for inside in ("/", "/in/", "/link/"):
                place, good = self.path(name) + inside, self.path("good.sock")
                for args in (("--socket", place + "a.sock"), ("--socket-dir", place.rstrip("/")),
                             ("--socket", good, "--control", place + "c"), ("--socket", good, "--state", place + "s"),
                             ("--socket", good, "--metrics", f"unix:{place}m")):
                    with self.subTest(args=args):
                        self.fails("could put something else", *args)
                        self.assertTrue(inside == "/link/" or why in self.last, self.last)
                run = subprocess.run([EBBD_VM, "--socket-path", place + "a.sock"], capture_output=True, text=True,
                                     timeout=PATIENCE)
                self.assertEqual(run.returncode, 4)
                self.assertIn("could put something else", run.stderr)
        os.mkdir(self.path("sticky"))
        os.chmod(self.path("sticky"), 0o1777)
        self.start("--socket", self.path("sticky/a.sock"), vms=())

    def test_link_in_its_place(self):
        """What a link leads to is nobody's but its owner's."""
        with open(self.path("precious"), "w"):
            pass
        os.symlink("precious", self.path("a.sock"))
        self.fails("is no socket", "--socket", self.path("a.sock") + ",for=nobody")
        self.assertEqual(os.stat(self.path("precious")).st_uid, 0)


class Metrics(Case):
    def scrape(self, request=b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self.path("metrics"))
            sock.sendall(request)
            data = b""
            try:
                while part := sock.recv(65536):
                    data += part
            except ConnectionResetError:  # it did not read all of a bad request
                pass
        head, body = data.split(b"\r\n\r\n", 1)
        return head.decode(), body.decode()

    def begin(self, *args, **keywords):
        self.start("--metrics", "unix:" + self.path("metrics"), *args, **keywords)

    def parse(self, text):
        """Check the form that OpenMetrics 1.0 demands, and return the samples."""
        self.assertTrue(text.endswith("# EOF\n"))
        samples, families, family, kind, unit = {}, set(), None, None, None
        for line in text.splitlines()[:-1]:
            if line.startswith("# TYPE "):
                _, _, family, kind = line.split(" ")
                self.assertNotIn(family, families)
                self.assertIn(kind, ("counter", "gauge", "histogram", "info"))
                families.add(family)
            elif line.startswith("# UNIT "):
                _, _, name, unit = line.split(" ")
                self.assertEqual(name, family)
                self.assertTrue(family.endswith("_" + unit), line)
            elif line.startswith("# HELP "):
                self.assertEqual(line.split(" ")[2], family)
                self.assertTrue(line.endswith("."), line)
            else:
                match = re.fullmatch(r'([a-z_]+)(?:\{((?:[a-z]+="[^"\\\n]*",?)+)\})? ([0-9.]+)', line)
                self.assertIsNotNone(match, line)
                suffixes = {"counter": ["_total"], "gauge": [""], "info": ["_info"],
                            "histogram": ["_bucket", "_count", "_sum"]}[kind]
                self.assertIn(match[1], [family + suffix for suffix in suffixes], line)
                key = (match[1], match[2] or "")
                self.assertNotIn(key, samples)
                samples[key] = float(match[3])
        return samples

    def test_text(self):
        self.begin()
        front = self.front().start()
        self.report(front)
        self.report(front, at=16 * MIB, length=2 * MIB)
        head, body = self.scrape()
        self.assertRegex(head, r"^HTTP/1\.1 200 OK\r\n")
        self.assertIn("Content-Type: application/openmetrics-text; version=1.0.0", head)
        self.assertIn(f"Content-Length: {len(body)}", head)
        samples = self.parse(body)
        self.assertEqual(samples["ebb_vms", ""], 2)
        self.assertEqual(samples["ebb_connected", 'vm="a"'], 1)
        self.assertEqual(samples["ebb_connected", 'vm="b"'], 0)
        self.assertEqual(samples["ebb_assigned_bytes", 'vm="a"'], 64 * MIB)
        self.assertEqual(samples["ebb_resident_bytes", 'vm="a"'], front.blocks())
        self.assertEqual(samples["ebb_reported_bytes_total", 'vm="a"'], 6 * MIB)
        self.assertEqual(samples["ebb_discarded_bytes_total", 'vm="a"'], 6 * MIB)
        self.assertEqual(samples["ebb_not_discarded_bytes_total", 'vm="a",cause="failed"'], 0)
        self.assertGreater(samples["ebb_discard_busy_seconds_total", 'vm="a"'], 0)
        self.assertGreater(samples["ebb_cpu_seconds_total", ""], 0)

    def test_histogram(self):
        self.begin()
        self.report(self.front().start())
        samples = self.parse(self.scrape()[1])
        buckets = [(key[1], value) for key, value in samples.items()
                   if key[0] == "ebb_discard_latency_seconds_bucket" and 'vm="a"' in key[1]]
        bounds = [float(re.search('le="(.*)"', labels)[1]) for labels, _ in buckets]
        counts = [count for _, count in buckets]
        self.assertEqual(bounds, sorted(bounds))
        self.assertEqual(bounds[-1], float("inf"))
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], samples["ebb_discard_latency_seconds_count", 'vm="a"'])
        self.assertEqual(counts[-1], 1)
        total = samples["ebb_discard_latency_seconds_sum", 'vm="a"']
        self.assertLess(total, next(b for b, c in zip(bounds, counts) if c) * 1.5)

    def test_dashboard(self):
        """It asks for nothing that ebbd does not tell."""
        self.begin()
        self.front().start()
        told = {match[0] for match in re.findall(r"# TYPE (\w+) (\w+)", self.scrape()[1])}
        with open(os.path.join(HERE, "..", "..", "dist", "grafana", "ebb.json")) as f:
            panels = json.load(f)["panels"]
        asked = {name for panel in panels for target in panel.get("targets", [])
                 for name in re.findall(r"\bebb_\w+", target["expr"])}
        self.assertGreater(len(asked), 20)
        self.assertEqual({re.sub("_(total|bucket)$", "", name) for name in asked} - told, set())

    def test_guest_statistics(self):
        self.begin()
        front = self.front().start()
        self.assertFalse([k for k in self.parse(self.scrape()[1]) if k[0] == "ebb_guest_statistic"])
        front.give_stats({4: 1})
        wait_for("it is held", lambda: self.control.vm("a")["kicks"] > 0)
        self.control.send(b'{"command":"stats","vm":"a"}\n')
        wait_for("the guest is asked", lambda: front.used(STATS) == 1)
        front.give_stats({4: 5 * MIB})
        self.control.line()
        self.assertEqual(self.parse(self.scrape()[1])["ebb_guest_statistic", 'vm="a",name="free_bytes"'],
                         5 * MIB)

    def test_polls_by_itself(self):
        self.begin("--stats=1")
        front = self.front().start()
        front.give_stats({4: 1})
        wait_for("the guest is asked", lambda: front.used(STATS) == 1)
        front.give_stats({4: 77 * PAGE})
        wait_for("it is told", lambda: self.parse(self.scrape()[1]).get(
            ("ebb_guest_statistic", 'vm="a",name="free_bytes"')) == 77 * PAGE)

    def test_http(self):
        self.begin()
        for request, status, body in (
                (b"HEAD /metrics HTTP/1.1\r\n\r\n", "200", False),
                (b"GET /metrics?x=1 HTTP/1.0\n\n", "200", True),
                (b"GET / HTTP/1.1\r\n\r\n", "404", True),
                (b"POST /metrics HTTP/1.1\r\n\r\n", "405", True),
                (b"nonsense\r\n", "400", True), (b"\r\n" * 101, "400", True),
                (b"\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n", "200", True),
                (b"GET http://localhost:9/metrics HTTP/1.1\r\n\r\n", "200", True),
                (b"GET HTTPS://x/metrics?y HTTP/1.1\r\n\r\n", "200", True),
                (b"GET http://x HTTP/1.1\r\n\r\n", "404", True),
                (b"GET http:///metrics HTTP/1.1\r\n\r\n", "404", True),
                (b"GET http://x/y/metrics HTTP/1.1\r\n\r\n", "404", True),
                (b"GET /metrics HTTP/2.0\r\n", "400", True),
                (b"G" * 9000, "400", True),
                (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 200, "400", True),
                (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 9000, "400", True)):
            with self.subTest(request=request[:30]):
                head, text = self.scrape(request)
                self.assertTrue(head.startswith(f"HTTP/1.1 {status} "), head)
                self.assertEqual(bool(text), body)
                self.assertIn("Connection: close", head)

    def test_formats(self):
        self.begin()
        self.report(self.front().start())
        plain, metrics = "text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"
        for accept, kind in (
                ("text/plain", plain), ("TEXT/PLAIN;version=0.0.4", plain), ("text/*", plain), ("*/*", metrics),
                ("text/html", metrics), ("application/openmetrics-text", metrics),
                ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1", metrics),
                ("application/openmetrics-text; q=0.2, text/plain ; q=0.3", plain),
                ("application/openmetrics-text;q=0, */*", plain), ("text/plain;q=0,*/*", metrics),
                ("text/html\r\nAccept: text/plain", plain)):
            with self.subTest(accept=accept):
                head, body = self.scrape(b"GET /metrics HTTP/1.1\r\naccept: %s\r\n\r\n" % accept.encode())
                self.assertIn(f"Content-Type: {kind}; charset=utf-8\r\n", head)
                self.assertEqual("# EOF" in body, kind == metrics)
        _, text = self.scrape(b"GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n")
        samples = self.parse(self.scrape()[1])
        kinds, told = {}, set()
        for line in text.splitlines():
            if match := re.fullmatch(r"# TYPE (\w+) (counter|gauge|histogram)", line):
                kinds[match[1]] = match[2]
            elif not (match := re.fullmatch(r"# HELP (\w+) .+", line)):
                match = re.fullmatch(r"(\w+)(?:\{(.*)\})? [0-9.]+", line)
                told.add((match[1], match[2] or ""))
                self.assertIn(re.sub("_(bucket|count|sum)$", "", match[1]), kinds, line)
            else:
                self.assertIn(match[1], kinds)
        self.assertEqual(told, set(samples))
        self.assertEqual(kinds["ebb_reported_bytes_total"], "counter")
        self.assertEqual(kinds["ebb_build_info"], "gauge")

    def stall(self):
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.settimeout(PATIENCE)
        sock.connect(self.path("metrics"))
        sock.sendall(b"GET /metrics HTTP/1.1\r\n")
        return sock

    def test_stalled_scrapers(self):
        """They keep nobody out, and go."""
        self.begin()
        stalled = [self.stall() for _ in range(16)]
        self.assertIn(" 200 ", self.scrape()[0])
        self.report(self.front().start())
        self.assertEqual(stalled[0].recv(10), b"")  # for the one above
        self.assertEqual(stalled[15].recv(10), b"")  # after 10 s

    def test_request_in_drops(self):
        self.begin()
        sock, began = self.stall(), time.monotonic()
        sock.settimeout(0.5)
        with self.assertRaises((ConnectionError, AssertionError)):
            while time.monotonic() - began < PATIENCE:
                sock.sendall(b"X: y\r\n")
                try:
                    self.assertNotEqual(sock.recv(1), b"")
                except TimeoutError:
                    pass
        self.assertGreater(time.monotonic() - began, 9)
        self.assertLess(time.monotonic() - began, PATIENCE)

    def test_loopback(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.start("--metrics", f"127.0.0.1:{port}")
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            self.assertIn(b" 200 ", sock.recv(100))


class Sandbox(Case):
    def threads(self):
        base = f"/proc/{self.back_end()}/task"
        for task in os.listdir(base):
            with open(f"{base}/{task}/status") as f:
                yield dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)

    def check(self, uid):
        n, threads = 0, list(self.threads())
        with open(EBBD_VM, "rb") as f:
            if b"__tsan_init" in f.read():  # its runtime has a thread that was there before
                threads.remove(next(status for status in threads if status["Seccomp"] == "0"))
        for status in threads:
            n += 1
            self.assertEqual(status["NoNewPrivs"], "1")
            self.assertEqual(status["Seccomp"], "2")
            for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd"):
                self.assertEqual(int(status[kind], 16), 0, kind)
            self.assertEqual(set(status["Uid"].split()), {str(uid)})
        self.assertGreaterEqual(n, 2)  # the loop, and one that discards

    def limits(self):
        """The soft ones, and the hard ones, which are the same."""
        with open(f"/proc/{self.back_end()}/limits") as f:
            rows = [re.match(r"(.{26})(\S+) +(\S+)", line) for line in f.read().splitlines()[1:]]
        found = {row[1].strip(): row[2] for row in rows if row[2] == row[3]}
        return [found.get(name) for name in ("Max core file size", "Max open files", "Max data size")]

    def need_namespaces(self):
        if subprocess.run(["unshare", "-Umn", "true"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("user namespaces are not allowed here: NOT tested that a back end has its own")
        if os.geteuid():
            self.skipTest("only root sees namespaces of a back end: NOT tested that it has its own")

    def test_limits(self):
        self.start(sandbox=True)
        self.assertEqual(self.limits(), ["0", "1024", "unlimited" if SANITIZED else str(64 * MIB)])

    def test_huge_guest(self):
        """Of 1 TiB: its memory is not the back end's own."""
        self.start(sandbox=True)
        front = self.front().start(mib=1 << 20)
        self.report(front)
        self.report(front, at=(1 << 40) - 8 * MIB)

    def test_namespaces(self):
        """And nothing in its root; also when it was started as somebody else."""
        self.need_namespaces()
        self.start(sandbox=True)
        pid = self.back_end()
        for kind in ("user", "mnt", "net", "ipc", "uts"):
            self.assertNotEqual(*(os.readlink(f"/proc/{p}/ns/{kind}") for p in (pid, "self")), kind)
        self.assertEqual(os.listdir(f"/proc/{pid}/root"), [])
        with self.assertRaises(OSError) as refused:
            os.mkdir(f"/proc/{pid}/root/x")
        self.assertEqual(refused.exception.errno, errno.EROFS)
        with open(f"/proc/{pid}/net/dev") as f:
            self.assertEqual([line.split(":")[0].strip() for line in f if ":" in line], ["lo"])
        self.assertNotIn("sandbox", self.said())

    def test_without_namespaces(self):
        """They may be forbidden: in a namespace that allows no more of them."""
        self.need_namespaces()
        script = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\""
        with open(self.path("program"), "w") as f:
            f.write(f"#!/bin/sh\nexec unshare -Ur sh -c '{script}' {shlex.quote(EBBD)} \"$@\"\n")
        os.chmod(self.path("program"), 0o755)
        self.start(sandbox=True, program=self.path("program"))
        self.assertIn("no namespaces of its own (ENOSPC)", self.said())
        self.check(os.geteuid())
        self.report(self.front().start())

    def test_in_force(self):
        self.start(sandbox=True)
        self.check(os.geteuid())
        self.report(self.front().start())
        self.check(os.geteuid())

    def test_user(self):
        if os.geteuid() != 0:
            self.skipTest("only root can become somebody else")
        nobody = pwd.getpwnam("nobody")
        os.chmod(self.dir, 0o711)
        os.mkdir(self.path("d"))
        os.chown(self.path("d"), nobody.pw_uid, nobody.pw_gid)
        self.start("--user", "nobody", "--state", self.path("d"), "--socket-dir", self.path("d"), sandbox=True)
        self.check(nobody.pw_uid)
        for pid in (self.back_end(), self.daemon.pid):  # undumpable: none of its user's own looks in
            self.assertEqual(os.stat(f"/proc/{pid}/fd").st_uid, 0)
        self.assertEqual(os.stat(self.path("a.sock")).st_uid, nobody.pw_uid)
        self.report(self.front().start())
        self.assertIn("socket", self.control.ask("add", vm="x"))
        self.assertIn("vms", self.control.ask("remove", vm="x"))

    def test_everything_works_in_it(self):
        """No call of a whole session, or of operators, is one that was given up."""
        os.mkdir(self.path("d"))
        self.start("--socket-dir", self.path("d"), "--metrics", "unix:" + self.path("m"),
                   sandbox=True)
        front = self.front().start(protocol=frontend.P_MQ | frontend.P_REPLY_ACK |
                                   frontend.P_BACKEND_REQ | frontend.P_CONFIG | frontend.P_MEM_SLOTS)
        self.report(front)
        extra = os.memfd_create("guest")
        os.ftruncate(extra, 4 * MIB)
        region = struct.pack("<QQQQQ", 0, 1 << 32, 4 * MIB, frontend.USER + (1 << 33), 0)
        self.assertEqual(front.ack(frontend.ADD_MEM_REG, region, [extra]), 0)
        os.pwrite(extra, b"x" * 4 * MIB, 0)
        front.add(REPORTING, [(1 << 32, 4 * MIB, WRITE)])
        wait_for("it is gone", lambda: os.fstat(extra).st_blocks == 0)
        self.assertEqual(front.ack(frontend.REM_MEM_REG, region), 0)
        os.close(extra)
        self.assertEqual(self.control.ask("resize", vm="a", balloon_bytes=MIB),
                         {"balloon_bytes": MIB})
        self.assertEqual(len(front.backend.recv(100)), 12)
        base = front.ask(frontend.GET_VRING_BASE, struct.pack("<II", REPORTING, 0))
        self.assertEqual(struct.unpack("<II", base), (REPORTING, 2))
        self.assertEqual(self.control.vm("a")["front_ends"]["last_error"], None)
        self.assertNotIn("not permitted", self.said())


class FrontEnds(Case):
    """Bad ones, beside one that works."""

    def setUp(self):
        super().setUp()
        self.start(vms=("a", "good"))
        self.good = self.front("good").start()
        self.report(self.good)
        self.before = self.fds(), self.maps()

    def still_good(self):
        self.gone()
        self.report(self.good)
        wait_for("nothing is left of it", lambda: (self.fds(), self.maps()) == self.before)

    def test_second_is_turned_away(self):
        first = self.front().start()
        self.assertTrue(self.front().hung_up())
        self.report(first)
        self.assertEqual(self.control.vm("a")["front_ends"]["turned_away"], 1)

    def test_next_follows_at_once(self):
        """As when a VM's process is started again."""
        for _ in range(20):
            front = FrontEnd(self.path("a.sock"))
            front.greet()
            front.share()
            front.config()
            front.close()
        self.still_good()
        self.assertEqual(self.control.vm("a")["front_ends"]["turned_away"], 0)

    def test_comes_while_the_last_one_goes(self):
        """Both in one turn of the loop, which is kept from it meanwhile."""
        for _ in range(5):
            front = self.front()
            front.greet()
            pid = self.back_end()
            os.kill(pid, signal.SIGSTOP)
            front.close()
            front = self.front()
            os.kill(pid, signal.SIGCONT)
            front.start(mib=16)
            self.report(front)
            front.close()
        self.still_good()
        self.assertEqual(self.control.vm("a")["front_ends"]["turned_away"], 0)

    def session(self):
        """The messages of a whole session, with what descriptors they need."""
        record = []

        class Recorder(FrontEnd):
            def __init__(self, path):
                super().__init__(path)

            def raw(self, data, fds=()):
                record.append((data, list(fds)))
                super().raw(data, fds)

        recorder = Recorder(self.path("a.sock"))
        recorder.start()
        return recorder, record

    def answered(self, data):
        return struct.unpack("<I", data[:4])[0] in (
            frontend.GET_FEATURES, frontend.GET_PROTOCOL_FEATURES, frontend.GET_CONFIG)

    def replay(self, record, until, spoil):
        """Send the first `until` messages as they were, then spoil(data, fds)."""
        with FrontEnd(self.path("a.sock")) as front:
            for data, fds in record[:until]:
                front.raw(data, fds)
                if self.answered(data):
                    front.reply(struct.unpack("<I", data[:4])[0])
            spoil(front, *record[until])

    def each_message(self, spoil, hangs_up):
        recorder, record = self.session()
        fds = [fd for _, message_fds in record for fd in message_fds]
        # The one for the back-end's requests was closed; any stream will do.
        spare = socket.socket(socket.AF_UNIX)
        record = [(data, [spare.fileno() if struct.unpack("<I", data[:4])[0] ==
                          frontend.SET_BACKEND_REQ_FD else fd for fd in message_fds])
                  for data, message_fds in record]
        self.assertTrue(fds)
        recorder.sock.close()
        self.gone()
        for i in range(len(record)):
            with self.subTest(message=i, request=record[i][0][:4]):
                def spoiled(front, data, message_fds):
                    try:
                        spoil(front, data, message_fds)
                        if hangs_up:
                            front.hung_up()
                    except Gone:
                        pass
                self.replay(record, i, spoiled)
                self.gone()
        spare.close()
        recorder.close()
        self.still_good()

    def test_vanishes_before_each_message(self):
        self.each_message(lambda front, data, fds: None, False)

    def test_vanishes_in_each_message(self):
        self.each_message(lambda front, data, fds: front.raw(data[:len(data) // 2], fds), False)

    def test_vanishes_in_each_header(self):
        self.each_message(lambda front, data, fds: front.raw(data[:5], fds), False)

    def test_wrong_size(self):
        def spoil(front, data, fds):
            request = struct.unpack("<I", data[:4])[0]
            front.raw(front.message(request, data[12:] + b"\0" * 5), fds)
        self.each_message(spoil, True)

    def test_no_version(self):
        self.each_message(lambda front, data, fds: front.raw(
            data[:4] + struct.pack("<I", 3) + data[8:], fds), True)

    def test_huge_size(self):
        self.each_message(lambda front, data, fds: front.raw(
            data[:8] + struct.pack("<I", 0xFFFFFFFF) + data[12:], fds), True)

    def test_surplus_descriptors(self):
        def spoil(front, data, fds):
            null = os.open("/dev/null", os.O_RDONLY)
            try:
                front.raw(data, list(fds) + [null] * 20)
            finally:
                os.close(null)
        self.each_message(spoil, True)

    def test_missing_descriptors(self):
        def spoil(front, data, fds):
            if fds:
                front.raw(data)
                front.hung_up()
        self.each_message(spoil, False)

    def test_stalls_in_a_message(self):
        stalled = []
        for n in (1, 11, 12, 20):
            front = self.front()
            front.raw(FrontEnd.message(frontend.SET_MEM_TABLE, bytes(40))[:n])
            stalled.append(front)
            self.report(self.good)
            self.assertIn("protocol", self.control.ask("version"))
            front.close()
            self.gone()
        self.still_good()

    def test_does_not_read(self):
        """Its answers fill its socket, and it gets no more."""
        front = self.front()
        front.sock.setblocking(False)
        request = FrontEnd.message(frontend.GET_FEATURES)
        try:
            while True:
                front.sock.send(request * 1000)
        except BlockingIOError:
            pass
        self.report(self.good)
        # It reads again, and goes on where it was.
        front.sock.settimeout(PATIENCE)
        for _ in range(5000):
            front.reply(frontend.GET_FEATURES)
        front.close()
        self.still_good()

    def test_byte_by_byte(self):
        front = self.front()
        for byte in FrontEnd.message(frontend.GET_FEATURES):
            front.raw(bytes([byte]))
        front.reply(frontend.GET_FEATURES)
        front.close()
        self.still_good()

    def test_garbage(self):
        rng = random.Random(SEED)
        print(f"EBB_SEED={SEED}", file=sys.stderr)
        for _ in range(100):
            with FrontEnd(self.path("a.sock")) as front:
                try:
                    for _ in range(rng.randrange(1, 4)):
                        payload = rng.randbytes(rng.choice((0, 4, 8, 12, 28, 40, 72, 300)))
                        header = struct.pack("<III", rng.randrange(0, 45), rng.choice((1, 9, 0, 77)),
                                             rng.choice((len(payload), rng.randrange(1 << 32))))
                        front.raw(rng.choice((header, rng.randbytes(12))) + payload)
                    front.sock.shutdown(socket.SHUT_WR)
                except (Gone, OSError):
                    pass
                front.hung_up()
        self.still_good()

    def test_no_room_for_descriptors(self):
        """The one that it has no room for is refused, and the log says which limit it was."""
        front = self.front()
        front.greet(protocol=frontend.P_REPLY_ACK | frontend.P_MEM_SLOTS)
        fd = os.memfd_create("guest")
        os.ftruncate(fd, PAGE)
        pid = self.back_end()
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(descriptors(pid)) + 3, most))
        granted = []
        for i in range(8):
            region = struct.pack("<QQQQQ", 0, i * PAGE, PAGE, frontend.USER + i * PAGE, 0)
            granted.append(front.ack(frontend.ADD_MEM_REG, region, [fd]) == 0)
        self.assertTrue(granted[0])
        self.assertFalse(granted[-1])
        why = "a: refused its front-end: descriptors that there was no room for (RLIMIT_NOFILE): Too many open files"
        wait_for("it is told", lambda: why in self.said())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        os.close(fd)
        front.close()
        self.still_good()

    def test_memory_cut_short(self):
        """The ring lies in a page that is no more: SIGBUS is the VM's, not the daemon's."""
        front = self.front().start()
        os.ftruncate(front.memfd, 0)
        os.eventfd_write(front.kicks[REPORTING], 1)
        self.assertTrue(front.hung_up())
        self.gone()
        self.assertEqual(self.control.vm("a")["front_ends"]["ended"], 1)
        self.assertIn("a: disconnected its front-end", self.said())
        front.close()
        self.still_good()

    def test_memory_cut_short_and_nothing_to_replace_it(self):
        """There is no address space left, so that the handler has no way but to end the process."""
        if SANITIZED:
            print("NOT tested with a sanitizer, whose runtime needs address space itself", file=sys.stderr)
            return
        front = self.front().start()
        resource.prlimit(self.back_end(), resource.RLIMIT_AS, (4096, 4096))
        os.ftruncate(front.memfd, 0)
        os.eventfd_write(front.kicks[REPORTING], 1)
        self.assertTrue(front.hung_up())
        wait_for("it is told", lambda: "ended with exit code 5" in self.said())
        self.assertIn("nothing can take its place", self.said())
        self.report(self.good)
        self.report(self.front().start())

    def test_memory_cut_short_before_an_operator_comes(self):
        front = self.front().start()
        front.give_stats({4: 1})
        wait_for("it is held", lambda: self.control.vm("a")["kicks"] > 0)
        os.ftruncate(front.memfd, 0)
        self.assertIn("error", self.control.ask("stats", vm="a", timeout_ms=100))
        self.assertTrue(front.hung_up())
        self.gone()
        front.close()
        self.still_good()

    def test_kicks_without_end(self):
        front = self.front().start()
        for _ in range(20000):
            os.eventfd_write(front.kicks[REPORTING], 1)
        self.report(self.good)
        front.close()
        self.still_good()

    def test_logs_are_limited(self):
        """To one of a kind in five seconds."""
        began = time.monotonic()
        for _ in range(100):
            with FrontEnd(self.path("a.sock")) as front:
                front.raw(b"\xff" * 12)
                front.hung_up()
        self.gone()
        self.assertLess(len(self.said().splitlines()), 60 + 2 * (time.monotonic() - began))
        self.assertEqual(self.control.vm("a")["front_ends"]["ended"], 100)

    def test_guest_that_breaks_the_ring(self):
        front = self.front().start()
        _, avail, _ = front.ring_at(REPORTING)
        front.put16(avail + 2, 5000)
        os.eventfd_write(front.kicks[REPORTING], 1)
        wait_for("it is told", lambda: self.control.vm("a")["balloon"]["needs_reset"])
        self.assertEqual(self.control.vm("a")["faults"]["ring"], 1)
        front.close()
        self.still_good()


class Many(Case):
    def test_at_rest(self):
        """Who has nothing new to say is not woken up for a status of all; who has is asked."""
        vms = [f"vm{i}" for i in range(72)]
        self.start(vms=vms)

        def switches(pid):
            with open(f"/proc/{pid}/status") as f:
                return sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)
        pids = [vm["back_end"]["pid"] for vm in self.control.ask("status")["vms"]]
        wait_for("all are at rest", lambda: len([pid for pid in pids if not alive(pid)]) == 0)
        time.sleep(0.3)

        def few_are_woken():  # once: others on this machine wake them, too
            before = [switches(pid) for pid in pids]
            answer = self.control.ask("status")["vms"]
            self.assertEqual({vm["connected"] for vm in answer}, {False})
            return (all(vm["back_end"]["answers"] for vm in answer) and
                    sum(switches(pid) != n for pid, n in zip(pids, before)) <= 40)
        wait_for("all answer, and few are woken", few_are_woken)
        for i in range(3):
            front = self.front(f"vm{i * 30}").start()
            self.report(front)
            self.control.ask("limits", vm=f"vm{i * 30 + 1}", rate=MIB)

            def is_told(i=i):
                now = {vm["name"]: vm for vm in self.control.ask("status")["vms"]}
                return now[f"vm{i * 30}"]["reported_bytes"] >= 4 * MIB and now[f"vm{i * 30 + 1}"]["rate"] == MIB
            wait_for("the status of all has it", is_told)

    def test_hundred(self):
        names = [f"vm{i}" for i in range(100)]
        self.start(vms=names)
        empty = own_memory(self.daemon.pid)
        fronts = [self.front(name).start(mib=16) for name in names]
        for front in fronts:
            front.fill(8 * MIB, MIB)
            front.add(REPORTING, [(8 * MIB, MIB, WRITE)])
        for front in fronts:
            wait_for("all are served", lambda f=front: f.used(REPORTING) == 1)
        wait_for("all say so", lambda: [vm["discard"]["discarded_bytes"]
                                        for vm in self.control.ask("status")["vms"]] == [MIB] * 100)
        self.assertEqual(self.control.ask("flush"), {"vms": 100})
        if not SANITIZED:
            self.assertLess(own_memory(self.daemon.pid) - empty, MIB * 10)


class Results(unittest.TextTestResult):
    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(f"SKIP: {test}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    if not EBBD or not os.access(EBBD, os.X_OK):
        print("SKIP: there is no ebbd: NOTHING of it was tested", file=sys.stderr)
        sys.exit(77)
    SANITIZED = sanitized(EBBD)
    done = unittest.main(argv=[sys.argv[0], *sys.argv[2:]], exit=False,
                         testRunner=unittest.TextTestRunner(resultclass=Results)).result
    sys.exit(1 if not done.wasSuccessful() else 77 if done.skipped else 0)

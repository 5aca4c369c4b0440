# SPDX-License-Identifier: BSD-2-Clause
"""`ebb ctl` and `ebb top` against stand-ins for ebbd's control socket and QEMU's monitor, well
behaved and hostile. Needs neither QEMU nor ebbd."""
import copy
import fcntl
import json
import mmap
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

import e2e

sys.path.append(os.path.join(e2e.HERE, "..", "vhost"))
from daemon import listens, wait_for  # noqa: E402
from frontend import REPORTING, WRITE, FrontEnd  # noqa: E402

MIB = 1 << 20
SECONDS = e2e.PATIENCE
LIMIT = 16 * MIB  # of an answer
HANG_UP = object()  # what a stand-in may do instead of answering
STALL = object()
HELLO = {"version": "0.1.0", "protocol": 1}


class Server:
    """Listens on a unix socket; a thread for each connection."""

    def __init__(self, path):
        self.path = path
        self.connections = []
        self.requests = []
        self.stop = threading.Event()
        self.open()

    def open(self):
        self.stop = threading.Event()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen(16)
        threading.Thread(target=self.accept, args=(self.socket, self.stop), daemon=True).start()

    def accept(self, listening, stop):
        while not stop.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.serve, args=(connection, stop), daemon=True).start()

    def serve(self, connection, stop):
        try:
            self.greet(connection)
            for line in connection.makefile("rb"):
                request = json.loads(line)
                self.requests.append(request)
                answer = self.answer(request)
                if answer is HANG_UP:
                    break
                if answer is not STALL:
                    self.put(connection, answer)
        except OSError:
            pass
        finally:
            connection.close()

    def greet(self, connection):
        pass

    def put(self, connection, answer):
        if isinstance(answer, dict):
            answer = json.dumps(answer).encode() + b"\n"
        connection.sendall(answer)

    def close(self):
        self.stop.set()
        for connection in [self.socket, *self.connections]:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        self.connections = []
        if os.path.exists(self.path):
            os.unlink(self.path)


class Ebbd(Server):
    """`answers`: by command, what to answer, or a function of the request."""

    def __init__(self, path, hello=HELLO, **answers):
        self.answers = dict(answers, version=hello)
        super().__init__(path)

    def answer(self, request):
        answer = self.answers[request["command"]]
        return answer(request) if callable(answer) else answer


class Qemu(Server):
    """QMP. `returns`: by command and, for qom-*, path."""

    def __init__(self, path, **changes):
        self.returns = {
            "qmp_capabilities": {},
            "query-name": {"name": "qemu1"},
            "qom-list /machine/peripheral": [{"name": "type", "type": "string"},
                                             {"name": "net0", "type": "child<virtio-net-pci>"},
                                             {"name": "b0", "type": "child<virtio-balloon-pci>"}],
            "qom-list /machine/peripheral-anon": [],
            "query-memory-size-summary": {"base-memory": 1024 * MIB, "plugged-memory": 0},
            "query-balloon": {"actual": 768 * MIB},
            "qom-get /machine/peripheral/b0": {
                "stats": {"stat-free-memory": 256 * MIB, "stat-total-memory": 1000 * MIB},
                "last-update": int(time.time())},
        }
        self.returns.update(changes)
        self.greeting = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
        super().__init__(path)

    def greet(self, connection):
        connection.sendall(self.greeting)

    def answer(self, request):
        arguments = request.get("arguments", {})
        key = " ".join([request["execute"], *filter(None, [arguments.get("path")])])
        value = self.returns.get(key)
        if value is STALL or value is HANG_UP or isinstance(value, bytes):
            return value
        if value is None:
            return {"error": {"class": "GenericError", "desc": "no"}, "id": request["id"]}
        return {"return": value, "id": request["id"]}


def histogram(**counts):
    return [counts.get(f"b{i}", 0) for i in range(24)]


def vm(name, **changes):
    """A VM in the answer to `status`."""
    it = {
        "name": name, "connected": True, "socket": f"/run/ebbd/{name}.sock", "connected_ns": 5 * 10**9,
        "inhibited": False, "rate": 0, "kicks": 7, "resets": 1,
        "memory": {"assigned_bytes": 1024 * MIB, "resident_bytes": 600 * MIB,
                   "regions": [{"backing": "shared", "page_bytes": 4096, "regions": 1,
                                "bytes": 1024 * MIB}], "note": None},
        "balloon": {"target_bytes": 0, "actual_bytes": 0, "features": 1 << 32, "needs_reset": False},
        "guest": {"age_ns": 10**9, "free_bytes": 824 * MIB, "total_bytes": 1000 * MIB},
        "reported_ranges": 5, "reported_bytes": 100 * MIB, "hinted_ranges": 0, "hinted_bytes": 0,
        "inflated_bytes": 0, "deflated_bytes": 0, "poison_skipped_bytes": 0,
        "discard": {"batches": 10, "ranges": 20, "asked_bytes": 100 * MIB, "calls": 10,
                    "discarded_bytes": 90 * MIB, "gathered_bytes": 0, "checked_bytes": 0,
                    "wait_ns": 100, "busy_ns": 1500000, "latency": histogram(b9=8, b11=2),
                    "not": {"outside": {"bytes": 0, "ranges": 0}, "partial": {"bytes": MIB, "ranges": 3},
                            "backing": {"bytes": 0, "ranges": 0}, "inhibited": {"bytes": 0, "ranges": 0},
                            "late": {"bytes": 0, "ranges": 0}, "rate": {"bytes": 0, "ranges": 0},
                            "failed": {"bytes": 3 * MIB, "ranges": 1},
                            "resident": {"bytes": 0, "ranges": 0}},
                    "last_error": None},
        "faults": {"ring": 0, "pfn": 0},
        "front_ends": {"connections": 1, "hangups": 0, "ended": 0, "turned_away": 0, "messages": 20,
                       "refused": 0, "last_error": None},
    }
    for key, value in changes.items():
        at = it
        *path, last = key.split("__")
        for step in path:
            at = at[step]
        at[last] = value
    return it


def status(*vms, second=1, started=1):
    return {"now_ns": second * 10**9, "started_ns": started, "vms": list(vms)}


class Case(e2e.Case):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.path = os.path.join(self.dir, "control.sock")

    def serve(self, server, *args, **keywords):
        server = server(*args, **keywords)
        self.addCleanup(server.close)
        return server

    def ebbd(self, **answers):
        return self.serve(Ebbd, self.path, **answers)

    def qemu(self, name="q.sock", **changes):
        return self.serve(Qemu, os.path.join(self.dir, name), **changes)

    def assert_plain(self, run):
        for text in (run.out, run.err):
            self.assertRegex(text, r"\A[ -~\n]*\Z", run.describe())

    def rows(self, text):
        """The last whole block of `ebb top`: {name: {head: cell}}, by where the columns are."""
        lines = text[:text.rindex("\n\n")].split("\n")
        first = max(i for i, line in enumerate(lines) if line.startswith("NAME"))
        heads = [(m.group(), m.start(), m.end()) for m in re.finditer(r"\S+", lines[first])]
        found = {}
        for line in lines[first + 1:]:
            if not line.strip():
                break
            cells = {}
            for i, (head, start, end) in enumerate(heads):
                left = head in ("NAME", "MOSTLY", "STATE")
                if left:
                    stop = len(line) if head == "STATE" else line.find("  ", start)
                    cells[head] = line[start:max(start, stop if stop >= 0 else len(line))].strip()
                else:
                    cells[head] = line[:end].rsplit(" ", 1)[-1]
            found[cells["NAME"]] = cells
        return found


class Ctl(Case):
    def ctl(self, *args, rc=0, **keywords):
        run = self.ebb("ctl", "--control", self.path, *args, rc=rc, **keywords)
        if "--json" not in args:
            self.assert_plain(run)
        return run

    def test_help(self):
        run = self.ebb("ctl", "--help")
        for text in ("Usage: ebb ctl", "list", "status", "stats", "resize", "inhibit", "limits", "flush",
                     "hint", "add", "remove", "/run/ebb/control", "Exit status"):
            self.assertIn(text, run.out)

    def test_wrong_options(self):
        for args, why in (([], "which command"), (["lst"], "no command 'lst'"), (["list", "x"], "no more"),
                          (["status", "a", "b"], "[VM]"), (["stats"], "VM"), (["resize", "a"], "SIZE"),
                          (["resize", "a", "1G", "--balloon", "1G"], "either"),
                          (["resize", "a", "x"], "size"), (["resize", "a", "0"], "size"),
                          (["resize", "a", "1K"], "size"), (["resize", "a", "-1G"], ""),
                          (["resize", "a", "99999999999T"], "size"),
                          (["resize", "--balloon", "x", "a"], "--balloon"),
                          (["list", "--balloon", "1G"], "resize"), (["inhibit"], "on|off"),
                          (["inhibit", "a"], "on or off"), (["inhibit", "on", "a"], "on or off"),
                          (["limits", "a", "b"], "rate"), (["limits", "a", "b", "c"], "[RATE]"),
                          (["hint", "a"], "start|done|status"), (["hint", "a", "go"], "not 'go'"),
                          (["add"], "VM"), (["add", "a", "b", "c"], "VM"), (["list", "--full"], "status"), (["remove"], "VM"),
                          (["a", "b", "c", "d", "e"], "too many"), (["list", "--timeout", "0"], "timeout"),
                          (["list", "--timeout", "61"], "timeout"), (["list", "--nonsense"], "")):
            with self.subTest(args=args):
                run = self.ebb("ctl", *args, rc=2)
                self.assert_says(run, "ebb ctl: ", why)

    def test_requests(self):
        """What each command sends."""
        server = self.ebbd(
            list={"vms": []}, status=status(vm("a")), stats={"guest": {}}, resize={"balloon_bytes": 0},
            inhibit={"vms": 1}, limits={"rate": 0}, flush={"vms": 1}, hint={"hinting": False},
            add={"socket": "/x"}, remove={})
        for args, more in (
                (["list"], {}), (["status"], {}), (["status", "a"], {"vm": "a"}),
                (["status", "--full"], {"full": True}),
                (["stats", "a"], {"vm": "a"}),
                (["stats", "a", "--timeout", "3"], {"vm": "a", "timeout_ms": 3000}),
                (["resize", "a", "512M"], {"vm": "a", "memory_bytes": 512 * MIB}),
                (["resize", "a", "2"], {"vm": "a", "memory_bytes": 2 * MIB}),
                (["resize", "a", "--balloon", "1G"], {"vm": "a", "balloon_bytes": 1024 * MIB}),
                (["resize", "--balloon=0", "a"], {"vm": "a", "balloon_bytes": 0}),
                (["inhibit", "on"], {"on": True}), (["inhibit", "a", "off"], {"vm": "a", "on": False}),
                (["inhibit", "on", "on"], {"vm": "on", "on": True}),
                (["limits"], {}), (["limits", "a"], {"vm": "a"}), (["limits", "100"], {"vm": "100"}),
                (["limits", "64M"], {"rate": 64 * MIB}), (["limits", "none"], {"rate": 0}),
                (["limits", "a", "1G"], {"vm": "a", "rate": 1024 * MIB}),
                (["limits", "100", "0"], {"vm": "100", "rate": 0}),
                (["flush"], {}), (["flush", "a"], {"vm": "a"}),
                (["flush", "a", "-t", "60"], {"vm": "a", "timeout_ms": 60000}),
                (["hint", "a", "start"], {"vm": "a", "action": "start"}),
                (["hint", "a", "done"], {"vm": "a", "action": "done"}),
                (["hint", "a", "status"], {"vm": "a", "action": "status"}),
                (["add", "a"], {"vm": "a"}), (["add", "a", "u:g"], {"vm": "a", "for": "u:g"}),
                (["remove", "a\"\\\x1b"], {"vm": "a\"\\\x1b"})):
            with self.subTest(args=args):
                server.requests.clear()
                self.ctl(*args)
                self.assertEqual(server.requests, [
                    {"command": "version"},
                    dict(more, command="resize" if args[0].startswith("-") else args[0])])

    def test_answers(self):
        """What each command makes of the answer."""
        self.ebbd(
            list={"vms": [{"name": "web1", "connected": True, "socket": "/run/ebbd/web1.sock"},
                          {"name": "b", "connected": False, "socket": None}]},
            status=lambda request: status(vm("web1", balloon__needs_reset=True), vm("b", connected=False),
                                          vm("c", inhibited=True), vm("d")),
            stats={"guest": {"age_ns": 1500000, "free_bytes": 3 * MIB // 2, "major_faults": 77,
                             "something_new": True}},
            resize={"balloon_bytes": 512 * MIB}, inhibit={"vms": 3}, limits={"rate": 64 * MIB},
            flush={"vms": 1}, hint={"hinting": True}, add={"socket": "/run/ebbd/web1.sock"}, remove={})
        self.assertEqual(self.ctl("list").out, "NAME  CONNECTED  SOCKET\n"
                         "web1  yes        /run/ebbd/web1.sock\nb     no         -\n")
        for args, *texts in (
                (["status"], "web1  needs reset", "b     not connected", "c     inhibited",
                 "d     serving", " 1G ", " 600M ", " 824M ", " 100M ", " 90M ", " 4M"),
                (["stats", "a"], "age_ns         1.5ms", "free_bytes     1.50M", "major_faults   77",
                 "something_new  yes"),
                (["resize", "web1", "512M"], "web1: the balloon's target is 512M now"),
                (["inhibit", "on"], "3 VMs: ", "not discarded"), (["inhibit", "a", "off"], "a: "),
                (["limits"], "VMs still to come: at most 64M/s"), (["limits", "a"], "a: at most 64M/s"),
                (["limits", "64M"], "all VMs: at most"), (["flush"], "1 VM: nothing is under way"),
                (["hint", "a", "status"], "a: the guest sends what is free"),
                (["add", "web1"], "web1: listening on /run/ebbd/web1.sock"),
                (["remove", "web1"], "web1: removed"), (["version"], "ebbd 0.1.0, protocol 1")):
            with self.subTest(args=args):
                run = self.ctl(*args)
                for text in texts:
                    self.assertIn(text, run.out, run.describe())
                self.assertEqual(run.err, "")

    def test_status_of_one(self):
        it = vm("web1", rate=64 * MIB, discard__last_error="No space left on device")
        self.ebbd(status=status(it))
        lines = dict(line.split(None, 1) for line in self.ctl("status", "web1").out.splitlines())
        for name, value in (("name", "web1"), ("connected", "yes"), ("memory.assigned_bytes", "1G"),
                            ("connected_ns", "5s"),
                            ("memory.resident_bytes", "600M"), ("memory.regions.0.backing", "shared"),
                            ("discard.not.failed.bytes", "3M"), ("discard.busy_ns", "1.5ms"),
                            ("discard.latency", "<512us median, <2.05ms 99 %"),
                            ("discard.last_error", "No space left on device"), ("faults.ring", "0"),
                            ("guest.free_bytes", "824M"), ("rate", "64M/s"), ("reported_ranges", "5")):
            self.assertEqual(lines.get(name), value, name)

    def test_no_vms(self):
        self.ebbd(list={"vms": []}, status=status())
        for command in ("list", "status"):
            self.assertIn("serves no VM", self.ctl(command).out)

    def test_many_vms(self):
        self.ebbd(status=status(*[vm(f"vm{i}") for i in range(3000)]))
        self.assertEqual(len(self.ctl("status").out.splitlines()), 3001)

    def test_json(self):
        raw = b'{"vms":[{"name": "a\\u001b[2J\xc3\xa4", "n":18446744073709551615,"x": 1.50}] }'
        self.ebbd(list=raw + b"\r\n")
        self.assertEqual(self.ctl("list", "--json").out, raw.decode() + "\n")
        self.assertIn("a?[2J?", self.ctl("list").out)

    def test_json_is_safe(self):
        name = "\x7f\u0080\u009b\u009f\u00a0\u20ac"
        self.ebbd(list=json.dumps({"vms": [{"name": name}]}, ensure_ascii=False).encode() + b"\n")
        run = self.ctl("list", "--json")
        self.assertIn(r"\u007f\u0080\u009b\u009f" + "\u00a0\u20ac", run.out)
        self.assertEqual(json.loads(run.out)["vms"][0]["name"], name)

    def test_refused(self):
        """ebbd says why; JSON is printed all the same."""
        self.ebbd(stats={"error": "there is no VM 'x'\x1b[1m\nebb: all is well"}, add={"error": 5})
        run = self.ctl("stats", "x", rc=1)
        self.assertEqual(run.err, "ebb: there is no VM 'x'?[1m?ebb: all is well\n")
        self.assertEqual(run.out, "")
        run = self.ctl("stats", "x", "--json", rc=1)
        self.assertIn("no VM", json.loads(run.out)["error"])
        self.assert_says(self.ctl("add", "x", rc=1), "refuses, and does not say why")

    def test_no_ebbd(self):
        self.assert_says(self.ctl("list", rc=4), f"there is no socket {self.path}", "is ebbd running",
                         "--control")
        self.ebbd().close()
        gone = socket.socket(socket.AF_UNIX)
        gone.bind(self.path)
        gone.close()
        self.assert_says(self.ctl("list", rc=4), "nobody listens", "still running")
        os.unlink(self.path)
        open(self.path, "w").close()
        self.assert_says(self.ctl("list", rc=4), "is no socket")
        self.path += "/x"
        self.assert_says(self.ctl("list", rc=4), "there is no socket")
        for path in ("", "/" + "x" * 200):
            self.path = path
            self.assert_says(self.ctl("list", rc=4), "path has 1 to 107 bytes")
        self.path = "/nonexistent/\x1b[2J"
        self.assert_says(self.ctl("list", rc=4), "/nonexistent/?[2J")

    def test_not_allowed(self):
        self.ebbd(list={"vms": []})
        os.chmod(self.dir, 0o711)
        os.chmod(self.path, 0o660)
        if os.getuid() == 0:
            def preexec():
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
        else:
            os.chmod(self.path, 0)
            preexec = None
        try:
            run = self.ctl("list", rc=4, preexec=preexec)
        except (PermissionError, subprocess.SubprocessError):
            self.skipTest("another user cannot run ebb from where it is")
        self.assert_says(run, f"may not use {self.path}", "as root", "group")
        os.chmod(self.dir, 0o700)
        if os.getuid() == 0:
            self.assert_says(self.ctl("list", rc=4, preexec=preexec), "directory of")

    def test_backlog(self):
        """Nobody accepts."""
        full = socket.socket(socket.AF_UNIX)
        full.bind(self.path)
        full.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(self.path)
        self.assert_says(self.ctl("list", rc=4), "too many others wait")
        waiting.close()
        full.close()

    def test_other_protocols(self):
        for hello, *texts in (({"version": "7.1", "protocol": 2}, "7.1 speaks version 2", "version 1"),
                              ({"version": "7.1"}, "is not ebbd"), ({}, "is not ebbd"),
                              ({"protocol": "1"}, "is not ebbd"), ({"protocol": 1e400}, ""),
                              ({"error": "64 clients are connected"}, "64 clients are connected")):
            with self.subTest(hello=hello):
                server = self.ebbd(hello=hello, list={"vms": []})
                self.assert_says(self.ctl("list", rc=4), *texts)
                server.close()

    def test_no_json(self):
        deep = b'{"vms":' + b"[" * 100 + b"]" * 100 + b"}\n"
        for answer in (b"\n", b"hello\n", b"[]\n", b"5\n", b'{"vms": []} {}\n', b'{"vms": [}\n',
                       b'{"vms": [], \n', b"\0\n", b'{"vms": []}\0\n', b'{"vms": [{"name": "\x1b"}]}\n',
                       b'{"vms": [{"name": "\xff\xfe"}]}\n', deep, b"null\n"):
            with self.subTest(answer=answer):
                server = self.ebbd(list=answer)
                self.assert_says(self.ctl("list", rc=4), "no JSON")
                server.close()

    def test_hang_ups(self):
        for answers in (dict(list=HANG_UP), dict(hello=HANG_UP),):
            server = self.ebbd(**answers)
            self.assert_says(self.ctl("list", rc=4), "hung up")
            server.close()
        half = self.ebbd(list=b'{"vms": [')
        half.put = lambda connection, answer, put=half.put: (
            put(connection, answer), isinstance(answer, bytes) and connection.shutdown(socket.SHUT_RDWR))
        self.assert_says(self.ctl("list", rc=4), "hung up")

    def test_endless_line(self):
        self.ebbd(list=b'{"vms": "' + b"x" * (LIMIT + MIB))
        self.assert_says(self.ctl("list", rc=4), "without an end")

    def test_stall(self):
        for answers in (dict(list=STALL), dict(hello=STALL)):
            server = self.ebbd(**answers)
            self.assert_says(self.ctl("list", "--timeout", "1", rc=4), "did not answer within 1 s")
            server.close()
        server = self.ebbd(stats=STALL)
        self.assert_says(self.ctl("stats", "a", "--timeout", "1", rc=4), "did not answer within 3 s")

    def test_drip(self):
        """A byte now and then does not keep it waiting."""
        server = self.ebbd()

        def drip(request):
            def run(connection):
                try:
                    while not server.stop.is_set():
                        connection.sendall(b" ")
                        time.sleep(0.02)
                except OSError:
                    pass
            threading.Thread(target=run, args=(server.connections[-1],), daemon=True).start()
            return STALL
        server.answers["list"] = drip
        self.assert_says(self.ctl("list", "--timeout", "1", rc=4), "did not answer within 1 s")

    def test_lacking(self):
        """Answers without what they must have, or with something else in its place."""
        commands = (["list"], ["status"], ["status", "a"], ["stats", "a"], ["resize", "a", "1G"],
                    ["inhibit", "on"], ["limits"], ["flush"], ["hint", "a", "done"], ["add", "a"])
        for args in commands:
            for answer in ({}, {"vms": None, "guest": None, "rate": None},
                           {"vms": {}, "guest": [], "rate": "x", "hinting": 1, "socket": 5,
                            "balloon_bytes": []}):
                with self.subTest(args=args, answer=answer):
                    server = self.ebbd(**{args[0]: answer})
                    self.assert_says(self.ctl(*args, rc=4), "lacks what it must have")
                    server.close()
        self.ebbd(status=status(5))
        self.assert_says(self.ctl("status", "a", rc=4), "lacks")

    def test_odd_members(self):
        """What is in the VMs may be anything."""
        odd = [None, 5, "x", [], {}, {"name": None, "connected": "yes", "socket": [1]},
               {"name": "n" * 5000, "memory": 7, "discard": {"not": {"x": 1, "y": {"bytes": "z"}}}},
               {"name": "e", "connected": True, "memory": {"assigned_bytes": -5, "resident_bytes": 1e308}}]
        self.ebbd(list={"vms": odd}, status={"vms": odd})
        self.assertEqual(len(self.ctl("list").out.splitlines()), 1 + len(odd))
        self.assertEqual(len(self.ctl("status").out.splitlines()), 1 + len(odd))

    def test_long_request(self):
        self.ebbd(add={"socket": "/x"})
        self.assert_says(self.ctl("add", "x" * 5000, rc=4), "longer than 4096 bytes")

    def test_disk_full(self):
        self.ebbd(list={"vms": [{"name": "a"}]})
        with open("/dev/full", "w") as full:
            run = self.ebb("ctl", "--control", self.path, "list", rc=4, stdout=full)
        self.assert_says(run, "standard output")


class Watch(Case):
    """What tests of `ebb top` share."""

    def statuses(self, *answers):
        """ebbd gives these one after the other, the last for ever."""
        left = list(answers)
        return self.ebbd(status=lambda request: left.pop(0) if len(left) > 1 else left[0])

    def wait_blocks(self, run, n, text="TOTAL"):
        """Until that many more blocks have this text."""
        n += run.seen.count(text)
        end = time.monotonic() + SECONDS
        fd = run.process.stdout.fileno()
        while run.seen.count(text) < n:
            self.assertTrue(select.select([fd], [], [], max(0, end - time.monotonic()))[0], run.seen)
            data = os.read(fd, 65536)
            self.assertTrue(data, run.seen)
            run.seen += data.decode()


class Top(Watch):
    def top(self, *args, rc=0, **keywords):
        run = self.ebb("top", "--control", self.path, "--interval", "0.1", *args, rc=rc, **keywords)
        self.assert_plain(run)
        return run

    def once(self, *answers, args=(), rc=0):
        server = self.statuses(*answers)
        run = self.top("--once", *args, rc=rc)
        server.close()
        return self.rows(run.out) if rc == 0 else run

    def test_help(self):
        run = self.ebb("top", "--help")
        for text in ("Usage: ebb top", "--control", "--qmp", "--interval", "--once", "--sort", "WASTE"):
            self.assertIn(text, run.out)

    def test_wrong_options(self):
        for args in (["x"], ["--interval", "0"], ["--interval", "0.01"], ["--interval", "3601"],
                     ["--interval", "x"], ["--interval", "nan"], ["--interval", "1e1"], ["--interval", ""],
                     ["--interval", "-1"], ["--sort", "target"], ["--sort", "x"], ["--nonsense"],
                     ["--qmp", "x"] * 65):
            with self.subTest(args=args):
                self.assert_says(self.ebb("top", *args, rc=2), "ebb top: ")

    def test_nobody(self):
        self.assert_says(self.top(rc=4), "there is no socket", "is ebbd running")
        run = self.ebb("top", "--qmp", self.dir + "/none", rc=4)
        self.assert_says(run, "there is no socket", "is QEMU running", "-qmp")
        self.assertNotIn("/run/ebbd", run.err)

    def test_values(self):
        before = vm("web1")
        after = vm("web1", reported_bytes=300 * MIB, discard__discarded_bytes=250 * MIB,
                   memory__resident_bytes=500 * MIB, balloon__actual_bytes=64 * MIB,
                   balloon__target_bytes=128 * MIB, rate=32 * MIB, faults={"ring": 2, "pfn": 1},
                   front_ends__ended=4, front_ends__last_error="no size", inhibited=True,
                   balloon__needs_reset=True,
                   discard__latency=histogram(b9=8, b11=92, b14=10))
        rows = self.once(status(before), status(after, second=3))
        # Used by the guest are at most 1024 - 824 - 64 MiB; 160 MiB were discarded, 60 came back.
        self.assertEqual(rows["web1"], {
            "NAME": "web1", "ASSIGNED": "1G", "RESIDENT": "500M", "FREE": "824M", "WASTE": "364M",
            "REPORT/s": "100M", "RETURN/s": "80M", "REFAULT/s": "30M", "FAILED": "4M", "MOSTLY": "failed",
            "MEDIAN": "<2.05ms", "99%": "<16.4ms", "BALLOON": "64M/128M",
            "STATE": "needs reset, inhibited, at most 32M/s, 3 faults of the guest (ring), "
                     "4 front-ends ended: no size"})

    def test_totals(self):
        other = dict(memory__resident_bytes=100 * MIB)
        rows = self.once(status(vm("a"), vm("b", **other), vm("c", connected=False)),
                         status(vm("a", reported_bytes=101 * MIB), vm("b", **other, reported_bytes=103 * MIB),
                                vm("c", connected=False), second=2))
        total = rows["TOTAL"]
        self.assertEqual([total[k] for k in ("ASSIGNED", "RESIDENT", "FREE", "WASTE", "REPORT/s", "FAILED")],
                         ["2G", "700M", "1.61G", "400M", "4M", "8M"])
        self.assertEqual(rows["c"]["STATE"], "not connected")
        self.assertEqual({v for k, v in rows["c"].items() if k not in ("NAME", "STATE", "MOSTLY")}, {"-"})

    def test_unknown(self):
        """No statistics; old ones; nothing done; counted anew; not connected before."""
        rows = self.once(
            status(vm("none", guest=None), vm("old", guest__age_ns=10**12), vm("less"),
                   vm("new", connected=False), vm("idle"), vm("again")),
            status(vm("none", guest=None), vm("old", guest__age_ns=10**12), vm("less", reported_bytes=0),
                   vm("new"), vm("idle"), vm("more"),
                   vm("again", front_ends__connections=2, memory__note="a file of ext4"), second=2))
        self.assertEqual([rows["none"][k] for k in ("FREE", "WASTE", "RESIDENT")], ["-", "-", "600M"])
        self.assertEqual([rows["old"][k] for k in ("FREE", "WASTE")], ["~824M", "~400M"])
        self.assertEqual(rows["less"]["REPORT/s"], "-")
        for name in ("new", "more"):
            self.assertEqual([rows[name][k] for k in ("REPORT/s", "REFAULT/s", "MEDIAN")], ["-"] * 3)
        self.assertEqual([rows["again"][k] for k in ("REPORT/s", "REFAULT/s", "STATE")],
                         ["0", "-", "a file of ext4"])
        self.assertEqual([rows["idle"][k] for k in ("REPORT/s", "REFAULT/s", "MEDIAN")], ["0", "0", "-"])

    def test_restarted(self):
        rows = self.once(status(vm("a")), status(vm("a", reported_bytes=900 * MIB), second=2, started=9))
        self.assertEqual([rows["a"][k] for k in ("REPORT/s", "RETURN/s", "REFAULT/s", "RESIDENT")],
                         ["-", "-", "-", "600M"])

    def test_long_latency(self):
        rows = self.once(status(vm("a")), status(vm("a", discard__latency=histogram(b9=8, b11=2, b23=5)),
                                                 second=2))
        self.assertEqual(rows["a"]["MEDIAN"], ">4.19s")

    def test_sort(self):
        vms = [vm("b", memory__resident_bytes=900 * MIB, guest=None),
               vm("a", memory__resident_bytes=800 * MIB, guest__free_bytes=500 * MIB),
               vm("c", memory__resident_bytes=700 * MIB, guest__free_bytes=900 * MIB)]
        for column, order in (("name", "abc"), ("resident", "bac"), ("free", "cab"), ("waste", "cab"),
                              ("assigned", "abc"), ("latency", "abc")):
            with self.subTest(column=column):
                rows = self.once(status(*vms), status(*vms, second=2), args=("--sort", column))
                self.assertEqual("".join(rows)[:3], order)

    def test_plain_blocks(self):
        """One a time, without end; SIGTERM and SIGINT end it."""
        for number, rc in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 0)):
            server = self.statuses(status(vm("a")), status(vm("a"), second=2))
            run = self.start("top", "--control", self.path, "--interval", "0.1")
            self.wait_blocks(run, 3)
            run.process.send_signal(number)
            run.wait()
            self.assertEqual(run.rc, rc, run.describe())
            self.assert_plain(run)
            server.close()

    def test_gone_and_back(self):
        server = self.statuses(status(vm("a")), status(vm("a"), second=2))
        run = self.start("top", "--control", self.path, "--interval", "0.1")
        self.wait_blocks(run, 1, "600M")
        server.close()
        self.wait_blocks(run, 1, "gone")
        self.assertEqual(self.rows(run.seen)["a"]["STATE"], "gone")
        self.assertIn("1 VM, 1 gone", run.seen)
        self.wait_blocks(run, 1, "there is no socket")
        server.open()
        self.wait_blocks(run, 1, "600M")
        run.process.terminate()
        run.wait()

    def test_stalled(self):
        """Blocks go on, and say so; it is heard again when it answers."""
        server = self.statuses(status(vm("a")), status(vm("a"), second=2))
        run = self.start("top", "--control", self.path, "--interval", "0.1")
        self.wait_blocks(run, 1, "600M")
        server.answers["status"] = STALL
        self.wait_blocks(run, 1, "ebbd has not answered for")
        server.answers["status"] = status(vm("back"), second=9)
        server.put(server.connections[-1], server.answers["status"])
        self.wait_blocks(run, 1, "back")
        run.process.terminate()
        run.wait()

    def test_refusals(self):
        for answers, text in ((dict(hello={"error": "64 clients\x1b are connected"}), "64 clients? are"),
                              (dict(hello={"protocol": 3}), "version 3"), (dict(hello=HANG_UP), "hung up"),
                              (dict(status={"error": "no"}), "no"), (dict(status={}), "no VMs in it"),
                              (dict(status=b"\xff\n"), "no JSON"), (dict(status=b"x" * (LIMIT + MIB)),
                                                                    "without an end")):
            with self.subTest(text=text):
                server = self.ebbd(**answers)
                self.assert_says(self.top("--once", rc=4), text)
                server.close()

    def test_names(self):
        name = "a\x1b[2J\r\n\u202e\x9bb\x00c"
        rows = self.once(status(vm(name, faults={"\x1b[0m": 3}, discard__not={"\n": {"bytes": MIB}})))
        self.assertEqual(rows["a?[2J????b"]["STATE"], "3 faults of the guest (?[0m)")

    def test_mutated(self):
        """Answers with any of their parts replaced by something else."""
        rng = random.Random(e2e.SEED)
        odd = [None, True, -1, 0, 1 << 63, 1e300, -1e300, "", "x" * 300, [], [[]], {}, [None, {"bytes": []}],
               {"bytes": -5}, "\x1b\x7f\u0085"]

        def places(json_object):
            items = (json_object.items() if isinstance(json_object, dict) else
                     enumerate(json_object) if isinstance(json_object, list) else ())
            for key, value in list(items):
                yield json_object, key
                yield from places(value)

        def mutate(answer):
            for _ in range(rng.randrange(1, 6)):
                where, key = rng.choice(list(places(answer)) or [({}, 0)])
                where[key] = copy.deepcopy(rng.choice(odd))
            return answer
        n = 0

        def answer(request):
            nonlocal n
            n += 1
            return mutate(status(vm("a"), vm("b"), second=n))
        self.ebbd(status=answer)
        for _ in range(10):
            run = self.start("top", "--control", self.path, "--interval", "0.1", "--once").wait()
            self.assertIn(run.rc, (0, 4), run.describe())
            self.assert_plain(run)

    def test_many_vms(self):
        vms = [vm(f"vm{i}") for i in range(2000)]
        rows = self.once(status(*vms), status(*reversed(vms), second=2))
        self.assertEqual(len(rows), 2001)
        self.assertEqual(rows["vm7"]["REPORT/s"], "0")

    def test_disk_full(self):
        self.statuses(status(vm("a")))
        with open("/dev/full", "w") as full:
            run = self.ebb("top", "--control", self.path, "--interval", "0.1", rc=4, stdout=full)
        self.assert_says(run, "standard output")

    def test_disk_full_once(self):
        """However much there is to print: what is printed last may be nothing."""
        for n in (1, 50, 51, 52, 53, 500):
            server = self.statuses(status(*(vm(f"vm{i}") for i in range(n))))
            with open("/dev/full", "w") as full:
                run = self.ebb("top", "--control", self.path, "--interval", "0.1", "--once", rc=4, stdout=full)
            self.assert_says(run, "cannot write to standard output: No space left on device")
            server.close()

    def test_nobody_reads(self):
        """It ends when it is told to, in a pipe that is full."""
        for number, rc in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 0)):
            server = self.statuses(status(*(vm(f"vm{i}") for i in range(2000))))
            run = self.start("top", "--control", self.path, "--interval", "0.1")
            run.wait_full()
            run.process.send_signal(number)
            self.assertEqual(run.process.wait(SECONDS), rc)
            server.close()


class Qmp(Watch):
    """VMs of QEMU's own balloon."""

    def top(self, *args, rc=0, paths=None, **keywords):
        paths = paths or [os.path.join(self.dir, "q.sock")]
        run = self.ebb("top", "--interval", "0.1", *[w for p in paths for w in ("--qmp", p)], *args, rc=rc,
                       **keywords)
        self.assert_plain(run)
        return run

    def row(self, name="qemu1"):
        return self.rows(self.top("--once").out)[name]

    def test_values(self):
        self.qemu()
        row = self.row()
        self.assertEqual([row[k] for k in ("ASSIGNED", "FREE", "BALLOON", "REPORT/s", "FAILED", "MEDIAN")],
                         ["1G", "256M", "256M", "-", "-", "-"])
        self.assertEqual(row["RESIDENT"], "-")
        self.assertRegex(row["STATE"], r"^memory not found in process \d+$")

    def memory(self, pages, shared):
        """Memory of an odd size in this process, as if it were QEMU; pages of it are in use."""
        size = 203 * MIB
        if shared:
            fd = os.memfd_create("memory-backend-memfd")
            self.addCleanup(os.close, fd)
            os.ftruncate(fd, size)
            memory = mmap.mmap(fd, size, flags=mmap.MAP_SHARED)
        else:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_DONTFORK)  # keeps the kernel from joining it to other memory
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.addCleanup(memory.close)
        for page in range(pages):
            memory[page * mmap.PAGESIZE] = 1
        return size

    def check_resident(self, shared):
        size = self.memory(8 * MIB // mmap.PAGESIZE, shared)
        self.qemu(**{"query-memory-size-summary": {"base-memory": size, "plugged-memory": 53 * MIB},
                     "query-balloon": {"actual": size + 53 * MIB},
                     "qom-get /machine/peripheral/b0": {"stats": {"stat-free-memory": 252 * MIB},
                                                        "last-update": int(time.time())}})
        row = self.row()
        self.assertEqual([row[k] for k in ("ASSIGNED", "BALLOON", "STATE")], ["256M", "0", ""])
        resident = float(row["RESIDENT"].rstrip("M"))
        # Of anonymous memory what else the process took meanwhile may be counted.
        self.assertTrue(8 <= resident < 9 if shared else 6 <= resident < 12, row)
        self.assertEqual(float(row["WASTE"].rstrip("M")), resident - 4)

    def test_memfd(self):
        self.check_resident(True)

    def test_anonymous(self):
        self.check_resident(False)

    def test_unnamed(self):
        path = os.path.join(self.dir, "q.sock")
        server = self.qemu(**{
            "query-name": {}, "qom-list /machine/peripheral": [],
            "qom-list /machine/peripheral-anon": [{"name": "device[0]", "type": "child<virtio-balloon-ccw>"}],
            "qom-get /machine/peripheral-anon/device[0]": {"stats": {"stat-free-memory": MIB},
                                                           "last-update": 5}})
        row = self.row("q.sock")
        self.assertEqual(row["FREE"], "~1M")
        self.assertEqual(server.path, path)

    def test_lacking(self):
        """What QEMU cannot tell is not known."""
        for changes, key, value, text in (
                ({"query-balloon": None}, "BALLOON", "-", ""),
                ({"qom-list /machine/peripheral": None}, "FREE", "-", "no balloon"),
                ({"qom-list /machine/peripheral": [{"name": "x", "type": 5}, 7]}, "FREE", "-", "no balloon"),
                ({"qom-get /machine/peripheral/b0": None}, "FREE", "-", "no statistics"),
                ({"qom-get /machine/peripheral/b0":
                  {"stats": {"stat-free-memory": 18446744073709551615}, "last-update": 0}},
                 "FREE", "-", "no statistics"),
                ({"qom-get /machine/peripheral/b0": {"stats": {"stat-free-memory": -1}}},
                 "FREE", "-", "no statistics"),
                ({"query-balloon": {"actual": 1 << 62}}, "BALLOON", "-", ""),
                ({"query-balloon": [], "query-name": "x"}, "BALLOON", "-", "")):
            with self.subTest(changes=changes):
                server = self.qemu(**changes)
                row = self.row("q.sock" if "query-name" in changes else "qemu1")
                self.assertEqual(row[key], value)
                self.assertIn(text, row["STATE"])
                server.close()
        server = self.qemu(**{"query-memory-size-summary": None})
        self.assertEqual(self.row()["ASSIGNED"], "-")

    def test_events(self):
        """Any number of them, and answers to what others asked."""
        server = self.qemu()
        put = server.put
        noise = (b'{"event": "STOP", "data": {}}\r\n' * 300 + b'{"return": {"actual": 1}, "id": "x"}\r\n'
                 + b'{"return": {}}\r\n')
        server.put = lambda connection, answer: (connection.sendall(noise), put(connection, answer),
                                                 connection.sendall(noise))
        self.assertEqual(self.row()["BALLOON"], "256M")

    def test_hostile(self):
        for changes, greeting, text in (
                ({}, b"SSH-2.0-x\r\n", "no JSON"), ({}, b"{}\r\n", "does not greet"),
                ({}, b'{"QMP"', ""), ({}, b"x" * (LIMIT + MIB), "without an end"),
                ({"qmp_capabilities": None}, None, "refuses to talk"),
                ({"query-name": HANG_UP}, None, "hung up"), ({"query-balloon": b"\0\n"}, None, "no JSON"),
                ({"query-balloon": b"[1]\n"}, None, "no JSON")):
            with self.subTest(changes=changes, greeting=greeting and greeting[:20]):
                server = self.qemu(**changes)
                server.greeting = greeting or server.greeting
                run = self.top("--once", rc=4)
                self.assert_says(run, text)
                server.close()

    def test_names(self):
        self.qemu(**{"query-name": {"name": "q\x1b[2J\n" + "x" * 500}})
        self.assertEqual(self.row("q?[2J?" + "x" * 58)["ASSIGNED"], "1G")

    def test_gone_and_back(self):
        server = self.qemu()
        run = self.start("top", "--qmp", server.path, "--interval", "0.1")
        self.wait_blocks(run, 1, "256M")
        server.close()
        self.wait_blocks(run, 1, "gone: ")
        self.assertEqual(self.rows(run.seen)["qemu1"]["RESIDENT"], "-")
        server.open()
        self.wait_blocks(run, 1, "256M")
        run.process.terminate()
        run.wait()

    def test_stalled(self):
        """One that says nothing does not keep the others, or ebbd, from being shown."""
        self.statuses(status(vm("web1")), status(vm("web1"), second=2))
        silent = self.qemu("s.sock")
        silent.greeting = b""
        slow = self.qemu("l.sock", **{"query-balloon": STALL, "query-name": {"name": "slow"}})
        good = self.qemu()
        run = self.start("top", "--control", self.path, "--interval", "0.1", "--qmp", silent.path, "--qmp",
                         slow.path, "--qmp", good.path, "--qmp", self.dir + "/none")
        self.wait_blocks(run, 1, "no greeting for")
        self.wait_blocks(run, 3)
        rows = self.rows(run.seen)
        self.assertEqual(rows["web1"]["RESIDENT"], "600M")
        self.assertEqual(rows["qemu1"]["BALLOON"], "256M")
        self.assertIn("another client", rows["s.sock"]["STATE"])
        self.assertIn("no answer for", rows["slow"]["STATE"])
        self.assertIn("gone: there is no socket", rows["none"]["STATE"])
        run.process.terminate()
        run.wait()


class Terminal(Case):
    """On a terminal it is drawn in place."""

    def open(self, rows=24, columns=120, env=None, args=(), n=3, vms=None):
        vms = vms or [vm(f"vm{i}", memory__resident_bytes=(600 + i) * MIB) for i in range(n)]
        self.ebbd(status=lambda request: status(*vms))
        self.master, self.slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, self.slave)
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.text = ""
        return self.start("top", "--control", self.path, "--interval", "0.1", *args, stdin=self.slave,
                          stdout=self.slave, env=dict({"TERM": "xterm"}, **(env or {})))

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, done):
        end = time.monotonic() + SECONDS
        while not done(self.text):
            self.assertTrue(select.select([self.master], [], [], max(0, end - time.monotonic()))[0],
                            repr(self.text[-2000:]))
            self.text += os.read(self.master, 65536).decode()

    def frame(self, *texts):
        """A whole new frame that has these."""
        start = len(self.text)
        found = []

        def done(text):
            frames = text[start:].split("\033[H")[1:]
            found[:] = [f for f in frames if f.rstrip().endswith("\033[J") and all(t in f for t in texts)]
            return found
        self.read_until(done)
        return found[-1]

    def end(self, run, key=b"q", rc=0):
        os.write(self.master, key)
        end = time.monotonic() + SECONDS
        while run.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                self.text += os.read(self.master, 65536).decode()
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 65536).decode()
        self.assertEqual(run.process.wait(), rc)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)
        if "\033[?1049h" in self.text:
            self.assertTrue(self.text.rstrip().endswith("\033[?7h\033[?25h\033[?1049l"))

    def test_in_place(self):
        run = self.open()
        frame = self.frame("vm0", "600M", "TOTAL", "q ends")
        self.assertTrue(self.text.startswith("\033[?1049h\033[?25l\033[?7l\033[H"))
        self.assertEqual(re.sub(r"\033\[[KJ]", "", frame).count("\033"), 0)
        self.end(run)

    def test_keys(self):
        run = self.open(args=("--sort", "name"))
        order = [re.findall(r"vm\d", self.frame("by name"))]
        os.write(self.master, b"r")
        order.append(re.findall(r"vm\d", self.frame("by resident")))
        self.assertEqual(order, [["vm0", "vm1", "vm2"], ["vm2", "vm1", "vm0"]])
        os.write(self.master, b"\x1b[A?\x00z")
        self.frame("TOTAL")
        self.end(run)

    def test_interrupt(self):
        run = self.open()
        self.frame("TOTAL")
        run.process.send_signal(signal.SIGINT)
        self.end(run, b"")

    def test_terminated(self):
        run = self.open()
        self.frame("TOTAL")
        run.process.send_signal(signal.SIGTERM)
        self.end(run, b"", 128 + signal.SIGTERM)

    def test_sizes(self):
        """No frame is larger than the terminal, which may be of any size and change it."""
        run = self.open(n=40)
        for rows, columns in ((24, 80), (7, 20), (3, 10), (1, 1), (60, 300)):
            self.resize(rows, columns)
            run.process.send_signal(signal.SIGWINCH)
            start = len(self.text)
            # The first may come before ebbd's answer.
            self.read_until(lambda text: text[start:].count("\033[J") >= 3 and
                            (rows != 24 or "19 shown" in text[start:].rsplit("\033[H", 1)[0]))
            last = self.text[start:].split("\033[H")[-2]
            lines = re.sub(r"\033\[[KJ]", "", last).replace("\r", "").split("\n")
            self.assertLessEqual(len(lines), rows)
            self.assertLessEqual(max(map(len, lines)), columns)
            if rows == 24:
                self.assertIn("19 shown", last)
        self.assertIn("vm39", self.text)
        self.end(run)

    def test_long_names(self):
        """A UUID leaves room for the figures, and both its ends say which it is."""
        names = [f"1b4e28ba-2fa1-11d2-883f-0016d3cca42{i}" for i in range(3)]
        vms = [vm(name, memory__resident_bytes=(600 + i) * MIB) for i, name in enumerate(names)]
        run = self.open(columns=80, vms=vms)
        frame = self.frame("TOTAL", "FAILED\033[K")
        for i in range(3):
            self.assertRegex(frame, rf"1b\w*\.\.\w*2{i} .* {600 + i}M ")
        self.resize(24, 200)
        run.process.send_signal(signal.SIGWINCH)
        self.frame(*names)
        self.end(run)

    def test_stop_and_continue(self):
        run = self.open()
        self.frame("TOTAL")
        run.process.send_signal(signal.SIGTSTP)
        os.waitpid(run.process.pid, os.WUNTRACED)
        self.read_until(lambda text: "\033[?1049l" in text)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)
        run.process.send_signal(signal.SIGCONT)
        self.frame("TOTAL")
        self.end(run)

    def test_dumb(self):
        run = self.open(env={"TERM": "dumb"})
        self.read_until(lambda text: text.count("TOTAL") >= 2)
        self.assertNotIn("\033", self.text)
        run.process.send_signal(signal.SIGINT)
        self.end(run, b"")

    def test_once(self):
        run = self.open(args=("--once",))
        self.read_until(lambda text: "TOTAL" in text)
        self.assertNotIn("\033", self.text)
        self.end(run, b"")


class Real(e2e.Case):
    """Each command, on a real ebbd with a front-end and its guest's half of the rings."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.path = os.path.join(self.dir, "control")
        os.mkdir(os.path.join(self.dir, "vms"))
        self.daemon = subprocess.Popen(
            [e2e.EBBD, "--control", self.path, "--socket",
             os.path.join(self.dir, "a.sock"), "--socket-dir", os.path.join(self.dir, "vms"), "--stats=0"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.daemon.wait)
        self.addCleanup(self.daemon.terminate)
        wait_for("ebbd listens", lambda: listens(self.path))
        self.front = FrontEnd(os.path.join(self.dir, "a.sock")).start()
        self.addCleanup(self.front.close)

    def ctl(self, *args, rc=0):
        return self.ebb("ctl", "--control", self.path, *args, rc=rc)

    def test_commands(self):
        self.front.fill(8 * MIB, 4 * MIB)
        self.front.add(REPORTING, [(8 * MIB, 4 * MIB, WRITE)])
        for args, text in (
                (["flush"], "1 VM: nothing is under way"), (["flush", "a"], "nothing is under way"),
                (["list"], "a     yes"), (["status"], "a     serving"),
                (["status", "a"], "reported_bytes"), (["resize", "a", "48M"], "target is 16M now"),
                (["resize", "a", "--balloon", "0"], "target is 0 now"),
                (["inhibit", "on"], "not discarded"), (["inhibit", "a", "off"], "a: "),
                (["limits", "a", "64M"], "a: at most 64M/s"), (["limits", "none"], "all VMs"),
                (["hint", "a", "start"], "a: the guest sends what is free"), (["hint", "a", "done"], "a: "),
                (["add", "b"], "vms/b.sock"), (["remove", "b"], "b: removed"), (["version"], "protocol 1")):
            with self.subTest(args=args):
                self.assertIn(text, self.ctl(*args).out)
        self.assertEqual(self.front.used(REPORTING), 1)
        self.assert_says(self.ctl("stats", "a", "--timeout", "1", rc=1), "not answered in time")
        self.assert_says(self.ctl("remove", "a", rc=1), "not in the --socket-dir")
        self.assert_says(self.ctl("resize", "a", "65M", rc=1), "multiple of 4096")

    def test_top(self):
        run = self.ebb("top", "--once", "--interval", "0.2", "--control", self.path)
        rows = [line.split() for line in run.out.splitlines() if line.startswith("a ")]
        self.assertEqual([row[1] for row in rows], ["64M"])


if __name__ == "__main__":
    e2e.main()

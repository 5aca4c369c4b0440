# SPDX-License-Identifier: BSD-2-Clause
"""ebb's module (linux/) beside all else that a host and a Linux guest do with memory:
balloon, hotplug, NUMA, suspend, kexec and so on. In each case the module has a
device and reports, a load goes on beside, pages are held with a stamp in each, and the
kernel's log has to stay without a word of trouble. Afterwards memory still comes
back, all of it, and none is told twice.

By itself each case runs with one of two kernels, and few times. EBB_COEXIST=all,
or `make coexist`, runs all that there are with all kernels, among them those that
are not for clouds: an hour or two. EBB_COEXIST_HOST=ebbd has ebbd as its host, with the
newer QEMU that this needs. EBB_COEXIST_HOST=scribble has one that writes over what it is told
of, and so cannot give it back; it is for what the guest holds.
"""
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

import e2e

sys.path.append(os.path.join(e2e.HERE, "..", "vhost"))
from daemon import listens, wait_for  # noqa: E402

ALL = os.environ.get("EBB_COEXIST") == "all"
HOST = os.environ.get("EBB_COEXIST_HOST") or "qemu"
SCRIBBLE, EBBD = HOST == "scribble", HOST == "ebbd"
if HOST not in ("qemu", "scribble", "ebbd"):
    sys.exit(f"EBB_COEXIST_HOST={HOST}: it is qemu, scribble or ebbd")
KERNELS = os.environ.get("EBB_COEXIST_KERNELS", "6.12 6.1 6.12-generic 6.1-generic" if ALL else "6.12 6.1").split()
TROUBLE = re.compile(r"WARNING:|BUG:|Oops|Call Trace|hogged CPU|ebb: broken|orruption|Bad page|"
                     r"blocked for more than|soft lockup|rcu.*stall")
SLOTS = ",slots=4,maxmem=4G"
SETTLED = "report now; idle 0.3; report now"


# Properties of QEMU's balloon, and ebbd's options for the same.
BALLOON = {"page-poison=off": "--withhold=poison", "deflate-on-oom=on": "--offer=deflate-on-oom"}


def setUpModule():
    if EBBD:
        Guest.qemu = e2e.qemu_for_ebbd("NOTHING was tested on ebbd")
    for kernel in KERNELS:
        Guest.files[kernel] = e2e.linux_guest(
            "the module cannot be built here, so NOTHING was tested beside it",
            "--module", "--debug", "--kernel", kernel)
    Guest.newc = staticmethod(e2e.load_build().newc)


def contents(path):
    with open(path, "rb") as f:
        return f.read()


class Ended(Exception):
    """QEMU has ended."""


class Line:
    """A socket of QEMU's, line by line."""

    def __init__(self, path, process):
        end = time.monotonic() + e2e.PATIENCE
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise Ended() from None
                time.sleep(0.02)
        self.socket.settimeout(e2e.PATIENCE)
        self.file = self.socket.makefile("rw", encoding="utf-8", errors="replace", newline="\n")

    def write(self, text):
        self.file.write(text + "\n")
        self.file.flush()

    def read(self):
        try:
            line = self.file.readline()
        except ConnectionError:
            line = ""
        if not line:
            raise Ended()
        return line.rstrip("\r\n")

    def close(self):
        self.file.close()
        self.socket.close()


class Guest:
    """A QEMU with a Linux guest in it that does what it is told."""
    files = {}
    newc = None
    qemu = e2e.QEMU

    def __init__(self, kernel, *args, memory=512, ram=None, append="", balloon=(), slots="", itself=False,
                 env=None):
        self.directory = tempfile.TemporaryDirectory(prefix="ebb-coexist-")
        self.kernel, self.memory, self.balloon = kernel, memory, balloon
        self.args = [self.qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
                     "-accel", "tcg,thread=multi,tb-size=64",
                     *(ram or ["-machine", "q35,memory-backend=ram", "-object", self.memfd("ram", memory)]),
                     "-m", f"{memory}M{slots}",
                     "-chardev", self.chardev("qmp"), "-mon", "chardev=qmp,mode=control",
                     "-chardev", f"file,id=console,path={self.path('console')},append=on", "-serial", "chardev:console",
                     "-chardev", self.chardev("steps"), "-serial", "chardev:steps",
                     "-chardev", f"file,id=telemetry,path={self.path('telemetry')},append=on",
                     "-device", "isa-debugcon,iobase=0xe9,chardev=telemetry",
                     "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                     *self.device(),
                     "-kernel", self.files[kernel][0], "-initrd", self.initrd(itself),
                     "-append", "console=ttyS0 loglevel=7 panic=-1 nokaslr no_timer_check ebb.script=listen " + append, *args]
        if "-smp" not in args:
            self.args += ["-smp", "2"]
        self.env = env

    @staticmethod
    def memfd(name, mib):
        return f"memory-backend-memfd,id={name},size={mib}M,share=on"

    def device(self):
        if not EBBD:
            return ["-device", ",".join(["virtio-balloon-pci,id=balloon,free-page-reporting=on", *self.balloon])]
        return ["-chardev", f"socket,id=host,path={self.path('balloon.sock')}", "-device",
                "vhost-user-test-device-pci,chardev=host,virtio-id=5,num_vqs=5,vq_size=128,config_size=16"]

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def chardev(self, name):
        return f"socket,id={name},path={self.path(name)},server=on,wait=off"

    def text(self, name):
        with open(self.path(name), encoding="utf-8", errors="replace") as f:
            return f.read()

    def initrd(self, itself):
        """With the module; and, to start `itself` anew, with the kernel and this initrd."""
        vmlinuz, initrd, module = map(contents, self.files[self.kernel])
        initrd += bytes(-len(initrd) % 4) + self.newc([("modules/ebb_reporting.ko", 0o100644, module, (0, 0))])
        if itself:
            initrd += bytes(-len(initrd) % 4) + self.newc(
                [("kexec", 0o40755, b"", (0, 0)), ("kexec/vmlinuz", 0o100644, vmlinuz, (0, 0)),
                 ("kexec/initrd", 0o100644, initrd, (0, 0))])
        with open(self.path("initrd"), "wb") as f:
            f.write(initrd)
        return self.path("initrd")

    # ---- its life ----

    def start(self):
        """A Linux that boots patches its own code, which QEMU's translator gets wrong now and then."""
        for _ in range(3):
            try:
                self.start_once()
                return
            except Ended:
                self.process.wait()
                if not e2e.died_of_qemu(self.text("console")):
                    raise AssertionError(self.describe()) from None
        raise AssertionError(self.describe())

    def start_once(self):
        with contextlib.suppress(OSError):
            os.remove(self.path("console"))
        self.launch()
        self.wait_ready()

    def launch(self):
        if EBBD:
            self.launch_host()
        with open(self.path("err"), "wb") as err:
            self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                                            env=dict(os.environ, **(self.env or {})))
        self.monitor = Line(self.path("qmp"), self.process)
        self.steps = Line(self.path("steps"), self.process)
        self.monitor.read()
        self.events = []
        self.qmp("qmp_capabilities")

    def launch_host(self):
        self.close_host()
        self.host = subprocess.Popen(
            [e2e.EBBD, "--socket", self.path("balloon.sock"),
             "--control", self.path("control"), *[BALLOON[word] for word in self.balloon]],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("ebbd listens", lambda: listens(self.path("control")))

    def close_host(self):
        if getattr(self, "host", None):
            self.host.terminate()
            self.host.wait()

    def wait_ready(self):
        while not self.steps.read().endswith("ready"):
            pass

    def describe(self):
        return self.text("console")[-20000:] + self.text("err")

    def log(self):
        """What the kernel says from the moment on that the module is there."""
        text = self.text("console")
        return text[text.find("ebb_reporting"):]

    def end(self):
        """It says goodbye, all that it holds is as it was."""
        self.steps.write("end")
        rc = self.process.wait(e2e.PATIENCE)
        (end,) = re.findall(r"(?m)^end .*", self.text("telemetry"))[-1:] or [""]
        if rc != 1 or " status=0 " not in end or " errors=0" not in end:
            raise AssertionError(f"exit {rc}: {end}\n{self.describe()}")

    def close(self):
        for line in (getattr(self, "monitor", None), getattr(self, "steps", None)):
            if line:
                line.close()
        if getattr(self, "process", None) and self.process.poll() is None:
            self.process.kill()
        if getattr(self, "process", None):
            self.process.wait()
        self.close_host()
        self.directory.cleanup()

    # ---- what it is told ----

    def send(self, steps):
        self.steps.write(steps)

    def answer(self):
        said = []
        while True:
            line = self.steps.read()
            if line.startswith("done "):
                return int(line.split()[1]), "\n".join(said)
            said.append(line)

    def do(self, steps):
        """Do these steps; what they print."""
        try:
            self.send(steps)
            status, said = self.answer()
        except (Ended, OSError) as error:
            raise AssertionError(f"{steps}: {error!r}\n{self.describe()}") from None
        if status != 0 or "cannot write" in said:
            raise AssertionError(f"{steps}: {status}: {said}\n{self.describe()}")
        return said

    def numbers(self):
        return {key: int(value) for key, value in re.findall(r"(?m)^(\w+) (\d+)$", self.do("module show"))}

    def qmp(self, command, **arguments):
        self.monitor.write(json.dumps({"execute": command, "arguments": arguments}))
        while True:
            answer = json.loads(self.monitor.read())
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise AssertionError(f"{command}: {answer}")
            else:
                return answer["return"]

    def control(self, *words):
        """ebbd's answer."""
        return json.loads(subprocess.run([e2e.EBB, "ctl", "--control", self.path("control"), "--json", *words],
                                         check=True, stdout=subprocess.PIPE, timeout=e2e.PATIENCE).stdout)

    def left_mib(self):
        """What the balloon leaves to the guest."""
        if not EBBD:
            return self.qmp("query-balloon")["actual"] >> 20
        (vm,) = self.control("status", "balloon")["vms"]
        return self.memory - (vm["balloon"]["actual_bytes"] >> 20)

    def resize(self, mib):
        if EBBD:
            self.control("resize", "balloon", "--balloon=" + (f"{self.memory - mib}M" if mib < self.memory else "0"))
        else:
            self.qmp("balloon", value=mib << 20)
        self.until(lambda: self.left_mib() == mib, f"a balloon that leaves {mib} MiB")

    def until(self, condition, what):
        end = time.monotonic() + e2e.PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"never: {what}\n{self.describe()}")
            time.sleep(0.05)

    def wait_event(self, name):
        self.until(lambda: self.qmp("query-status") and name in [e["event"] for e in self.events], name)

    def host_mib(self):
        """Of its memory, what the host holds."""
        held = {}
        for fd in os.listdir(f"/proc/{self.process.pid}/fd"):
            path = f"/proc/{self.process.pid}/fd/{fd}"
            with contextlib.suppress(OSError):
                if "memfd:" in os.readlink(path):
                    st = os.stat(path)
                    held[st.st_ino] = st.st_blocks / 2048
        return sum(held.values())


class Base(e2e.Case):
    trouble = TROUBLE

    @contextlib.contextmanager
    def guest(self, kernel, args=(), share=30, **options):
        """From here on the module reports, stamped pages are held, and a load goes on beside; of this
        share of its memory, in percent."""
        if SCRIBBLE:
            options["env"] = {"LD_PRELOAD": self.shim()}
        guest = Guest(kernel, *args, **options)
        try:
            guest.start()
            guest.do(f"module wait; fragment {share}% 8; {SETTLED}; load {share // 2}%")
            yield guest
            self.check_sound(guest, share)
        finally:
            guest.close()

    def shim(self):
        path = os.path.join(tempfile.mkdtemp(prefix="ebb-coexist-"), "scribble.so")
        self.addCleanup(subprocess.run, ["rm", "-rf", os.path.dirname(path)], check=False)
        cc = os.environ.get("CC", "cc").split()
        subprocess.run([*cc, "-shared", "-fPIC", "-O2", "-o", path, os.path.join(e2e.HERE, "scribble.c")],
                       check=True)
        return path

    def check_sound(self, guest, share):
        """Memory still comes back and none is told twice; nothing was lost, and no word of trouble."""
        guest.do("load off; verify")
        self.check_back(guest, share)
        self.assertEqual(guest.numbers()["failed_batches"], 0)
        guest.end()
        self.assertIsNone(self.trouble.search(guest.log()), guest.describe())

    def check_back(self, guest, share):
        guest.do(SETTLED)
        before, told = guest.host_mib(), guest.numbers()["told_kib"]
        taken = int(re.search(r"memhog: (\d+) MiB taken", guest.do(f"memhog {share}%; {SETTLED}"))[1])
        after, numbers = guest.host_mib(), guest.numbers()
        print(f"{guest.kernel}: of {taken} MiB {after - before:.1f} not back; longest hold "
              f"{numbers['longest_hold_us']} us, {numbers['passes']} passes, "
              f"{numbers['scan_ms']} ms of looking", flush=True)
        if SCRIBBLE:  # the garbage is there
            self.assertGreater(after, 0.7 * guest.memory)
        else:
            self.assertLess(after, before + taken / 50 + 4, numbers)
        self.assertGreater(numbers["told_kib"] - told, taken * 1024 * 0.9, numbers)
        self.assertEqual(numbers["waiting_window_kib"], 0, numbers)
        guest.do(SETTLED)
        again = guest.numbers()
        used = sum(again[name] - numbers[name] for name in ("refaulted_kib", "marks_lost_kib"))
        # A few huge pages may be the guest's own, in use at one look and freed at the next.
        self.assertLess(again["told_kib"] - numbers["told_kib"] - used, 8192, (numbers, again))

    def each(self, body, here="6.12", **options):
        """By itself only with this kernel."""
        for kernel in KERNELS if ALL else [here]:
            with self.subTest(kernel=kernel), self.guest(kernel, **options) as guest:
                body(guest)

    def setting(self, append, here="6.12", **options):
        self.each(lambda guest: guest.do("idle 1; load off; cycle 8% 50 1"), here, append=append, **options)


class Coexist(Base):
    # ---- settings of the guest, nothing happens ----

    def test_shuffle(self):
        self.setting("page_alloc.shuffle=1", "6.1")

    def test_init_on_free(self):
        if not SCRIBBLE:  # whoever writes there breaks the promise that it gave
            self.setting("init_on_free=1")

    def test_without_poison(self):
        """A guest that wants its free memory to stay zero, and a host that does not promise that."""
        def body(guest):
            guest.do("idle 4")
            self.assertIn("state no-device", guest.do("module show"))
            guest.end()
        kernel = KERNELS[-1]
        guest = Guest(kernel, append="init_on_free=1", balloon=["page-poison=off"])
        self.addCleanup(guest.close)
        guest.start()
        body(guest)

    def test_thp(self):
        self.setting("ebb.thp=always", "6.1")
        if ALL:
            self.setting("ebb.thp=never")

    def test_numa(self):
        """Four nodes and eight CPUs."""
        objects = [word for i in range(4) for word in
                   ("-object", Guest.memfd(f"ram{i}", 192),
                    "-numa", f"node,nodeid={i},memdev=ram{i},cpus={2 * i}-{2 * i + 1}")]
        self.setting("", args=("-smp", "8"), memory=768, ram=["-machine", "q35", *objects])

    def test_small(self):
        """What Debian's kernels leave of these is about 64 MiB; in less than 96 they do not boot."""
        self.setting("cryptomgr.notests", "6.1", args=("-smp", "1"), memory=104, share=20)

    # ---- the balloon's other work ----

    def test_inflate(self):
        """And statistics; ebbd asks for them by itself."""
        balloon = "/machine/peripheral/balloon"

        def body(guest):
            if not EBBD:
                guest.qmp("qom-set", path=balloon, property="guest-stats-polling-interval", value=1)
            for _ in range(20 if ALL else 3):
                guest.resize(384)
                guest.do("idle 0.3; verify")
                guest.resize(512)
            guest.resize(400)
            guest.do(SETTLED)
            if not SCRIBBLE:
                self.assertLess(guest.host_mib(), 400)
            if not EBBD:
                self.check_stats(guest, balloon)
            guest.resize(512)
        self.each(body)

    def check_stats(self, guest, balloon):
        guest.until(lambda: guest.qmp("qom-get", path=balloon, property="guest-stats")["last-update"] > 0,
                    "statistics")
        stats = guest.qmp("qom-get", path=balloon, property="guest-stats")["stats"]
        self.assertGreater(stats["stat-total-memory"], 250 << 20)
        self.assertLess(stats["stat-free-memory"], 400 << 20)

    def test_oom(self):
        """The kernel kills a process where nothing else helps, and takes from the balloon before."""
        self.trouble = re.compile(TROUBLE.pattern.replace("Call Trace|", ""))

        def body(guest):
            guest.resize(256)
            self.assertIn("squeeze: taken", guest.do("squeeze 240M"))
            self.assertGreater(guest.left_mib(), 256)
            self.assertIn("squeeze: killed", guest.do("squeeze 600M"))
            guest.resize(512)
        self.each(body, "6.1", balloon=["deflate-on-oom=on"])

    def test_cgroup(self):
        self.trouble = re.compile(TROUBLE.pattern.replace("Call Trace|", ""))

        def body(guest):
            for _ in range(3):
                self.assertIn("squeeze: killed", guest.do("squeeze 120M 50M"))
                self.assertIn("squeeze: taken", guest.do("squeeze 40M 50M"))
        self.each(body)

    # ---- memory and CPUs that come and go ----

    def test_dimm(self):
        """Added, onlined, used, offlined, removed."""
        def body(guest):
            for i in range(6 if ALL else 2):
                self.dimm_comes(guest, i)
                blocks = self.blocks_of(guest)
                for block in blocks:
                    guest.do(f"write {block} online_movable")
                guest.do(f"load off; memhog 60%; {SETTLED}" if i == 0 else "load 15%; memhog 60%")
                before = guest.numbers()["refaulted_kib"]
                for block in blocks:
                    guest.until(lambda: "offline" in self.offline(guest, block), "offline")
                # What goes was reported, and is not in use.
                if i == 0:
                    self.assertLess(guest.numbers()["refaulted_kib"] - before, 64 << 10)
                self.dimm_goes(guest, i)
        self.each(body, append="memhp_default_state=offline", slots=SLOTS)

    def dimm_comes(self, guest, i):
        guest.qmp("object-add", **{"qom-type": "memory-backend-memfd", "id": f"more{i}", "size": 256 << 20})
        guest.qmp("device_add", driver="pc-dimm", id=f"dimm{i}", memdev=f"more{i}")

    def blocks_of(self, guest):
        """The files that are its state, in the guest, once they are there."""
        (device,) = guest.qmp("query-memory-devices")
        first = device["data"]["addr"] >> 27
        blocks = [f"/sys/devices/system/memory/memory{first + i}/state" for i in range(2)]
        for block in blocks:
            guest.until(lambda: "offline" in guest.do(f"read {block}"), "a block of memory")
        return blocks

    def offline(self, guest, block):
        """Pages may be in use for a moment, so that it takes more than one try."""
        guest.send(f"write {block} offline; read {block}")
        return guest.answer()[1].split("\n")[-1]

    def dimm_goes(self, guest, i):
        guest.qmp("device_del", id=f"dimm{i}")
        guest.until(lambda: not guest.qmp("query-memory-devices"), "removal")
        guest.qmp("object-del", id=f"more{i}")

    def test_virtio_mem(self):
        def body(guest):
            for mib in (256, 100, 200, 0) * (5 if ALL else 1):
                guest.qmp("qom-set", path="/machine/peripheral/vmem", property="requested-size", value=mib << 20)
                guest.until(lambda: guest.qmp("qom-get", path="/machine/peripheral/vmem", property="size")
                            == mib << 20, f"virtio-mem of {mib} MiB")
                guest.do("idle 0.5")
        self.each(body, append="memhp_default_state=online_movable", slots=SLOTS,
                  args=("-object", Guest.memfd("more", 512),
                        "-device", "virtio-mem-pci,id=vmem,memdev=more,requested-size=0"))

    def test_cpus(self):
        def body(guest):
            online = "/sys/devices/system/cpu/cpu1/online"
            for _ in range(20 if ALL else 3):
                guest.do(f"write {online} 0; idle 0.2; write {online} 1; idle 0.1")
        self.each(body, "6.1")


class Long(Base):
    def test_suspend(self):
        """To RAM, with the load under way. Once: the second time this QEMU does not suspend. (One run in
        several ended QEMU at the wake-up: not in CI.)"""
        def body(guest):
            guest.send("write /sys/power/state mem")
            guest.wait_event("SUSPEND")
            guest.qmp("system_wakeup")
            self.assertEqual(guest.answer(), (0, ""))
            guest.do("idle 0.5; verify")
        self.each(body)

    def test_hints(self):
        """A migration to a file, with hints of free pages; then the guest goes on where it was. (QEMU 7.2
        with TCG loses pages that are written meanwhile, without the module, too: not where it went.)"""
        if EBBD:
            self.skipTest("QEMU does not migrate a guest whose device is another process's")

        def body(guest):
            guest.qmp("migrate", uri=f"exec:cat > {guest.path('state')}")
            guest.until(lambda: guest.qmp("query-migrate")["status"] in ("completed", "failed"), "migration")
            self.assertEqual(guest.qmp("query-migrate")["status"], "completed")
            guest.qmp("cont")
            guest.do("verify")
        self.each(body, args=("-object", "iothread,id=io"), balloon=["free-page-hint=on", "iothread=io"])

    def test_large(self):
        self.setting("", memory=16384, share=6)

    def test_page_poison(self):
        """Freed pages have to stay poisoned, so the host gives none back. Not in kernels for clouds."""
        for kernel in [k for k in KERNELS if "generic" in k]:
            with self.subTest(kernel=kernel):
                guest = Guest(kernel, append="page_poison=1")
                self.addCleanup(guest.close)
                guest.start()
                guest.do("module wait; fragment 30% 8; cycle 30% 50 2; memhog 30%; report now; verify")
                told = guest.numbers()["told_kib"]
                self.assertGreater(told, 0.3 * 512 * 1024)
                self.assertGreater(guest.host_mib(), 0.3 * 512)
                guest.end()
                self.assertIsNone(self.trouble.search(guest.log()), guest.describe())

    def test_kexec(self):
        """Into itself: the new kernel finds memory that the host was told of by the old one."""
        def body(guest):
            guest.send("kexec")
            guest.wait_ready()
            guest.do("module wait; fragment 30% 8; load 15%; cycle 20% 50 2")
        self.each(body, itself=True, memory=768)

    def test_rebound(self):
        self.each(lambda guest: guest.do("module rebind 100; module wait"))

    def test_reloaded(self):
        self.each(lambda guest: guest.do("module again 200; cycle 30% 50 60; module wait"))


if not ALL:
    del Long

e2e.need_qemu()
if __name__ == "__main__":
    e2e.main()

# SPDX-License-Identifier: BSD-2-Clause
"""The units under a systemd that is init: of a Linux that boots in QEMU, with the programs and the
systemd of this machine in an initrd. What is tried there is in systemd_guest.py, the guest's own
test program, which says on the console what it saw.
"""
import gzip
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import unittest

import e2e

VHOST = os.path.join(e2e.HERE, "..", "vhost")
DIST = os.path.join(e2e.HERE, "..", "..", "dist", "systemd")
SYSTEMD = "/lib/systemd"
PROGRAMS = ["/bin/sh", "/bin/cp", "/bin/mkdir", "/bin/mount", "/bin/systemctl", "/sbin/switch_root", sys.executable]
# Those of its units that ebbd's stand on.
UNITS = ["basic.target", "multi-user.target", "paths.target", "shutdown.target", "slices.target", "sockets.target",
         "sysinit.target", "timers.target"]
# systemd's file system namespaces want a root that is not the initrd's own.
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t tmpfs -o mode=755 root /sysroot
cd /sysroot && mkdir -m 755 proc sys dev run tmp var home
cp -a %s .
exec switch_root . /lib/systemd/systemd
"""
FILES = {
    "etc/passwd": "root:x:0:0::/:/bin/sh\nebb:x:900:900::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    "etc/group": "root:x:0:\nebb:x:900:\nebb-ops:x:901:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/os-release": "ID=test\n",
    "etc/systemd/system.conf": "[Manager]\nShowStatus=no\n",
    "etc/systemd/system/default.target": "[Unit]\nRequires=multi-user.target test.service\n",
    "etc/systemd/system/test.service": """[Unit]
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
After=sockets.target
Wants=ebbd.socket ebbd-metrics.socket
[Service]
ExecStart=%s /usr/lib/test/systemd_guest.py
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
Environment=PYTHONDONTWRITEBYTECODE=1
""" % sys.executable,
}


def setUpModule():
    untested = "NOTHING was tested under a systemd that is init"
    if not e2e.QEMU:
        e2e.skip_all(f"qemu-system-x86_64 is not installed (Debian: qemu-system-x86): {untested}")
    for path in [SYSTEMD + "/systemd", *PROGRAMS]:
        if not os.path.exists(path):
            e2e.skip_all(f"{path} is missing (Debian: systemd, util-linux): {untested}")
    Boot.kernel, _ = e2e.linux_guest(untested)
    Boot.newc = staticmethod(e2e.load_build().newc)


class Image:
    """A file tree of this machine's files and others, with the libraries that the programs need."""

    def __init__(self):
        self.entries = {}
        for name in ("sysroot", "proc", "sys", "run", "dev", "root"):
            self.add_dir(name)
        self.entries["dev/console"] = (stat.S_IFCHR | 0o600, b"", (5, 1))
        for name in ("bin", "sbin", "lib", "lib64"):
            self.add_dir("usr/" + name)
            self.entries[name] = (stat.S_IFLNK | 0o777, b"usr/" + name.encode(), (0, 0))

    def add_dir(self, name):
        if os.path.dirname(name) and os.path.dirname(name) not in self.entries:
            self.add_dir(os.path.dirname(name))
        self.entries.setdefault(name, (stat.S_IFDIR | 0o755, b"", (0, 0)))

    @staticmethod
    def place(path):
        """Where it goes: below usr, as this machine may or may not have it."""
        name = path.lstrip("/")
        return "usr/" + name if re.match("(bin|sbin|lib|lib64)/", name) else name

    def add(self, name, content, mode=0o644):
        name = self.place(name)
        if os.path.dirname(name):
            self.add_dir(os.path.dirname(name))
        self.entries[name] = (stat.S_IFREG | mode, content, (0, 0))

    def copy(self, path, name=None):
        """With what it is linked with."""
        if self.place(name or path) in self.entries:
            return
        with open(path, "rb") as f:
            content = f.read()
        self.add(name or path, content, stat.S_IMODE(os.stat(path).st_mode))
        if content[:4] == b"\x7fELF":
            linked = subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
                                    check=False).stdout
            for library in re.findall(r"(?:=> |^\s+)(/\S+) \(", linked, re.M):
                self.copy(library)

    def copy_python(self, *paths):
        """The modules of the library that these programs import."""
        code = "import runpy, sys\nfor p in sys.argv[1:]: runpy.run_path(p)\n" \
               "print(*sorted({m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)}), sep='\\n')"
        env = dict(os.environ, PYTHONPATH=VHOST, PYTHONDONTWRITEBYTECODE="1")
        done = subprocess.run([sys.executable, "-c", code, *paths], stdout=subprocess.PIPE, text=True, check=True, env=env)
        library = os.path.realpath(sysconfig.get_paths()["stdlib"])
        for path in done.stdout.split():
            if os.path.realpath(path).startswith(library):
                self.copy(path)

    def archive(self, newc):
        return newc([(name, *entry) for name, entry in self.entries.items()])


class Boot(unittest.TestCase):
    kernel = newc = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebb-systemd-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.initrd = os.path.join(self.dir, "initrd")

    def make_initrd(self):
        image = Image()
        image.copy("/etc/ld.so.cache")
        for path in PROGRAMS:
            image.copy(path)
        for name in ("systemd", "systemd-executor"):
            if os.path.exists(f"{SYSTEMD}/{name}"):
                image.copy(f"{SYSTEMD}/{name}")
        for name in UNITS:
            image.copy(f"{SYSTEMD}/system/{name}")
        for name, text in FILES.items():
            image.add(name, text.encode())
        build = os.path.dirname(e2e.EBB)
        image.copy(os.path.join(build, "ebbd", "ebbd"), "/usr/sbin/ebbd")
        image.copy(os.path.join(build, "ebbd-vm", "ebbd-vm"), "/usr/sbin/ebbd-vm")
        for name in os.listdir(DIST):
            with open(os.path.join(DIST, name)) as f:
                text = f.read().replace("@sbindir@", "/usr/sbin").replace("@libexecdir@", "/usr/sbin")
            image.add("etc/systemd/system/" + name.removesuffix(".in"), text.encode())
            if ".service" in name:
                image.add(f"etc/systemd/system/{name.removesuffix('.in')}.d/log.conf",
                          b"[Service]\nStandardError=append:/run/log\n")
        guest = os.path.join(e2e.HERE, "systemd_guest.py")
        image.copy_python(guest)
        for path in (guest, os.path.join(VHOST, "frontend.py"), os.path.join(VHOST, "daemon.py")):
            image.copy(path, "/usr/lib/test/" + os.path.basename(path))
        own = {name.split("/")[0] for name in image.entries} - {"sysroot", "proc", "sys", "run", "dev"}
        image.add("init", (INIT % " ".join(f"/{name}" for name in sorted(own))).encode(), 0o755)
        with open(self.initrd, "wb") as f:
            f.write(gzip.compress(image.archive(self.newc), 1))

    def boot(self):
        """What its console said."""
        done = subprocess.run(
            [e2e.QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg,thread=multi",
             "-M", "q35", "-cpu", "max", "-smp", "2", "-m", "1G", "-serial", "stdio", "-kernel", self.kernel, "-initrd",
             self.initrd, "-append", "console=ttyS0 loglevel=6 panic=-1 nokaslr no_timer_check printk.devkmsg=on "
             "random.trust_cpu=on systemd.log_level=warning"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * e2e.PATIENCE, check=False)
        return done.stdout.decode(errors="replace")

    def test_units(self):
        self.make_initrd()
        for _ in range(3):
            console = self.boot()
            if not e2e.died_of_qemu(console):
                break
        self.assertRegex(console, r"(?m)^ebb-systemd: \d+ passed\r?$")


if __name__ == "__main__":
    e2e.main()

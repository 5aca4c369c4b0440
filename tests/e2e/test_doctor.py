# SPDX-License-Identifier: BSD-2-Clause
"""`ebb doctor`: what it finds wrong with QEMUs that run, their monitors, and the VMs of ebbd. Other VMs
of this machine are in what it prints, too, so each here has a name of its own."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import e2e

sys.path.append(os.path.join(e2e.HERE, "..", "vhost"))
from daemon import Control, listens, wait_for  # noqa: E402
from frontend import FrontEnd  # noqa: E402

REPORTS = "virtio-balloon-pci,free-page-reporting=on"


class Doctor(e2e.Case):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.name = os.path.basename(self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def spawn(self, *argv, **keywords):
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **keywords)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def qemu(self, *args, name=None):
        """Its guest does not run, unless it has a kernel."""
        self.spawn(e2e.QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,tb-size=64", "-M",
                   "q35", "-m", "128M", "-name", name or self.name, "-qmp",
                   f"unix:{self.path('qmp')},server=on,wait=off", *args)
        wait_for("QEMU's monitor listens", lambda: os.path.exists(self.path("qmp")))

    def pretend(self, *args):
        """A process with such a command line."""
        self.spawn("bash", "-c", 'exec -a qemu-system-x86_64 "$0" -c "import time; time.sleep(600)" "$@"',
                   sys.executable, "-name", self.name, *args)

    def found(self, *args, about=None):
        """{text: kind} of what it finds about one."""
        done = subprocess.run([e2e.EBB, "doctor", "--control", self.path("control"), "--json", *args],
                              capture_output=True, text=True, timeout=e2e.PATIENCE)
        self.assertEqual(done.stderr, "")
        findings = json.loads(done.stdout)["findings"]
        self.assertEqual(done.returncode, any(one["kind"] == "wrong" for one in findings))
        self.remedies = {one["text"]: one.get("remedy") for one in findings}
        return {one["text"]: one["kind"] for one in findings if one["about"] == (about or self.name)}

    def test_host(self):
        done = subprocess.run([e2e.EBB, "doctor"], capture_output=True, text=True, timeout=e2e.PATIENCE)
        self.assertIn(done.returncode, (0, 1))
        for text in ("host\n", "kvm", "QEMU", "memory files (memfd)", "transparent huge pages", "Landlock", "cgroup",
                     "descriptors", "ebbd", " wrong, "):
            self.assertIn(text.lower(), done.stdout.lower())
        host = self.found(about="host")
        self.assertIn("note", [kind for text, kind in host.items() if "ebbd does not run here" in text])

    def test_options(self):
        for args, said in ((["vm1"], "unexpected argument 'vm1'"), (["--qmp"], "requires an argument")):
            done = subprocess.run([e2e.EBB, "doctor", *args], capture_output=True, text=True, timeout=e2e.PATIENCE)
            self.assertEqual(done.returncode, 2)
            self.assertIn(said, done.stderr)

    def test_no_balloon(self):
        self.qemu("-S")
        (text, kind), = self.found().items()
        self.assertEqual(kind, "wrong")
        self.assertIn("free-page-reporting=on", self.remedies[text])

    def test_balloons(self):
        """As people write it, and as libvirt does."""
        for device, kind in ((REPORTS, "ok"), ("virtio-balloon-pci", "wrong"),
                             ('{"driver":"virtio-balloon-pci","id":"b","free-page-reporting":true}', "ok"),
                             ('{"driver":"virtio-balloon-pci","id":"b","free-page-reporting":false}', "wrong")):
            with self.subTest(device):
                self.setUp()
                self.qemu("-S", "-device", device, name=f"guest={self.name},debug-threads=on")
                self.assertEqual(list(self.found().values()), [kind])

    def test_pinned(self):
        for args in (["-device", "vfio-pci,host=01:00.0"], ["-overcommit", "mem-lock=on"],
                     ["-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on,hugetlbsize=1G"]):
            with self.subTest(args):
                self.setUp()
                self.pretend("-device", REPORTS, *args)
                wait_for("it is seen", self.found)
                self.assertEqual(sorted(self.found().values()), ["ok", "wrong"])

    def test_names_of_others(self):
        """A command line is its user's: what a terminal could act on, or a line of its own, does not get through."""
        self.spawn("bash", "-c", 'exec -a qemu-system-x86_64 "$0" -c "import time; time.sleep(600)" "$@"',
                   sys.executable, "-name", self.name + "\033]0;x\a\n  wrong  forged")
        text = wait_for("it is seen", lambda: self.text_with(self.name))
        self.assertNotIn("\033", text)
        self.assertNotIn("\n  wrong  forged", text)

    def text_with(self, name):
        done = subprocess.run([e2e.EBB, "doctor", "--control", self.path("control")], capture_output=True, text=True,
                              timeout=e2e.PATIENCE)
        return done.stdout if name in done.stdout else None

    def test_back_end(self):
        """A balloon that is ebbd's needs memory that is shared."""
        device = ["-device", "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=5"]
        for memory, kind in (([], "wrong"), (["-object", "memory-backend-memfd,id=m,size=1G,share=off"], "wrong"),
                             (["-object", "memory-backend-memfd,id=m,size=1G,share=on"], "ok")):
            with self.subTest(memory):
                self.setUp()
                self.pretend(*device, *memory)
                wait_for("it is seen", self.found)
                self.assertEqual(list(self.found().values()), [kind])

    def test_statistics(self):
        """By QEMU's monitor: whether it asks, and whether the guest's driver answers."""
        self.qemu("-S", "-device", REPORTS + ",id=b")
        found = self.found("--qmp", self.path("qmp"))
        self.assertEqual(sorted(found.values()), ["note", "ok"])
        (note,) = [text for text, kind in found.items() if kind == "note"]
        poll = json.loads(self.remedies[note])
        self.assertEqual(poll["arguments"]["path"], "/machine/peripheral/b")
        qmp = Control(self.path("qmp"))
        qmp.line()
        qmp.send(b'{"execute":"qmp_capabilities"}\n' + json.dumps(poll).encode() + b"\n")
        self.assertEqual((qmp.line(), qmp.line()), ({"return": {}}, {"return": {}}))
        # Who is not served is told so.
        self.assertEqual(self.found("--qmp", self.path("qmp"), about=self.path("qmp")),
                         {"QEMU's monitor does not answer": "wrong"})
        qmp.close()
        found = wait_for("it is served", lambda: self.found("--qmp", self.path("qmp")))
        self.assertIn("modprobe virtio_balloon", [self.remedies[text] for text in found if self.remedies[text]][0])

    def test_driver_answers(self):
        self.qemu("-device", REPORTS + ",id=b", "-kernel", e2e.GUEST, "-append", 'script="idle 600"')
        qmp = Control(self.path("qmp"))
        qmp.line()
        qmp.send(b'{"execute":"qmp_capabilities"}\n{"execute":"qom-set","arguments":{"path":"/machine/peripheral/b",'
                 b'"property":"guest-stats-polling-interval","value":1}}\n')
        self.assertEqual((qmp.line(), qmp.line()), ({"return": {}}, {"return": {}}))
        qmp.close()
        wait_for("its driver answers", lambda: any(
            "driver answers" in text for text in self.found("--qmp", self.path("qmp"))))
        self.assertEqual(set(self.found("--qmp", self.path("qmp")).values()), {"ok"})

    def test_no_monitor(self):
        self.assertEqual(list(self.found("--qmp", self.path("none"), about=self.path("none")).values()), ["wrong"])

    def test_ebbd(self):
        self.spawn(e2e.EBBD, "--socket", self.path(self.name + ".sock"), "--control", self.path("control"),
                   stderr=subprocess.DEVNULL)
        wait_for("ebbd listens", lambda: listens(self.path("control")))
        self.assertIn("ok", [kind for text, kind in self.found(about="host").items() if text.startswith("ebbd ")])
        self.assertEqual(self.found(), {"ebbd waits for it": "note"})
        control = Control(self.path("control"))
        control.ask("inhibit", vm=self.name, on=True)
        self.found()
        self.assertIn(f"ebb ctl inhibit {self.name} off", self.remedies.values())
        control.ask("inhibit", vm=self.name, on=False)
        control.close()
        with FrontEnd(self.path(self.name + ".sock")) as front:
            wait_for("it is connected", lambda: "the VM shares no memory with ebbd" in self.found())
            front.start()
            found = wait_for("it has memory", lambda: self.found() if "ok" in self.found().values() else None)
            self.assertEqual(list(found), ["the guest reports free pages to ebbd, and sends statistics"])


if __name__ == "__main__":
    e2e.need_qemu()
    e2e.main()

# SPDX-License-Identifier: BSD-2-Clause
"""A real Prometheus scrapes a real ebbd with VMs on it, knows what ebbd's control socket tells, and
answers every question of the dashboard. If none is installed, Debian's package is unpacked into
$EBB_PROMETHEUS_DIR, or else the build directory; it is not installed, so nothing of it stays running.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import e2e

ROOT = os.path.join(e2e.HERE, "..", "..")
sys.path.append(os.path.join(ROOT, "tests", "vhost"))
from daemon import Control, listens  # noqa: E402
from frontend import FrontEnd, MIB, REPORTING, STATS, WRITE  # noqa: E402

LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get_prometheus():
    installed = shutil.which("prometheus")
    if installed:
        return installed
    kept = os.path.abspath(os.environ.get("EBB_PROMETHEUS_DIR") or os.path.join(
        os.path.dirname(os.path.dirname(e2e.EBB)), "prometheus"))
    program = os.path.join(kept, "usr", "bin", "prometheus")
    if os.path.exists(program):
        return program
    if not shutil.which("apt-get"):
        e2e.skip_all("there is no Prometheus here: ebbd's metrics were NOT scraped by one")
    os.makedirs(kept, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as work:
        os.chmod(work, 0o755)  # for apt's own user
        why = None
        for command in (["apt-get", "update", "-q"], ["apt-get", "download", "-q", "prometheus"]):
            try:
                done = subprocess.run(command, cwd=work, text=True, capture_output=True, timeout=90)
                why = done.stderr if done.returncode else None
            except subprocess.TimeoutExpired:
                why = "it takes too long"
        if why:
            e2e.skip_all("apt-get cannot fetch the package prometheus: ebbd's metrics were NOT scraped "
                         f"by one: {why}")
        (deb,) = os.listdir(work)
        subprocess.run(["dpkg-deb", "-x", os.path.join(work, deb), kept], check=True)
    return program


def setUpModule():
    Prometheus.program = get_prometheus()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Prometheus(e2e.Case):
    program = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def launch(self, *argv):
        """In a directory of its own, until the test ends; what it says goes to a file."""
        log = open(self.path(os.path.basename(argv[0]) + ".log"), "w+")
        self.addCleanup(log.close)
        process = subprocess.Popen(argv, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT)

        def end():
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)
        self.addCleanup(end)
        return process

    def wait_for(self, what, condition, seconds=e2e.PATIENCE):
        end = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                with open(self.path("prometheus.log")) as f:
                    raise AssertionError(f"waited for {seconds} s: {what}; Prometheus says:\n{f.read()[-3000:]}")
            time.sleep(0.1)

    def api(self, path, **query):
        """None: it does not listen yet, or is not ready."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with LOOPBACK.open(url, timeout=e2e.PATIENCE) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise AssertionError(f"{url}: {error.read().decode()}") from error
        except OSError:
            return None

    def ask(self, question):
        """{labels: value} of an instant."""
        answer = self.wait_for("Prometheus answers", lambda: self.api("query", query=question))
        self.assertEqual(answer["status"], "success", answer)
        return {tuple(sorted(one["metric"].items())): float(one["value"][1])
                for one in answer["data"]["result"]}

    def target(self):
        targets = (self.api("targets") or {"data": {"activeTargets": []}})["data"]["activeTargets"]
        return targets[0] if targets and targets[0]["health"] != "unknown" else None

    def begin(self):
        scraped, self.port = free_port(), free_port()
        self.launch(e2e.EBBD, "--socket", self.path("a.sock"), "--socket", self.path("b.sock"), "--control",
                    self.path("control"), "--metrics", f"127.0.0.1:{scraped}", "--stats=0")
        with open(self.path("prometheus.yml"), "w") as f:
            f.write("global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
                    "scrape_configs:\n- job_name: ebbd\n"
                    f"  static_configs: [{{targets: ['127.0.0.1:{scraped}']}}]\n")
        self.launch(self.program, "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                    f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn",
                    f"--web.console.templates={self.dir}", f"--web.console.libraries={self.dir}")
        self.wait_for("ebbd listens", lambda: listens(self.path("control")))
        self.control = Control(self.path("control"))
        self.addCleanup(self.control.close)

    def guest(self, name):
        front = FrontEnd(self.path(name) + ".sock")
        self.addCleanup(front.close)
        front.start()
        front.give_stats({4: 1})
        return front

    def live(self, front, n):
        """Report the n-th range, and say how much is free."""
        at = (4 + 2 * n) * MIB
        front.fill(at, 2 * MIB)
        front.add(REPORTING, [(at, 2 * MIB, WRITE)])
        self.wait_for("the report comes back", lambda: front.used(REPORTING) == n + 1)

    def statistics(self, front, name):
        """The guest holds a buffer, ebbd asks for it, and the guest answers."""
        self.control.send(json.dumps({"command": "stats", "vm": name}).encode() + b"\n")
        self.wait_for("the guest is asked", lambda: front.used(STATS) == 1)
        front.give_stats({4: 16 * MIB, 5: 64 * MIB})
        self.assertIn("guest", self.control.line())

    def questions(self):
        """The dashboard's, as Grafana would ask them."""
        with open(os.path.join(ROOT, "dist", "grafana", "ebb.json")) as f:
            panels = json.load(f)["panels"]
        for panel in panels:
            for target in panel.get("targets", []):
                question = target["expr"].replace("$__rate_interval", "1m")
                yield panel["title"], re.sub(r"\$\w+", ".*", question)

    def test_scraped(self):
        self.begin()
        fronts = {name: self.guest(name) for name in ("a", "b")}
        self.wait_for("Prometheus scrapes", lambda: (self.target() or {}).get("health") == "up")
        for n in range(3):  # rates take two samples
            for front in fronts.values():
                self.live(front, n)
            time.sleep(1.2)
        for name, front in fronts.items():
            self.statistics(front, name)
        self.wait_for("the last report is scraped", lambda: list(self.ask(
            'ebb_discarded_bytes_total{vm="b"}').values()) == [6 * MIB])

        with self.subTest("what it knows is what ebbd tells"):
            self.wait_for("statistics are scraped", lambda: list(self.ask(
                'ebb_guest_statistic{name="free_bytes"}').values()) == [16 * MIB] * 2)
            for name in fronts:
                vm = self.control.vm(name)

                def known(metric, labels=""):
                    (value,) = self.ask(f'{metric}{{vm="{name}"{labels}}}').values()
                    return value
                self.assertEqual(known("ebb_assigned_bytes"), vm["memory"]["assigned_bytes"])
                self.assertEqual(known("ebb_resident_bytes"), vm["memory"]["resident_bytes"])
                self.assertEqual(known("ebb_reported_bytes_total"), 6 * MIB)
                self.assertEqual(known("ebb_discard_latency_seconds_count"), 3)
                self.assertEqual(known("ebb_discard_latency_seconds_bucket", ',le="+Inf"'), 3)
                self.assertEqual(known("ebb_guest_statistic", ',name="free_bytes"'), 16 * MIB)
        with self.subTest("types and help arrive"):
            known = self.api("metadata")["data"]
            self.assertEqual(known["ebb_reported_bytes"][0]["type"], "counter")
            self.assertEqual(known["ebb_resident_bytes"][0]["type"], "gauge")
            self.assertEqual(known["ebb_discard_latency_seconds"][0]["type"], "histogram")
            for family in known:
                if family.startswith("ebb_"):
                    self.assertTrue(known[family][0]["help"], family)

        asked = 0
        for title, question in self.questions():
            asked += 1
            with self.subTest(title, question=question):
                answer = self.ask(question)
                if not question.endswith("> 0"):  # of which there are none
                    self.assertTrue(answer)
                for value in answer.values():
                    self.assertEqual(value, value)  # a number
        self.assertGreater(asked, 20)
        (rate,) = self.ask('sum(increase(ebb_reported_bytes_total{vm="a"}[1m]))').values()
        self.assertGreater(rate, 0)


if __name__ == "__main__":
    e2e.main()

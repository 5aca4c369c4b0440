# SPDX-License-Identifier: BSD-2-Clause
"""The whole path in QEMU: what a guest frees comes back to the host, on every
machine, backing and number of CPUs, and no frame in use is lost."""
import e2e


class Path(e2e.Case):
    def run_guest(self, machine="q35", backing="memfd", cpus=2, memory="1G",
                  workload="memhog 75%; idle 10", extra=()):
        run = self.ebb("run", "--accel", "tcg", "--memory", memory, "--machine", machine, "--backing",
                       backing, "--cpus", str(cpus), "--workload", workload, *extra)
        return run, run.json()

    def check_returned(self, run, d, least=0.98):
        self.assertEqual(d["status"], "ok")
        self.assertEqual(d["verify_errors"], 0)
        self.assertGreater(d["verify_checks"], d["freed_mib"] * 256 - 1)
        self.assertGreaterEqual(d["returned_mib"], least * d["freed_mib"], run.describe())
        self.assertEqual(d["failed_reports"], 0)
        self.assertEqual(d["malformed_lines"], 0)
        for key, share in (("first_ms", 0), ("t50_ms", 0.5), ("t90_ms", 0.9)):
            if share <= least:
                self.assertIsNotNone(d[key], run.describe())

    def check(self, **keywords):
        if keywords.get("backing") == "thp" and not e2e.thp_available():
            self.skipTest("this host has transparent huge pages off")
        run, d = self.run_guest(**keywords)
        self.assertGreater(d["freed_mib"], 0.7 * d["guest_mib"])
        self.check_returned(run, d)
        self.assertIsNotNone(d["t99_ms"], run.describe())
        print(f"    {d['returned_mib']:.0f} of {d['freed_mib']:.0f} MiB, t99 {d['t99_ms']} ms",
              flush=True)


class Machines(Path):
    """One guest per machine type: all that the quick run has of QEMU."""

    def test_q35(self):
        self.check(machine="q35")

    def test_pc(self):
        self.check(machine="pc")

    def test_microvm(self):
        self.check(machine="microvm")


class Return(Path):
    """Everything else: other backings, numbers of CPUs, workloads and settings."""

    def test_workloads(self):
        """Frees of another kind than memhog's."""
        run, d = self.run_guest(workload="memhog 30%; churn 40% 1; memhog 60% x2; idle 10")
        self.assertGreater(d["freed_mib"], 550)
        self.check_returned(run, d)
        run, d = self.run_guest(workload="fragment 60% 512; release; memhog 60%; idle 10; verify")
        self.check_returned(run, d)

    def test_engines(self):
        """A tracker with memory of its own, and passes in the context that frees, while blocks of all
        sizes come and go. What a tracker does is the conformance suite's matter."""
        for tracker, execution in (("bitmap", "worker"), ("rotation", "inline")):
            run, d = self.run_guest(
                workload="churn 60% 1; memhog 75%; idle 10",
                extra=("--set", "report.pacing=delay", "--set", f"report.tracker={tracker}",
                       "--set", f"report.execution={execution}"))
            # Inline nobody empties idle caches, and a frame in one pins its block.
            self.check_returned(run, d, least=0.5 if execution == "inline" else 0.98)

    def test_policies(self):
        """Together they say the opposite of every default."""
        run, d = self.run_guest(workload="churn 60% 1; memhog 75%; idle 10", extra=(
            "--set", "report.pacing=delay", "--set", "report.tracker=boundary", "--set", "report.split=clear",
            "--set", "report.merge=never", "--set", "report.move=follow",
            "--set", "report.direction=descending"))
        self.check_returned(run, d)

    def test_filled(self):
        """Init on free: what is discarded reads as zero, so all of it may be."""
        run, d = self.run_guest(extra=("--set", "zone.fill=zero"))
        self.check_returned(run, d)
        run, d = self.run_guest(extra=("--set", "zone.fill=poison"))
        self.assertLess(d["returned_mib"], 0.02 * d["freed_mib"], run.describe())
        self.assertEqual(d["verify_errors"], 0)

    def test_off(self):
        """Without reporting nothing comes back."""
        for extra in (("--reporting", "off"), ("--set", "report=off")):
            run, d = self.run_guest(extra=extra)
            self.assertGreater(d["freed_mib"], 700)
            self.assertLess(d["returned_mib"], 0.02 * d["freed_mib"], run.describe())
            self.assertIsNone(d["t50_ms"])
            self.assertEqual(d["reports"], 0)
            self.assertEqual(d["verify_errors"], 0)
            self.assertIn("the host keeps what", run.out)

    def test_small(self):
        """The smallest guest gives everything back too."""
        for backing in ("memfd", "anon"):
            run = self.ebb("run", "--accel", "tcg", "--memory", "64M", "--backing", backing,
                           "--workload", "memhog 75%; idle 10")
            self.check_returned(run, run.json(), least=0.95)
            self.assertIn("its memory back", run.out)

    def test_staircase(self):
        """The merged kernel's pacing: a step every two seconds."""
        run, d = self.run_guest(workload="memhog 75%; idle 15", extra=(
            "--set", "report.pacing=delay", "--set", "report.delay_ms=2000",
            "--set", "report.budget=16"))
        self.check_returned(run, d, least=0.9)
        # From the first step: on a slow machine that comes before the last free.
        most = max(s[2] for s in d["samples"])
        began = max(s[0] for s in d["samples"] if s[2] > 0.97 * most)
        after = [s for s in d["samples"] if s[0] >= began]
        self.assertGreater(min(s[0] for s in after if s[2] < 0.1 * most) - began, 2500)
        # Levels at which the memory stays for a second and more.
        levels, since = [], after[0]
        for sample in after[1:]:
            if abs(sample[2] - since[2]) > 8:
                since = sample
            elif sample[0] - since[0] > 1000 and (not levels or levels[-1] - sample[2] > 8):
                levels.append(sample[2])
        self.assertGreaterEqual(len(levels), 3, levels)
        self.assertEqual(levels, sorted(levels, reverse=True))


def add_case(machine, backing, cpus):
    name = f"test_{machine}_{backing}_{cpus}_cpus"
    setattr(Return, name, lambda self: self.check(machine=machine, backing=backing, cpus=cpus))


# A backing is the host's, whatever the machine; with memfd and 2 CPUs each is in Machines.
for b in ("anon", "thp"):
    add_case("q35", b, 2)
for m in ("q35", "pc", "microvm"):
    for n in (1, 16):
        add_case(m, "memfd", n)

if __name__ == "__main__":
    e2e.need_qemu()
    e2e.main()

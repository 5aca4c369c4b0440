# SPDX-License-Identifier: BSD-2-Clause
"""Memory that a guest takes out of its zones and brings back; memory that it moves together."""
import re

import e2e


class Moving(e2e.Case):
    def guest(self, workload, *args, memory="1G", rc=0, seconds=120):
        return self.ebb("run", "--accel", "tcg", "--memory", memory, "--workload", workload,
                        *args, rc=rc, seconds=seconds)

    def results(self, run, step):
        return [r for r in run.json()["results"] if r["step"] == step]

    def assert_sound(self, run):
        d = run.json()
        self.assertEqual((d["status"], d["verify_errors"], d["malformed_lines"]), ("ok", 0, 0),
                         run.describe())
        return d

    def held_after(self, run, cmd):
        """MiB: the least that the host held in a step, and the guest's use of memory then."""
        d = run.json()
        step = next(s for s in d["steps"] if s["cmd"] == cmd)
        samples = [s for s in d["samples"] if step["begin_ms"] <= s[0] <= step["end_ms"]]
        return min((s[2], s[1]) for s in samples)


class Hotplug(Moving):
    def test_out_and_in(self):
        """Half of the memory goes, and with it what was held there; the host has all of it that is
        not in use; then it is back, and all of it can be taken."""
        run = self.guest("fragment 75% 8; unplug 512M; idle 2; verify; free; hotplug 512M; free; "
                         "memhog 88%; release; idle 1", "--console", seconds=300)
        d = self.assert_sound(run)
        out, back = self.results(run, "unplug")[0], self.results(run, "hotplug")[0]
        self.assertEqual((out["kib"], out["out_kib"]), (512 << 10, 512 << 10))
        self.assertEqual(out["reported_kib"], out["kib"])
        self.assertEqual((back["kib"], back["out_kib"]), (512 << 10, 0))
        # An eighth of 766 MiB is held; it lies in three quarters of the memory.
        self.assertGreater(out["moved_kib"], 10 << 10)
        held, used = self.held_after(run, "idle 2")
        self.assertGreater(used, 90)
        self.assertLess(held, used + 24, run.describe())
        less, more = map(int, re.findall(r"(?m)^guest: mem +(\d+)", run.out))
        self.assertEqual(more - less, 512 << 10, run.describe())
        self.assertGreater(d["freed_mib"], 890)

    def test_settings(self):
        """Neither what free frames hold nor how they are reported keeps memory from going."""
        for setting in ("zone.fill=zero", "zone.fill=poison", "report.pacing=delay", "report=off",
                        "report.order=9"):
            with self.subTest(setting=setting):
                run = self.guest("fragment 80% 4; unplug 128M; verify; hotplug 100M; release; "
                                 "unplug 20M; unplug 50%; hotplug 50%", "--set", setting,
                                 memory="256M")
                self.assert_sound(run)
                self.assertEqual([r["out_kib"] >> 10 for r in self.results(run, "unplug")],
                                 [128, 48, 176], run.describe())
                for r in self.results(run, "unplug"):
                    self.assertEqual(r["reported_kib"], 0 if "off" in setting else r["kib"])

    def test_two_zones(self):
        """More than one zone has. What is held stays in its zone."""
        run = self.guest("fragment 256M 8; unplug 75%; verify; hotplug 75%; verify; release",
                         memory="4G")
        self.assert_sound(run)

    def test_damage_is_found(self):
        """What was overwritten before it was moved does not get a new stamp."""
        run = self.guest("fragment 80% 2; corrupt; unplug 35%; verify", memory="256M", rc=1)
        self.assertEqual(run.json()["verify_errors"], 1, run.describe())
        self.assert_says(run, "lost its contents")

    def test_wrong_use(self):
        for script, why in (("hotplug 1G", "nothing is unplugged"),
                            ("unplug 32M; hotplug 64M", "64 MiB are more than the 32 MiB that are "
                                                        "unplugged"),
                            ("unplug 1G", "more than the"),
                            ("fragment 80% 2; unplug 60%", "more than the"),
                            ("fragment 1M 8; unplug 99%", "memory that cannot be moved is in the way"),
                            ("unplug", "usage: unplug SIZE"),
                            ("hotplug 1G 2G", "usage: hotplug SIZE")):
            with self.subTest(script=script):
                self.assert_says(self.guest(script, memory="256M", rc=2), "refused", why)


class Compact(Moving):
    def test_compact(self):
        """Where only pageblocks are reported, the host gets back what lay between frames in use."""
        run = self.guest("fragment 256M 8; idle 1; compact; report now; idle 3; verify; compact; "
                         "release", "--set", "report.order=9", memory="512M")
        self.assert_sound(run)
        first, again = self.results(run, "compact")
        # Of 128 pageblocks an eighth is in use, and has to be somewhere.
        self.assertGreater(first["whole"] - first["whole_before"], 100, run.describe())
        self.assertGreaterEqual(first["made"], first["whole"] - first["whole_before"])
        self.assertEqual((first["failed"], again["made"]), (0, 0), run.describe())
        before, used = self.held_after(run, "idle 1")
        after, _ = self.held_after(run, "idle 3")
        self.assertGreater(before - used, 200, run.describe())
        self.assertLess(after - used, 24, run.describe())

    def test_contiguous(self):
        """More than any block has, where frames in use lie; and exactly there."""
        run = self.guest("fragment 80% 8; contiguous 128M; contiguous 33M 128M; verify; release",
                         memory="256M")
        self.assert_sound(run)
        anywhere, there = self.results(run, "contiguous")
        self.assertEqual([r["kib"] for r in (anywhere, there)], [128 << 10, 33 << 10])
        self.assertEqual(there["address"], 128 << 20)
        for r in (anywhere, there):
            self.assertGreater(r["moved_kib"], r["kib"] // 20)

    def test_damage_is_found(self):
        for script in ("corrupt; contiguous 10M", "fragment 50% 8; corrupt; compact; release"):
            with self.subTest(script=script):
                run = self.guest(script, memory="256M", rc=1)
                self.assertEqual(run.json()["verify_errors"], 1, run.describe())
                self.assert_says(run, "lost its contents")

    def test_wrong_use(self):
        for script, why in (("compact 7", "usage: compact"),
                            ("contiguous", "usage: contiguous SIZE [ADDRESS]"),
                            ("contiguous 1G", "more than the"),
                            ("contiguous 10M 255M", "not all of that is memory of the guest"),
                            ("contiguous 10M 1000G", "not all of that is memory of the guest")):
            with self.subTest(script=script):
                self.assert_says(self.guest(script, memory="256M", rc=2), "refused", why)


if __name__ == "__main__":
    e2e.need_qemu()
    e2e.main()

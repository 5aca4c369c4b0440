# SPDX-License-Identifier: BSD-2-Clause
"""Whatever is killed, and whenever: no process and no file is left, and the one
that survives says what happened. EBB_SEED repeats the moments."""
import os
import random
import signal
import time

import e2e

# Whoever runs the tests under nohup would hand on that it is ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

TIMES = 6  # for each signal
SPAN = 1.5  # seconds, in which it comes


class Kill(e2e.Case):
    def start_run(self, *args):
        return self.start("run", "--accel", "tcg", "--memory", "512M", "--workload",
                          "memhog 75% x1000", *args)

    def moments(self, name):
        dice = random.Random(f"{e2e.SEED} {name}")
        return [dice.uniform(0, SPAN) for _ in range(TIMES)]

    def kill_ebb(self, signo):
        for moment in self.moments(signo.name):
            with self.subTest(seed=e2e.SEED, moment=moment):
                run = self.start_run()
                time.sleep(moment)
                run.process.send_signal(signo)
                run.wait()
                # Before QEMU runs, the signal ends ebb as it would any program.
                self.assertIn(run.rc, (128 + signo, -signo), run.describe())
                self.assert_clean(run)

    def test_kill(self):
        self.kill_ebb(signal.SIGKILL)

    def test_terminate(self):
        self.kill_ebb(signal.SIGTERM)

    def test_interrupt(self):
        self.kill_ebb(signal.SIGINT)

    def test_hang_up(self):
        self.kill_ebb(signal.SIGHUP)

    def test_partial_summary(self):
        run = self.start_run()
        self.assertTrue(run.wait_for("step: memhog"), run.describe())
        run.process.send_signal(signal.SIGINT)
        run.wait()
        self.assertEqual(run.rc, 130, run.describe())
        self.assert_says(run, "interrupted")
        self.assertIn("the host held", run.out)
        self.assertEqual(run.json()["status"], "interrupted")
        self.assert_clean(run)

    def test_kill_qemu(self):
        for moment in self.moments("qemu"):
            with self.subTest(seed=e2e.SEED, moment=moment):
                run = self.start_run()
                pid = run.qemu()
                self.assertIsNotNone(pid, "QEMU was not seen")
                time.sleep(moment)
                os.kill(pid, signal.SIGKILL)
                run.wait()
                self.assertEqual(run.rc, 4, run.describe())
                self.assert_says(run, "killed by signal 9")
                self.assert_clean(run)

    def test_stop_qemu(self):
        """A QEMU that stands still is a guest that hangs."""
        run = self.start_run("--timeout", "2")
        pid = run.qemu()
        self.assertIsNotNone(pid, "QEMU was not seen")
        os.kill(pid, signal.SIGSTOP)
        run.wait()
        self.assertEqual(run.rc, 3, run.describe())
        self.assert_says(run, "silent for 2 s")
        self.assert_clean(run)


if __name__ == "__main__":
    e2e.need_qemu()
    e2e.main()

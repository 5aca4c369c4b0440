# SPDX-License-Identifier: BSD-2-Clause
"""The path on KVM, wherever /dev/kvm can be opened: KVM's own page faults, and its notifiers of what the
host has dropped, are part of it then. `--accel kvm` takes also a KVM that is slow, such as one of a
hypervisor that emulates each instruction: hence a small guest, and much time."""
import os

import e2e

PATIENCE = 1200  # seconds; with a fast KVM it takes a minute


class Kvm(e2e.Case):
    def test_memory_comes_back(self):
        """Twice, so that what was dropped is taken into use again. Each frame is stamped and checked."""
        for backing in ("memfd", "anon"):
            with self.subTest(backing=backing):
                d = self.ebb("run", "--accel", "kvm", "--memory", "64M", "--backing", backing,
                             "--workload", "memhog 75%; idle 10; memhog 75%; idle 10",
                             seconds=PATIENCE).json()
                self.assertEqual((d["status"], d["accel"], d["verify_errors"]), ("ok", "kvm", 0))
                self.assertGreaterEqual(d["verify_checks"], 2 * d["freed_mib"] * 256 - 2)
                self.assertGreater(d["refaulted_mib"], 0)
                self.assertGreaterEqual(d["returned_mib"], 0.95 * d["freed_mib"])


if __name__ == "__main__":
    e2e.need_qemu()
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        e2e.skip_all(f"/dev/kvm cannot be opened ({error.strerror}): NOTHING was tested on KVM")
    e2e.main()

# SPDX-License-Identifier: BSD-2-Clause
"""What `make lab` runs: every measure, its cases and its variants, as command lines.

A run is one process: `ebb run` (by itself or below lab/stall.py), `ebb replay`, `ebb bench` or
lab/drop. What is compared is run at the same time (P4, P7), or else one behind the other,
variant after variant, within seconds or minutes; each second round goes through the variants
backwards.
"""
import dataclasses
import glob
import os

# The merged kernel's way (SPEC.md, section 2).
KERNEL_PACING = ["report.pacing=delay", "report.delay_ms=2000", "report.budget=16",
                 "report.order=9", "report.split=clear", "report.merge=never"]
# The same made eager, which a Linux guest cannot be: its delay is compiled in.
EAGER_PACING = ["report.pacing=delay", "report.delay_ms=100", "report.budget=16",
                "report.order=9", "report.split=clear", "report.merge=never"]
ORDER_0 = ["page_reporting.page_reporting_order=0"]

# Each CPU keeps no more than a thousandth of the memory in its lists of free pages, instead of the low
# watermark by the number of CPUs.
SMALL_LISTS = "sysctl.vm.percpu_pagelist_high_fraction=1000"

MAIN_PEER, OLD_PEER = "6.12", "6.1"
BLOCK = "4M"  # ebb's largest, in which it reports what a memhog freed

PAUSES_JUDGED = {0: 0.97, 50: 0.97, 200: 0.97, 500: 0.95, 1000: 0.95}
PAUSE_P3 = 3000
PAUSES_MODULE = {0: 0.97, 200: 0.97, 1000: 0.95}
FAULT_CASES = [(mode, tasks, thp) for mode in ("procs", "threads") for tasks in (1, 2)
               for thp in (False, True)]
KEPT_JUDGED = 8

MEASURES = {
    "P1": "memory back after a release, and what it costs (P1, P11)",
    "P2": "taking and freeing in turns (P2, P3)",
    "P4": "page faults, reporting on and off (P4)",
    "P5": "instructions per page fault (P4, P5)",
    "P6": "fragmented memory (P6)",
    "P7": "recorded traces (P7)",
    "P8": "the allocator's speed (P8, P9, P10)",
    "P12": "sixteen tasks on sixteen virtual CPUs (P12)",
    "L1": "Linux guests, stock and with ebb's module (L1, L2, L4, L5, L6)",
    "H1": "the host's half: ebbd beside QEMU's own balloon (H1, H2)",
}


VHOST_USER = "QEMU with the generic vhost-user device"


def guest_name(kernel):
    return f"Linux {kernel} guest"


@dataclasses.dataclass
class Run:
    measure: str
    case: str
    variant: str
    round: int
    argv: list  # "{json}": where the program writes its result; none: it prints it
    seconds: float  # a guess, until the first of its kind has run
    kernel: str = None  # the Linux it needs
    vhost_user: bool = False  # it needs a QEMU that has the generic vhost-user device
    together: str = None  # runs of the same are at the same time

    @property
    def name(self):
        return f"{self.measure}.{self.case}.{self.variant}.{self.round}"

    @property
    def kind(self):
        return f"{self.measure}.{self.case}.{self.variant}"


@dataclasses.dataclass
class Scale:
    """How much of everything."""
    rounds: int
    curve_rounds: int  # of points that no bar is about
    memhog: str  # guest memory, what is taken, in GiB
    memhog_memory: str
    linux_wait: int
    module_wait: int
    learn_seconds: int
    cycle_seconds: int
    pauses: list
    linux_pauses: list
    warm_seconds: int
    fault_seconds: int
    count_seconds: int
    keeps: list
    fragment_wait: int
    order0_wait: int
    trace_speed: int
    bench: list
    many: list
    host_memhog: str
    host_wait: int
    host_asked: int
    host_cycles: int


FULL = Scale(rounds=5, curve_rounds=1, memhog="6G", memhog_memory="8G", linux_wait=30, module_wait=12,
             learn_seconds=5, cycle_seconds=15, pauses=[0, 50, 200, 500, 1000, 3000],
             linux_pauses=[0, 200, 1000, 3000], warm_seconds=5, fault_seconds=5, count_seconds=3,
             keeps=[2, 4, 8, 16, 32, 64], fragment_wait=11, order0_wait=45,
             trace_speed=1, bench=[], many=["procs", "threads"], host_memhog="1200M", host_wait=20,
             host_asked=15, host_cycles=10)
QUICK = Scale(rounds=1, curve_rounds=1, memhog="1536M", memhog_memory="2G", linux_wait=18, module_wait=12,
              learn_seconds=3, cycle_seconds=4, pauses=[0, 200, 1000, 3000], linux_pauses=[3000],
              warm_seconds=1, fault_seconds=1, count_seconds=1, keeps=[2, 8], fragment_wait=10.5,
              order0_wait=10.5, trace_speed=20, bench=["--quick"], many=["procs"], host_memhog="600M",
              host_wait=12, host_asked=6, host_cycles=2)


class Plan:
    """All runs of one scale. `ebb`, `drop`, `linux` (a directory) and `traces` are as the command
    lines shall show them."""

    def __init__(self, scale, ebb, drop, linux, traces):
        self.scale, self.ebb, self.drop = scale, ebb, drop
        self.linux, self.traces = linux, traces

    def guest(self, script, *options, memory="2G", cpus=2, settings=(), linux=None, module=False):
        argv = [self.ebb, "run", "--quiet", "--accel", "tcg", "--machine", "q35", "--backing",
                "anon", "--cpus", str(cpus), "--memory", memory, *options]
        for setting in settings:
            argv += ["--set", setting]
        if linux:
            argv += ["--guest", "linux", "--kernel", f"{self.linux}/vmlinuz-{linux}",
                     "--initrd", f"{self.linux}/initrd-{linux}", "--timeout", "120"]
        if module:
            argv += ["--module", f"{self.linux}/ebb_reporting-{linux}.ko"]
            script = "module wait; " + script
        return argv + ["--workload", script, "--json", "{json}"]

    # Each of these: the runs of round `n` of one measure.

    def p1(self, n):
        s = self.scale
        size = float(s.memhog[:-1]) / (1 if s.memhog[-1] == "G" else 1024)
        yield Run("P1", "memhog", "drop", n, [self.drop, "anon", s.memhog, BLOCK, "3"], 3 + size)
        yield Run("P1", "memhog", "ebb", n,
                  self.guest(f"idle 1; memhog {s.memhog}; idle 3", memory=s.memhog_memory),
                  6 + 3 * size)
        yield Run("P1", "memhog", "linux", n,
                  self.guest(f"idle 1; memhog {s.memhog}; idle {s.linux_wait}",
                             memory=s.memhog_memory, linux=MAIN_PEER),
                  6 + s.linux_wait + 4 * size, kernel=MAIN_PEER)

    def p2(self, n):
        s = self.scale
        for pause in s.pauses:
            # Two steps, so that both can be told: all of it, in which the pace is learned, and
            # what it is from then on. (The guest does not count the first cycle of a step.)
            script = f"cycle 75% {pause} {s.learn_seconds}; cycle 75% {pause} {s.cycle_seconds}"
            case = f"{pause}ms"
            if pause not in PAUSES_JUDGED and pause != PAUSE_P3 and n > s.curve_rounds:
                continue
            cost = s.learn_seconds + s.cycle_seconds + 6 + pause / 1000
            yield Run("P2", case, "ebb-on", n, self.guest(script), cost)
            yield Run("P2", case, "ebb-off", n, self.guest(script, "--reporting", "off"), cost)
            if n <= s.curve_rounds and s.rounds > 1:
                yield Run("P2", case, "ebb-eager", n,
                          self.guest(script, settings=EAGER_PACING), cost)
            if pause not in s.linux_pauses:
                continue
            if pause == PAUSE_P3 or n <= s.curve_rounds:
                yield Run("P2", case, "linux-on", n, self.guest(script, linux=MAIN_PEER),
                          cost + 4, kernel=MAIN_PEER)
            if n <= s.curve_rounds and s.rounds > 1:
                yield Run("P2", case, "linux-off", n,
                          self.guest(script, "--reporting", "off", linux=MAIN_PEER), cost + 4,
                          kernel=MAIN_PEER)

    def faults(self, mode, tasks, thp=False):
        """As will-it-scale does: what is counted begins warm. Both steps can be told."""
        kind = f"page_fault1 {mode} {tasks}"
        end = " thp" if thp else ""
        s = self.scale
        return f"idle 1; {kind} {s.warm_seconds}{end}; {kind} {s.fault_seconds}{end}"

    def p4(self, n):
        """Reporting on and off side by side, a guest's CPU beside the other's: they share whatever
        speed the machine has at the moment, which differs by more than what is looked for."""
        s = self.scale
        for mode, tasks, thp in FAULT_CASES:
            case = f"{mode}-{tasks}-{'thp' if thp else '4k'}"
            for switch in ("on", "off"):
                yield Run("P4", case, switch, n,
                          self.guest(self.faults(mode, tasks, thp), "--pin", "--reporting", switch),
                          s.warm_seconds + s.fault_seconds + 4, together=case)

    def p5(self, n):
        s = self.scale
        if n > max(1, s.curve_rounds):
            return  # these are counts: more of them show no more
        for mode, thp in (("procs", False), ("threads", False), ("procs", True)):
            script = f"idle 1; page_fault1 {mode} 1 {s.count_seconds}{' thp' if thp else ''}"
            case = f"{mode}-{'thp' if thp else '4k'}"
            cost = 6 + 12 * s.count_seconds
            for switch in ("on", "off"):
                yield Run("P5", case, switch, n,
                          self.guest(script, "--icount", "--reporting", switch, cpus=1), cost)
            if mode != "procs" or (thp and s.curve_rounds == 1):
                continue
            for kernel in (MAIN_PEER, OLD_PEER):
                yield Run("P5", case, f"linux-{kernel}", n,
                          self.guest(script, "--icount", cpus=1, linux=kernel), cost + 10,
                          kernel=kernel)

    def p6(self, n):
        s = self.scale
        for keep in s.keeps:
            judged = keep == KEPT_JUDGED
            if not judged and n > s.curve_rounds:
                continue
            case = f"every-{keep}"
            wait = s.fragment_wait
            order0 = s.order0_wait if judged else wait
            yield Run("P6", case, "ebb", n, self.guest(f"fragment 75% {keep}; idle {wait}"),
                      wait + 6)
            yield Run("P6", case, "linux", n,
                      self.guest(f"fragment 75% {keep}; idle {wait}", linux=MAIN_PEER),
                      wait + 10, kernel=MAIN_PEER)
            yield Run("P6", case, "linux-order0", n,
                      self.guest(f"fragment 75% {keep}; idle {order0}", settings=ORDER_0,
                                 linux=MAIN_PEER), order0 + 10, kernel=MAIN_PEER)

    def trace_names(self, directory):
        return sorted(os.path.basename(path)
                      for path in glob.glob(os.path.join(directory, "*.trace*")))

    def p7(self, n):
        """As recorded, which takes its time, little of it work: all side by side."""
        s = self.scale
        kernel = [word for setting in KERNEL_PACING for word in ("--set", setting)]
        for name in self.trace_names(self.traces):
            for variant, options in (("ebb", ["on"]), ("off", ["off"]), ("kernel", ["on"] + kernel)):
                yield Run("P7", name.split(".")[0], variant, n,
                          [self.ebb, "replay", "--quiet", f"{self.traces}/{name}", "--speed",
                           str(s.trace_speed), "--json", "{json}", "--reporting", *options],
                          90 / s.trace_speed, together="all")

    def p8(self, n):
        s = self.scale
        yield Run("P8", "alloc", "ebb", n,
                  [self.ebb, "bench", "alloc", *s.bench, "--json", "{json}"],
                  2 if s.bench else 30)

    def p12(self, n):
        s = self.scale
        for mode in s.many:
            for switch in ("on", "off"):
                yield Run("P12", mode, switch, n,
                          self.guest(self.faults(mode, 16), "--reporting", switch, memory="4G",
                                     cpus=16), s.warm_seconds + s.fault_seconds + 8)

    def l1(self, n):
        """Debian's kernels as they are, and with ebb's module; QEMU's own balloon."""
        s = self.scale

        def run(case, variant, script, cost, *options, kernel=MAIN_PEER, settings=(), module=False):
            return Run("L1", case, variant, n, self.guest(
                script, *options, linux=kernel, settings=settings, module=module), cost + 8, kernel=kernel)
        for kernel in (MAIN_PEER, OLD_PEER):
            case = f"memhog-{kernel}"
            yield run(case, "module", f"idle 1; memhog 75%; idle {s.module_wait}", s.module_wait + 8,
                      kernel=kernel, module=True)
            if kernel == MAIN_PEER or n <= s.curve_rounds:
                yield run(case, "stock", f"idle 1; memhog 75%; idle {s.linux_wait}", s.linux_wait + 8,
                          kernel=kernel)
        fragment = f"fragment 75% {KEPT_JUDGED}; idle "
        yield run("fragment", "module", fragment + str(s.module_wait), s.module_wait + 8, module=True)
        yield run("fragment", "stock", fragment + str(s.module_wait), s.module_wait + 8)
        yield run("fragment", "stock-order0", fragment + str(s.linux_wait), s.linux_wait + 8,
                  settings=ORDER_0)
        for pause in PAUSES_MODULE:
            script = f"cycle 75% {pause} {s.learn_seconds * 3}; cycle 75% {pause} {s.cycle_seconds}"
            case, cost = f"cycle-{pause}ms", s.learn_seconds * 3 + s.cycle_seconds + 2 * pause / 1000
            yield run(case, "module", script, cost, module=True)
            yield run(case, "off", script, cost, "--reporting", "off")
            if n <= s.curve_rounds:
                yield run(case, "stock", script, cost)

    def h1(self, n):
        """The same Linux guest on ebbd, on QEMU's own balloon, and on that without reporting. Each also with
        questions to QEMU's monitor, which cost so much that CPU time is not to be seen beside them."""
        s = self.scale
        yield Run("H1", "linux", "drop", n, [self.drop, "memfd", s.host_memhog, s.host_memhog, "3"], 3)
        hosts = {"ebbd": ["--host", "ebbd"], "qemu": [], "off": ["--reporting", "off"]}
        for variant, options in hosts.items():
            yield self.host(n, "linux", variant, options, s.host_wait, ["--unasked"])
        yield self.host(n, "small_lists", "ebbd", hosts["ebbd"], s.host_wait, ["--unasked"], SMALL_LISTS)
        for variant, options in hosts.items():
            yield self.host(n, "asked", variant, options, s.host_asked, [])
        for variant in ("ebbd", "qemu"):
            yield self.cycles(n, variant, hosts[variant])

    def cycles(self, n, variant, options):
        """The reference guest frees its memory again and again and has it reported at once, so that
        discards are most of what the host does."""
        argv = self.guest("; ".join([f"memhog {self.scale.host_memhog}; idle 1.5"] * self.scale.host_cycles),
                          "--qemu", "qemu-vhost-user", *options,
                          settings=["report.pacing=delay", "report.delay_ms=100"])
        argv[argv.index("anon")] = "memfd"
        return Run("H1", "cycles", variant, n, argv, 4 + 3.5 * self.scale.host_cycles, vhost_user=True)

    def host(self, n, case, variant, options, wait, asked, *words):
        # Huge pages as Debian's kernel has them by default.
        argv = self.guest(f"idle 1; memhog {self.scale.host_memhog}; idle {wait}",
                          "--append", " ".join(["ebb.thp=always", *words]),
                          "--qemu", "qemu-vhost-user", *options, linux=MAIN_PEER)
        argv[argv.index("anon")] = "memfd"  # which is what another process can give back
        argv.remove("--quiet")  # so that the step is seen
        return Run("H1", case, variant, n, ["stall", *asked, *argv], wait + 16, kernel=MAIN_PEER,
                   vhost_user=True)

    def runs(self, only=None):
        """All of them, in the order in which they are to be run."""
        makers = {"P1": self.p1, "P2": self.p2, "P4": self.p4, "P5": self.p5, "P6": self.p6,
                  "P7": self.p7, "P8": self.p8, "P12": self.p12, "L1": self.l1, "H1": self.h1}
        runs = []
        for n in range(1, self.scale.rounds + 1):
            for measure, maker in makers.items():
                if not only or measure in only:
                    runs += turned(list(maker(n)), n)
        return runs


def turned(runs, n):
    """Variants forwards in odd rounds and backwards in even ones, case by case."""
    if n % 2:
        return runs
    cases = {}
    for run in runs:
        cases.setdefault(run.case, []).append(run)
    return [run for case in cases.values() for run in reversed(case)]

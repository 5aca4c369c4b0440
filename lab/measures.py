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
MODULE, HOLDS = "ebb_reporting", "ebb_holds"  # the latter: lab/linux/holds
BLOCK = "4M"  # ebb's largest, in which it reports what a memhog freed

PAUSES_JUDGED = {0: 0.97, 50: 0.97, 200: 0.97, 500: 0.95, 1000: 0.95}
PAUSE_P3 = 3000
PAUSES_MODULE = {0: 0.97, 50: 0.97, 200: 0.97, 500: 0.95, 1000: 0.95}
FAULT_CASES = [(mode, tasks, thp) for mode in ("procs", "threads") for tasks in (1, 2)
               for thp in (False, True)]
FAULTS_MORE = 3  # s that page_fault1 may take beside what it measures
GUEST_IS_UP = 14  # s after its start, at the latest: Linux guests side by side begin then
KEPT_JUDGED = 8
REST_OF_MODULE = ["passes", "samples", "checks", "timers_us"]

MEASURES = {
    "P1": "memory back after a release, and what it costs (P1, P11)",
    "P2": "taking and freeing in turns (P2, P3)",
    "P4": "page faults, reporting on and off (P4)",
    "P5": "instructions per page fault (P4, P5)",
    "P6": "fragmented memory (P6)",
    "P7": "recorded traces (P7)",
    "P8": "the allocator's speed (P8, P9, P10)",
    "P12": "sixteen tasks on sixteen virtual CPUs (P12)",
    "L1": "Linux guests, stock and with ebb's module: memory back (L1, L2, L4, L5)",
    "L2": "the same on ebbd and on QEMU's own balloon (L1, L2)",
    "L3": "6 GiB of 8 (L3)",
    "L6": "taking and freeing in turns (L6)",
    "L7": "page faults, and their instructions (L7)",
    "L8": "a load like a build (L8)",
    "L9": "an idle guest (L9)",
    "L10": "the longest hold of a zone's lock (L10)",
    "L11": "guests on one host (L11)",
    "H1": "the host's half: ebbd beside QEMU's own balloon (H1, H2)",
}


VHOST_USER = "QEMU with the generic vhost-user device"
CGROUP = "memory cgroup"


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
    cgroup: bool = False  # it needs a memory cgroup of its own
    together: str = None  # runs of the same are at the same time

    @property
    def name(self):
        return f"{self.measure}.{self.case}.{self.variant}.{self.round}"

    @property
    def kind(self):
        return f"{self.measure}.{self.case}.{self.variant}"

    @property
    def needs(self):
        return ([guest_name(self.kernel)] * bool(self.kernel) + [VHOST_USER] * self.vhost_user +
                [CGROUP] * self.cgroup)

    @property
    def module(self):
        """The file of the module that its guest loads; None: none."""
        return self.argv[self.argv.index("--module") + 1] if "--module" in self.argv else None


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
    module_faults: tuple  # seconds: to learn the pace, to measure
    jobs: int
    rest_seconds: int
    large_guest: str
    crowd: int  # guests at most


FULL = Scale(rounds=5, curve_rounds=1, memhog="6G", memhog_memory="8G", linux_wait=30, module_wait=12,
             learn_seconds=5, cycle_seconds=15, pauses=[0, 50, 200, 500, 1000, 3000],
             linux_pauses=[0, 200, 1000, 3000], warm_seconds=5, fault_seconds=5, count_seconds=3,
             keeps=[2, 4, 8, 16, 32, 64], fragment_wait=11, order0_wait=45,
             trace_speed=1, bench=[], many=["procs", "threads"], host_memhog="1200M", host_wait=20,
             host_asked=15, host_cycles=10, module_faults=(2, 4), jobs=24, rest_seconds=20, large_guest="16G",
             crowd=10)
QUICK = Scale(rounds=1, curve_rounds=1, memhog="1536M", memhog_memory="2G", linux_wait=18, module_wait=12,
              learn_seconds=3, cycle_seconds=4, pauses=[0, 200, 1000, 3000], linux_pauses=[3000],
              warm_seconds=1, fault_seconds=1, count_seconds=1, keeps=[2, 8], fragment_wait=10.5,
              order0_wait=10.5, trace_speed=20, bench=["--quick"], many=["procs"], host_memhog="600M",
              host_wait=12, host_asked=6, host_cycles=2, module_faults=(1, 1), jobs=8, rest_seconds=6,
              large_guest="4G", crowd=2)


class Plan:
    """All runs of one scale. `ebb`, `drop`, `linux` (a directory) and `traces` are as the command
    lines shall show them."""

    def __init__(self, scale, ebb, drop, linux, traces):
        self.scale, self.ebb, self.drop = scale, ebb, drop
        self.linux, self.traces = linux, traces

    def guest(self, script, *options, memory="2G", cpus=2, settings=(), linux=None, module=None,
              backing="anon"):
        argv = [self.ebb, "run", "--quiet", "--accel", "tcg", "--machine", "q35", "--backing",
                backing, "--cpus", str(cpus), "--memory", memory, *options]
        for setting in settings:
            argv += ["--set", setting]
        if linux:
            argv += ["--guest", "linux", "--kernel", f"{self.linux}/vmlinuz-{linux}",
                     "--initrd", f"{self.linux}/initrd-{linux}", "--timeout", "240"]
        if module:
            argv += ["--module", f"{self.linux}/{module}-{linux}.ko"]
        if module == MODULE:
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

    def linux_run(self, name, n, script, cost, *options, kernel=MAIN_PEER, together=None, vhost_user=False,
                  **more):
        """name: of measure, case and variant."""
        return Run(*name, n, self.guest(script, *options, linux=kernel, **more), cost + 8, kernel=kernel,
                   together=together, vhost_user=vhost_user)

    def l1(self, n):
        """Debian's kernels as they are, and with ebb's module; QEMU's own balloon."""
        s = self.scale

        def run(case, variant, script, wait, **more):
            return self.linux_run(("L1", case, variant), n, f"{script}; idle {wait}", wait + 8, **more)
        for kernel in (MAIN_PEER, OLD_PEER):
            case, script = f"memhog-{kernel}", "idle 1; memhog 75%"
            yield run(case, "module", script, s.module_wait, kernel=kernel, module=MODULE)
            if kernel == MAIN_PEER or n <= s.curve_rounds:
                yield run(case, "stock", script, s.linux_wait, kernel=kernel)
            if kernel == MAIN_PEER and n <= s.curve_rounds:
                yield run(case, "stock-order0", script, s.linux_wait, settings=ORDER_0)
        script = f"fragment 75% {KEPT_JUDGED}"
        yield run("fragment", "module", script, s.module_wait, module=MODULE)
        yield run("fragment", "stock", script, s.module_wait)
        yield run("fragment", "stock-order0", script, s.linux_wait, settings=ORDER_0)

    def l2(self, n):
        """The same QEMU with its own balloon and with ebbd. How long the free takes is known at once."""
        s = self.scale

        def run(host, variant, wait, *options, **more):
            return self.linux_run(("L2", host, variant), n, f"idle 1; memhog 75%; idle {wait}", wait + 8,
                                  "--qemu", "qemu-vhost-user", *options, backing="memfd", vhost_user=True,
                                  **more)
        for host, options in (("qemu", []), ("ebbd", ["--host", "ebbd"])):
            yield run(host, "module", 4, *options, module=MODULE)
            yield run(host, "stock", 2, *options)
            if n <= s.curve_rounds:
                yield run(host, "stock-long", s.linux_wait, *options)

    def l3(self, n):
        s = self.scale
        for variant, module, wait in (("module", MODULE, 5), ("stock", None, s.linux_wait)):
            yield self.linux_run(("L3", "memhog", variant), n, f"idle 1; memhog {s.memhog}; idle {wait}",
                                 wait + 14, memory=s.memhog_memory, module=module)

    def l6(self, n):
        s = self.scale
        for pause in PAUSES_MODULE:
            script = f"cycle 75% {pause} {s.learn_seconds * 3}; cycle 75% {pause} {s.cycle_seconds}"
            cost = s.learn_seconds * 3 + s.cycle_seconds + 2 * pause / 1000
            for variant, options, module in (("module", [], MODULE), ("off", ["--reporting", "off"], None),
                                             ("stock", [], None)):
                if variant != "stock" or n <= s.curve_rounds:
                    yield self.linux_run(("L6", f"{pause}ms", variant), n, script, cost, *options,
                                         module=module)

    def l7(self, n):
        """Side by side as in P4; all cases in one guest, at the same times in both. Instructions are
        counts: more rounds show no more."""
        s = self.scale
        off = ["--reporting", "off"]
        steps, at = [], GUEST_IS_UP
        for mode, tasks, thp in FAULT_CASES:
            for seconds in s.module_faults:
                steps.append(f"idle until {at}; page_fault1 {mode} {tasks} {seconds}{' thp' if thp else ''}")
                at += seconds + FAULTS_MORE
        for variant, options, module in (("module", [], MODULE), ("off", off, None)):
            yield self.linux_run(("L7", "time", variant), n, "; ".join(steps), at, "--pin", *options,
                                 module=module, together="time")
        if n > s.curve_rounds:
            return
        script = f"idle 1; page_fault1 procs 1 {s.count_seconds}; page_fault1 procs 1 {s.count_seconds} thp"
        for variant, options, module in (("module", [], MODULE), ("off", off, None), ("stock", [], None)):
            yield self.linux_run(("L7", "count", variant), n, script, 20 + 24 * s.count_seconds, "--icount",
                                 *options, cpus=1, module=module, together="count")

    def l8(self, n):
        """Side by side, so that both guests have the same CPUs."""
        for variant, module in (("module", MODULE), ("stock", None)):
            yield self.linux_run(("L8", "compile", variant), n, f"idle 2; compile {self.scale.jobs}; idle 4",
                                 self.scale.jobs + 10, "--pin", module=module, together="all")

    def l9(self, n):
        """Side by side: they do nothing."""
        rest = self.scale.rest_seconds
        tell = f"tell /proc/ebb_reporting {' '.join(REST_OF_MODULE)}; tell /proc/stat intr ctxt"
        for variant, options, module in (("module", [], MODULE), ("off", ["--reporting", "off"], None)):
            yield self.linux_run(("L9", "rest", variant), n, f"memhog 25%; idle 8; {tell}; idle {rest}; {tell}",
                                 rest + 12, *options, module=module, together="all")

    def l10(self, n):
        """In guests that count instructions, so that no hold is long because the host stopped the guest.
        More rounds show no more."""
        s = self.scale
        if n > s.curve_rounds:
            return
        for variant, module, settings, wait in (("module", MODULE, (), s.module_wait),
                                                ("stock", HOLDS, (), s.linux_wait),
                                                ("stock-order0", HOLDS, ORDER_0, s.linux_wait)):
            script = f"fragment 12% {KEPT_JUDGED}; idle {wait}; tell /proc/{module} longest_hold_us"
            yield self.linux_run(("L10", "hold", variant), n, script, 90, "--icount", cpus=1, module=module,
                                 memory=s.large_guest, settings=settings, together="all")

    def l11(self, n):
        """Huge pages as Debian's kernel has them by default, with which memory is taken as fast as it can be."""
        for variant, module in (("stock", None), ("module", MODULE)):
            argv = self.guest("idle 0.1; memhog 1536M; idle 900", "--append", "ebb.thp=always", "--qemu",
                              "qemu-system-x86_64", linux=MAIN_PEER, module=module)
            argv.remove("--quiet")  # so that the steps are seen
            yield Run("L11", "crowd", variant, n, ["crowd", str(self.scale.crowd), "4096", "3", *argv],
                      10 * self.scale.crowd, kernel=MAIN_PEER, cgroup=True)

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
                          "--qemu", "qemu-vhost-user", *options, backing="memfd",
                          settings=["report.pacing=delay", "report.delay_ms=100"])
        return Run("H1", "cycles", variant, n, argv, 4 + 3.5 * self.scale.host_cycles, vhost_user=True)

    def host(self, n, case, variant, options, wait, asked, *words):
        # Huge pages as Debian's kernel has them by default; a memfd is what another process can give back.
        argv = self.guest(f"idle 1; memhog {self.scale.host_memhog}; idle {wait}",
                          "--append", " ".join(["ebb.thp=always", *words]),
                          "--qemu", "qemu-vhost-user", *options, linux=MAIN_PEER, backing="memfd")
        argv.remove("--quiet")  # so that the step is seen
        return Run("H1", case, variant, n, ["stall", *asked, *argv], wait + 16, kernel=MAIN_PEER,
                   vhost_user=True)

    def runs(self, only=None):
        """All of them, in the order in which they are to be run."""
        makers = {"P1": self.p1, "P2": self.p2, "P4": self.p4, "P5": self.p5, "P6": self.p6,
                  "P7": self.p7, "P8": self.p8, "P12": self.p12, "L1": self.l1, "L2": self.l2, "L3": self.l3,
                  "L6": self.l6, "L7": self.l7, "L8": self.l8, "L9": self.l9, "L10": self.l10,
                  "L11": self.l11, "H1": self.h1}
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

#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The whole comparison of docs/performance.md: ebb, Linux guests under the same QEMU, and the
bare cost of what both do (`make lab`).

    lab/lab.py run      measure what is not measured yet, then render; Ctrl-C and start again
                        as you like, finished runs are kept
    lab/lab.py plan     list the runs, and how long they take
    lab/lab.py collect  the figures of the runs there are, without running any; with --only the
                        others stay as they were saved
    lab/lab.py render   tables and pictures from saved figures alone

`--quick` takes a few minutes and shows that everything works; its figures go beside its runs, and
never into docs/. Keep the machine quiet.
"""
import argparse
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing is left in the source tree
import figures  # noqa: E402
import measures  # noqa: E402
import page  # noqa: E402

HOME = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
SAVED = os.path.join(HOME, "lab", "results", "performance.json")
DOCS = os.path.join(HOME, "docs")
STALL = os.path.join(HOME, "lab", "stall.py")
CROWD = os.path.join(HOME, "lab", "crowd.py")
ATTEMPTS = 2
QUIET_S = 0.5
BUSY = 0.10  # of all CPUs, used by others: the machine is not quiet


class Stop(Exception):
    """Nothing can go on; the text says why, and what to do."""


# ---- where things are ----

class Place:
    """The work directory of one scale."""

    def __init__(self, args):
        self.top = os.path.abspath(args.dir)
        self.quick = args.quick
        self.runs = os.path.join(self.top, "quick" if args.quick else "full")
        self.linux = os.path.abspath(args.linux) if args.linux else os.path.join(self.top, "linux")
        self.ebb = os.path.abspath(args.ebb)
        self.drop = os.path.abspath(args.drop)
        self.traces = os.path.abspath(args.traces)
        self.qemu = os.path.join(os.path.abspath(args.qemu or os.path.join(self.top, "qemu")),
                                 "qemu-system-x86_64")

    def open(self):
        """Links under names that say nothing of this machine, for the commands to be shown."""
        os.makedirs(self.runs, exist_ok=True)
        for name, target in (("linux", self.linux), ("traces", self.traces)):
            link = os.path.join(self.runs, name)
            if os.path.islink(link):
                os.remove(link)
            os.symlink(target, link)
        self.lock = open(os.path.join(self.runs, "lock"), "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Stop(f"another lab is at work in {self.runs}") from None

    def plan(self, rounds=None):
        scale = measures.QUICK if self.quick else measures.FULL
        if rounds:
            scale = measures.dataclasses.replace(scale, rounds=rounds,
                                                 curve_rounds=min(rounds, scale.curve_rounds))
        os.chdir(self.runs)
        return measures.Plan(scale, "ebb", "drop", "linux", "traces")

    def file(self, run):
        return os.path.join(self.runs, run.name + ".json")

    def build(self, names=("ebb", "ebb-guest.elf", "ebb-guest-history.elf")):
        """What tells one build from another."""
        digest = hashlib.sha256()
        for name in names:
            path = os.path.join(os.path.dirname(self.ebb), name)
            if os.path.exists(path):
                with open(path, "rb") as f:
                    digest.update(f.read())
        return digest.hexdigest()[:16]

    def builds(self, run):
        """The same of what some runs need besides: {what: which}."""
        found = {"ebbd": self.build(["ebbd"])} if run.vhost_user else {}
        if run.module:
            found["module"] = self.build([os.path.join(self.linux, os.path.basename(run.module))])
        return found


def read_json(path):
    with open(path) as f:
        return json.load(f)


def read_figures(path):
    saved = read_json(path)
    if saved.get("version") != figures.VERSION:
        raise Stop(f"{path} is of another version of the lab. Measure all (without --only), or move "
                   "it away.")
    return saved


def write_json(path, value):
    """As a whole, or not at all."""
    with open(path + ".new", "w") as f:
        json.dump(value, f, indent=1)
        f.write("\n")
    os.replace(path + ".new", path)


def load(place, runs):
    """What was stored of these runs: {run name: record}."""
    records = {}
    for run in runs:
        path = place.file(run)
        if not os.path.exists(path):
            continue
        try:
            records[run.name] = read_json(path)
        except ValueError:
            print(f"lab: {path} is no JSON; that run is done again", file=sys.stderr)
    return records


# ---- one run ----

def cpu_seconds():
    """All that the machine's CPUs have done so far."""
    with open("/proc/stat") as f:
        ticks = [int(word) for word in f.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    return sum(sum(resource.getrusage(who)[:2])
               for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def tail(text, lines=12):
    return "\n".join(text.strip().splitlines()[-lines:])


def end(process):
    """Ask first: `ebb run` takes its QEMU along."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()


def problem_of(result):
    """Why the result of a program that ended well is none; None: it is one."""
    if not isinstance(result, dict):
        return "its result is no JSON object"
    if result.get("status", "ok") != "ok":
        return f"status '{result['status']}'"
    if result.get("verify_errors"):
        return f"{result['verify_errors']} frames in use were damaged"
    steps = [words for words in (step.split() for step in result.get("workload", "").split(";"))
             if words and words[0] in ("cycle", "page_fault1", "page_fault2")]
    if steps and len(result.get("results") or []) < len(steps):
        return "the guest told no result of a step"
    return None


def start(place, run, path):
    """The process, or what went wrong."""
    words = {"ebb": place.ebb, "drop": place.drop, "stall": STALL, "crowd": CROWD,
             "qemu-vhost-user": place.qemu, "{json}": path}
    argv = [words.get(run.argv[0], run.argv[0])] + [words.get(word, word) for word in run.argv[1:]]
    if os.path.exists(path):
        os.remove(path)
    try:
        return subprocess.Popen(argv, cwd=place.runs, text=True, errors="replace",
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
    except OSError as error:
        return f"cannot start {argv[0]}: {error.strerror}"


def finish(process, run, path):
    """(result, None), or (None, what went wrong)."""
    if isinstance(process, str):
        return None, process
    try:
        out, err = process.communicate(timeout=120 + 8 * run.seconds)
    except subprocess.TimeoutExpired:
        end(process)
        return None, f"not done after {120 + 8 * run.seconds:.0f} s"
    if process.returncode != 0:
        return None, f"exit {process.returncode}: {tail(err or out)}"
    try:
        result = read_json(path) if "{json}" in run.argv else json.loads(out)
    except (OSError, ValueError) as error:
        return None, f"no result: {error}"
    problem = problem_of(result)
    return (None, problem) if problem else (result, None)


def execute(place, runs):
    """Of each what finish() tells; all at the same time."""
    paths = [os.path.join(place.runs, f"result{i}.json") for i in range(len(runs))]
    processes = []
    try:
        for run, path in zip(runs, paths):
            processes.append(start(place, run, path))
        return [finish(*one) for one in zip(processes, runs, paths)]
    finally:
        for process in processes:
            if not isinstance(process, str) and process.poll() is None:
                end(process)
        for path in paths:
            if os.path.exists(path):
                os.remove(path)


def shown(run):
    return " ".join(f"'{word}'" if " " in word or ";" in word else word
                    for word in run.argv).replace("{json}", "run.json")


def judge(runs, records, done):
    """What came of them. A run that is compared with one beside it fails with that one."""
    lost = {run.case for run, (_, error) in zip(runs, done) if error}
    for run, record, (result, error) in zip(runs, records, done):
        record.update(ok=not error and not (run.together and run.case in lost), result=result)
        if error:
            record["errors"].append(error)
        elif not record["ok"]:
            record["errors"].append("what ran beside it failed")


def do(place, runs, build):
    """Run them at the same time, all once more if one fails, and store what came of them."""
    records = [{"name": run.name, "command": shown(run), **build,
                "started": time.strftime("%Y-%m-%d %H:%M:%S"), "ok": False, "errors": []}
               for run in runs]
    for record, run in zip(records, runs):
        record.update(place.builds(run))
    for _ in range(ATTEMPTS):
        began, cpu, own = time.monotonic(), cpu_seconds(), own_seconds()
        done = execute(place, runs)
        seconds = time.monotonic() - began
        others = max(0.0, cpu_seconds() - cpu - (own_seconds() - own))
        for record in records:
            record["seconds"] = seconds
            record["others"] = others / seconds / os.cpu_count()
        judge(runs, records, done)
        if all(error is None for _, error in done):
            break
    for record, run in zip(records, runs):
        write_json(place.file(run), record)
    return records


# ---- all runs ----

class Clock:
    """How long the rest takes: by kind as the last one took, else by the guess, corrected by how
    wrong guesses have been."""

    def __init__(self):
        self.took, self.guessed, self.real = {}, 1.0, 1.0

    def note(self, run, seconds):
        self.took[run.kind] = seconds
        self.guessed += run.seconds
        self.real += seconds

    def left(self, groups):
        return sum(max(self.took.get(run.kind, run.seconds * self.real / self.guessed)
                       for run in group) for group in groups)


def duration(seconds):
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def shout(text):
    line = "*" * 78
    print(f"{line}\n{text}\n{line}", file=sys.stderr, flush=True)


def get_linux(place, kernel, modules):
    """None: it is there. Else why not. Modules are built whenever somebody wants one, as their sources may
    have changed."""
    files = [os.path.join(place.linux, f"{name}-{kernel}") for name in ("vmlinuz", "initrd")]
    if not modules and all(os.path.exists(path) for path in files):
        return None
    build = os.path.join(HOME, "lab", "linux", "build")
    if not os.path.exists(build):
        return "lab/linux/build is missing"
    print(f"lab: building what Linux {kernel} needs; it is fetched from Debian first if need be", flush=True)
    options = [{measures.MODULE: "--module", measures.HOLDS: "--holds"}[name] for name in sorted(modules)]
    try:
        done = subprocess.run([build, *options, "--kernel", kernel, place.linux], text=True,
                              errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    files += [os.path.join(place.linux, f"{name}-{kernel}.ko") for name in modules]
    if done.returncode == 0 and all(os.path.exists(path) for path in files):
        return None
    return f"lab/linux/build --kernel {kernel}: exit {done.returncode}\n{tail(done.stdout)}"


def get_qemu(place):
    """None: there is one that has the device. Else why not."""
    directory = os.path.dirname(place.qemu)
    if not os.path.exists(place.qemu):
        print(f"lab: a QEMU that has the generic vhost-user device, in {directory}", flush=True)
    try:
        done = subprocess.run([os.path.join(HOME, "scripts", "qemu"), directory], text=True,
                              errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=900)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else tail(done.stdout) or f"exit {done.returncode}"


def get_cgroup():
    """None: this process may make memory cgroups. Else why not."""
    done = subprocess.run([sys.executable, CROWD, "--try"], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    return None if done.returncode == 0 else tail(done.stderr, 1) or f"exit {done.returncode}"


def without_peers(place, runs, no_linux):
    """The runs that can be; says loudly which cannot, and why: {what is missing: why}."""
    missing = {}

    def possible():
        return [run for run in runs if not missing.keys() & set(run.needs)]

    def lacks(name, why, so):
        if why:
            missing[name] = why
            shout(f"NO {name.upper()}: {why}\n{so}")
    for kernel in sorted({run.kernel for run in runs if run.kernel}):
        modules = {os.path.basename(run.module).rsplit("-", 1)[0] for run in runs
                   if run.kernel == kernel and run.module}
        lacks(measures.guest_name(kernel),
              "it was told to do without (--linux none)" if no_linux else get_linux(place, kernel, modules),
              "Nothing is compared with it: only ebb's own side is measured.")
    if any(run.vhost_user for run in possible()):
        lacks(measures.VHOST_USER, get_qemu(place), "The host's half is not measured.")
    if any(run.cgroup for run in possible()):
        lacks(measures.CGROUP, get_cgroup(), "How many guests one host has room for is not measured.")
    return possible(), missing


def check_builds(place, runs, records, build, mixed):
    """Runs of another build of ebb must not end up in one table by accident."""
    old = sorted({run.measure for run in runs
                  if run.name in records and any(
                      records[run.name].get(key) != value
                      for key, value in {"build": build, **place.builds(run)}.items())},
                 key=lambda name: (name[0], int(name[1:])))
    if old and not mixed:
        raise Stop(f"ebb was built anew since runs of {', '.join(old)} were stored in "
                   f"{place.runs}.\nmake lab FRESH=1 ONLY={','.join(old)} forgets those runs, "
                   "make lab FRESH=1 all,\nmake lab MIXED=1 keeps them (and the page says so).")


def forget(place, runs):
    for run in runs:
        if os.path.exists(place.file(run)):
            os.remove(place.file(run))


def note_done(record, run, seconds_left, where):
    what = f"{record['seconds']:.1f} s" if record["ok"] else "FAILED twice"
    if record["ok"] and record["errors"]:
        what += " (failed first)"
    if record["others"] > BUSY:
        what += f", but other programs used {record['others']:.0%} of the CPUs"
    print(f"{where} {run.measure} {run.case}, {run.variant}, round {run.round}: {what}; "
          f"about {duration(seconds_left)} left", flush=True)
    for error in record["errors"]:
        print("    " + error.replace("\n", "\n    "), flush=True)


def grouped(runs):
    """Lists of what is to run at the same time."""
    groups = {}
    for run in runs:
        key = (run.measure, run.round, run.together) if run.together else run.name
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def do_all(place, runs, records, build):
    clock = Clock()
    for run in runs:
        if records.get(run.name, {}).get("ok"):
            clock.note(run, records[run.name]["seconds"])
    to_do = [group for group in grouped(runs)
             if not all(records.get(run.name, {}).get("ok") for run in group)]
    left = sum(len(group) for group in to_do)
    if left < len(runs):
        print(f"lab: {len(runs) - left} of {len(runs)} runs are done already")
    print(f"lab: {left} runs, about {duration(clock.left(to_do))}", flush=True)
    done = 0
    for i, group in enumerate(to_do):
        for run, record in zip(group, do(place, group, build)):
            done += 1
            records[run.name] = record
            if record["ok"]:
                clock.note(run, record["seconds"])
            note_done(record, run, clock.left(to_do[i + 1:]), f"[{done}/{left}]")


# ---- what comes of it ----

def save(place, plan, runs, records, missing, only):
    """The figures of all that has been run; where they are. Those of measures that were not asked
    for stay."""
    path = os.path.join(place.runs, "performance.json") if place.quick else SAVED
    kept = read_figures(path) if only and not place.quick and os.path.exists(path) else None
    saved = figures.collect(plan, runs, records, missing, place.quick, kept, only)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(path, saved)
    return path


def render(path, out=None):
    """Tables and pictures into `out`, docs/ if there is none. Of a quick run: a page of its own."""
    saved = read_figures(path)
    directory = out or (os.path.dirname(os.path.abspath(path)) if saved["quick"] else DOCS)
    target = os.path.join(directory, "performance.md")
    if not os.path.exists(target) or os.path.abspath(directory) != DOCS:
        shutil.copy(os.path.join(DOCS, "performance.md"), target)
    page.render(saved, target)
    return target


def collect(place, plan, all_runs, missing, only):
    path = save(place, plan, all_runs, load(place, all_runs), missing, only)
    target = render(path)
    print(f"\n{page.verdict(read_json(path))}\nWrote {os.path.relpath(path, HOME)} and "
          f"{os.path.relpath(target, HOME)}.")


def need_programs(place, runs):
    programs = [place.ebb, place.drop]
    if any(run.vhost_user for run in runs):
        programs.append(os.path.join(os.path.dirname(place.ebb), "ebbd"))
    for path in programs:
        if not os.path.exists(path):
            raise Stop(f"{path} is missing: make build")
    for program in ("qemu-system-x86_64", "gnuplot"):
        if not shutil.which(program):
            raise Stop(f"{program} is not installed (scripts/setup run installs it)")
    if not runs:
        raise Stop("nothing to run")


def need_quiet(args):
    before = cpu_seconds()
    time.sleep(QUIET_S)
    busy = (cpu_seconds() - before) / os.cpu_count() / QUIET_S
    if busy > BUSY:
        shout(f"This machine is not quiet: {busy:.0%} of its CPUs are in use. "
              + ("Figures are to look at only." if args.quick else
                 "Times and ratios may be wrong. Better stop what else runs."))


def need_traces(plan, only):
    if (only and "P7" not in only) or plan.trace_names(plan.traces):
        return
    shout(f"NO TRACES in {os.path.realpath(plan.traces)}: P7 is not measured. make lab TRACES=DIR "
          "says where there are some.")


def command_run(args):
    place = Place(args)
    place.open()
    plan = place.plan(args.rounds)
    all_runs = plan.runs()
    runs = plan.runs(args.only)
    need_programs(place, runs)
    if args.fresh:
        forget(place, runs)
    build = place.build()
    need_quiet(args)
    need_traces(plan, args.only)
    if args.quick:
        print("lab: QUICK: one round of smaller sizes. It shows that all works; its figures "
              "prove nothing.")
    possible, missing = without_peers(place, runs, args.linux == "none")
    check_builds(place, possible, load(place, possible), build, args.mixed)
    # Of the tree as it is now: what is edited while runs go on is in none of them.
    commit = figures.commit()
    do_all(place, possible, load(place, possible), {"build": build, "commit": commit})
    collect(place, plan, all_runs, missing, args.only)


def command_plan(args):
    runs = Place(args)
    os.makedirs(runs.runs, exist_ok=True)
    runs.open()
    plan = runs.plan(args.rounds).runs(args.only)
    for run in plan:
        print(f"{run.name:36} {run.seconds:5.0f} s  {shown(run)}")
    seconds = sum(max(run.seconds for run in group) for group in grouped(plan))
    print(f"{len(plan)} runs, about {duration(seconds)}")


def command_collect(args):
    place = Place(args)
    place.open()
    plan = place.plan(args.rounds)
    collect(place, plan, plan.runs(), {}, args.only)


def command_render(args):
    path = args.figures or SAVED
    if not os.path.exists(path):
        raise Stop(f"{path} is missing: make lab measures, and writes it")
    print(f"Wrote {render(path, args.out)}.")


def measures_of(text):
    names = [name.strip().upper() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in measures.MEASURES:
            raise argparse.ArgumentTypeError(
                f"no measure is called '{name}': " + "; ".join(
                    f"{key}: {what}" for key, what in measures.MEASURES.items()))
    return names


def count(text):
    if not text.isdigit() or not 1 <= int(text) <= 99:
        raise argparse.ArgumentTypeError("rounds are 1 to 99")
    return int(text)


def parse():
    build = os.path.join(HOME, "build")
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "plan", "collect", "render"])
    parser.add_argument("figures", nargs="?", help="of render: the saved figures "
                        "(default lab/results/performance.json)")
    parser.add_argument("--dir", default=os.environ.get("LAB_DIR", os.path.join(build, "lab")),
                        help="work directory (default $LAB_DIR, else build/lab)")
    parser.add_argument("--ebb", default=os.path.join(build, "bin", "ebb"))
    parser.add_argument("--drop", default=os.path.join(build, "lab", "drop"))
    parser.add_argument("--linux", metavar="DIR|none",
                        help="kernels of lab/linux/build (default: below the work directory)")
    parser.add_argument("--qemu", metavar="DIR", default=os.environ.get("EBB_QEMU_DIR"),
                        help="of scripts/qemu, for ebbd (default $EBB_QEMU_DIR, else below the work "
                        "directory)")
    parser.add_argument("--traces", default=os.environ.get(
        "LAB_TRACES", os.path.join(HOME, "lab", "traces")),
        help="directory of recorded traces (default $LAB_TRACES, else lab/traces)")
    parser.add_argument("--only", type=measures_of, metavar="P1,P6",
                        help="these measures only: " + "; ".join(
                            f"{key}: {what}" for key, what in measures.MEASURES.items()))
    parser.add_argument("--rounds", type=count, help="instead of 5 (quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a few minutes")
    parser.add_argument("--fresh", action="store_true", help="forget the runs there are")
    parser.add_argument("--mixed", action="store_true", help="keep runs of another build of ebb")
    parser.add_argument("--out", help="of render: where the page goes (default docs/)")
    return parser.parse_args()


def main():
    args = parse()
    # An end by `kill` as one by Ctrl-C: no child stays.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        {"run": command_run, "plan": command_plan, "collect": command_collect,
         "render": command_render}[args.what](args)
    except Stop as stop:
        sys.exit(f"lab: {stop}")
    except KeyboardInterrupt:
        sys.exit("\nlab: stopped. What is done is kept: the same command goes on from here.")


main()

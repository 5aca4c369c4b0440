# SPDX-License-Identifier: BSD-2-Clause
"""From stored runs to the figures that the page shows: one row per bar, tables, curves.

A *sample* is {"median", "min", "max", "n"} over the rounds. Ratios are made within a round and
then summed up, so that what changes from round to round is in both of their sides. What failed
or was not run is never left out: it is counted, and says why.
"""
import os
import platform
import re
import shutil
import statistics
import subprocess

import measures

HOME = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
LINUX = "Linux " + measures.MAIN_PEER
BUSY = 0.10
VERSION = 2  # of the saved figures

OPS = {">=": lambda value, limit: value >= limit, "<=": lambda value, limit: value <= limit}


def sample(values):
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "n": len(values)}


class AtLeast(float):
    """What had not come to an end when the run did."""


class Series:
    """One value per round of one variant, and what is missing of it."""

    def __init__(self, values, errors=(), absent=None, name=None, command=None, never=0):
        self.values, self.errors, self.absent = values, list(errors), absent
        self.name, self.command = name, command
        self.never = never  # runs that did not come to it

    def json(self):
        found = sample(self.values.values()) or {"median": None, "min": None, "max": None, "n": 0}
        open_ended = sum(isinstance(value, AtLeast) for value in self.values.values())
        return dict(found, name=self.name, failed=len(self.errors), at_least=open_ended,
                    never=self.never, absent=self.absent)


def combine(one, other, how):
    """Round by round."""
    return {n: how(one.values[n], other.values[n]) for n in one.values if n in other.values}


def ratios(top, bottom):
    return {n: one for n, one in combine(top, bottom,
                                         lambda a, b: a / b if b else None).items()
            if one is not None}


class Data:
    """The records of the runs, by measure, case and variant."""

    def __init__(self, plan, runs, records, missing):
        self.plan, self.missing = plan, missing
        self.runs, self.records = {}, records
        for run in runs:
            self.runs.setdefault((run.measure, run.case, run.variant), []).append(run)

    def cases(self, measure):
        return list(dict.fromkeys(key[1] for key in self.runs if key[0] == measure))

    def good(self, measure, case, variant):
        """{round: result} of the runs that went well."""
        return {run.round: self.records[run.name]["result"]
                for run in self.runs.get((measure, case, variant), [])
                if self.records.get(run.name, {}).get("ok")}

    def series(self, measure, case, variant, value, name=None):
        values, errors, command, needed, never = {}, [], None, [], 0
        for run in self.runs.get((measure, case, variant), []):
            record = self.records.get(run.name)
            needed = run.needs
            if not record:
                continue
            command = record["command"]
            if not record["ok"]:
                errors.append(f"round {run.round}: {record['errors'][-1]}")
                continue
            try:
                values[run.round] = value(record["result"])
            except (KeyError, IndexError, TypeError, ZeroDivisionError, StopIteration) as error:
                values[run.round] = None
                errors.append(f"round {run.round}: its result does not have that figure "
                              f"({type(error).__name__} {error})")
                continue
            if values[run.round] is None:
                never += 1
        absent = None
        if not command:
            absent = "not run"
            for name in needed:
                if name in self.missing:
                    absent = f"no {name}"
        values = {n: one for n, one in values.items() if one is not None}
        return Series(values, errors, absent, name, command, never)


# ---- bars ----

def verdict(judged, need, limit, sides):
    """The first side is ebb's: what it did not come to at all falls short."""
    errors = [error for side in sides for error in side.errors]
    if judged:
        return "met" if OPS[need](judged["median"], limit) else "falls short"
    if sides[0].never:
        return "falls short"  # also of what is no number any more
    if any(side.never for side in sides):
        return "not measured: it did not come to an end"
    if errors:
        return "failed"
    absent = [side.absent for side in sides if side.absent]
    return "not measured" + (f": {absent[0]}" if absent else "")


def bar(name, what, unit, ebb, peer, need, limit, less=False, other=True, over=None, digits=2):
    """A row of the table. The ratio is ebb's value by the peer's; with `over`, the other way round.
    `less`: less is better. `other`: the peer is somebody else, not ebb without reporting."""
    found = sample((ratios(peer, ebb) if over else ratios(ebb, peer)).values())
    ours, theirs = sample(ebb.values.values()), sample(peer.values.values())
    worse = bool(other and ours and theirs and (
        ours["median"] > theirs["median"] if less else ours["median"] < theirs["median"]))
    return {"bar": name, "what": what, "unit": unit, "ebb": ebb.json(), "peer": peer.json(),
            "ratio": found, "ratio_of": f"{peer.name} / {ebb.name}" if over else
            f"{ebb.name} / {peer.name}", "need": f"{need} {limit:g}", "digits": digits,
            "verdict": verdict(found, need, limit, (ebb, peer)), "worse": worse,
            "errors": [f"{side.name}, {error}" for side in (ebb, peer) for error in side.errors]}


def plain(name, what, unit, ebb, need, limit, peer=None, best=None, less=True):
    """A bar about ebb's value itself. `peer` is a text, and `best` the best value in it."""
    theirs = {"text": peer}
    found = sample(ebb.values.values())
    worse = bool(found and best is not None and
                 (found["median"] > best if less else found["median"] < best))
    return {"bar": name, "what": what, "unit": unit, "ebb": ebb.json(), "peer": theirs,
            "ratio": None, "ratio_of": None, "need": f"{need} {limit:g} {unit}".strip(),
            "verdict": verdict(found, need, limit, (ebb,)), "worse": worse, "digits": 2,
            "errors": [f"{ebb.name}, {error}" for error in ebb.errors]}


# ---- values of a result ----

def step_of(result, step):
    """The last one of that name."""
    return next(row for row in reversed(result["results"]) if row["step"] == step)


def host_at(result, after_ms):
    at = result["release_ms"] + after_ms
    return next((row[2] for row in result["samples"] if row[0] >= at), None)


def held(result):
    return result["returned_mib"] + result["samples"][-1][2]


def share_back(result, after_ms):
    host = host_at(result, after_ms)
    return None if host is None else (held(result) - host) / result["freed_mib"]


def time_back(result, share):
    most, freed = held(result), result["freed_mib"]
    return next((row[0] - result["release_ms"] for row in result["samples"]
                 if row[0] >= result["release_ms"] and most - row[2] >= share * freed), None)


def time_or_more(result, key):
    """For a peer: that it had not come so far by the end of the run is no reason to drop it."""
    if result[key] is not None:
        return result[key]
    return AtLeast(result["samples"][-1][0] - result["release_ms"])


def t99_or_more(result):
    return time_or_more(result, "t99_ms")


def first_free(result):
    """When the guest's use, after its largest, begins to fall towards the release."""
    before = [row for row in result["samples"] if row[0] <= result["release_ms"]]
    most = max(row[1] for row in before)
    last = max(row[0] for row in before if row[1] >= 0.99 * most)
    return last


def cpu_ms(result, column, begin=None):
    """CPU time until 99 % were back and a second more, from the first free or `begin`. Column 3: of
    the virtual CPUs, 4: of all other threads of QEMU."""
    begin, rows = first_free(result) if begin is None else begin, result["samples"]
    first = next(row[column] for row in rows if row[0] >= begin)
    until = None
    if result["t99_ms"] is not None:
        until = result["release_ms"] + result["t99_ms"] + 1000
    if until is None or until > rows[-1][0]:
        return AtLeast((rows[-1][column] - first) / 1e6)
    return (next(row[column] for row in rows if row[0] >= until) - first) / 1e6


def all_of(value):
    """For ebb itself: only what came to its end."""
    def known(result):
        found = value(result)
        return None if isinstance(found, AtLeast) else found
    return known


def cycle_step(result):
    return next(step for step in reversed(result["steps"]) if step["cmd"].startswith("cycle "))


def cycle_window(result):
    """Of the samples, those of the cycle step."""
    step = cycle_step(result)
    return [row for row in result["samples"] if step["begin_ms"] <= row[0] <= step["end_ms"]]


def cycle_mean(result):
    return cycle_step(result)["mean_resident_mib"]


def cycle_speed(result):
    """From the second cycle on: what it takes to learn the pace is in it."""
    steps = [step for step in result["results"] if step["step"] == "cycle"]
    return sum(step["frames"] for step in steps) / sum(step["busy_ns"] for step in steps) * 1e9


def cycle_learned(result):
    """Of the last step alone."""
    step = [step for step in result["results"] if step["step"] == "cycle"][-1]
    return step["frames"] / step["busy_ns"] * 1e9


def fault_speed(result):
    """Once warm."""
    step = step_of(result, "page_fault1")
    return step["pages"] / step["elapsed_ns"] * 1e9


def fault_speed_all(result):
    """With the step before, in which the pace is learned."""
    steps = [step for step in result["results"] if step["step"] == "page_fault1"]
    return sum(step["pages"] for step in steps) / sum(step["elapsed_ns"] for step in steps) * 1e9


def fault_ns(result):
    step = step_of(result, "page_fault1")
    return step["elapsed_ns"] / step["faults"]


def clear_ns(result):
    step = step_of(result, "page_fault1")
    return step["clear_ns"] or None


def fault_ns_apart(result):
    clear = clear_ns(result)
    return None if clear is None else fault_ns(result) - clear


def drop_ms(result):
    return statistics.median(one["drop_ms"] for one in result["times"])


def excess(result):
    return result["with_reporting"]["resident_mib"] - result["live_mib"]


# ---- what could be reached ----

def gaps(samples):
    """[(seconds, MiB)]: so much memory was free for so long, and then in use again."""
    found, free, live = [], [], 0
    for row in samples:
        now, before, live = row[0] / 1000, live, row[1]
        if live < before:
            free.append([now, live, before])
        while free and free[-1][1] < live:
            since, low, high = free[-1]
            found.append((now - since, min(high, live) - low))
            if high > live:
                free[-1][1] = live
            else:
                free.pop()
    return found


def foresight(samples, held):
    """MiB that refault if somebody who knows the future keeps what is needed soonest, and may hold
    so many MiB x seconds for that."""
    refaulted = 0
    for seconds, mib in sorted(gaps(samples)):
        kept = min(mib, held / seconds if seconds else mib)
        held -= kept * seconds
        refaulted += mib - kept
    return refaulted


def refaults(ours, off):
    """MiB that were faulted in beyond what no reporting does."""
    return (ours["with_reporting"]["page_faults"] - off["without_reporting"]["page_faults"]) / 256


def longer(ours, off, key):
    """ms that the same took longer with reporting, for each MiB that refaulted."""
    more = ours["with_reporting"][key] - off["without_reporting"][key]
    return max(more, 0) / refaults(ours, off) if refaults(ours, off) > 0 else None


# ---- the measures ----

def table(title, columns, rows, note=None):
    return {"title": title, "columns": columns, "rows": rows, "note": note}


def cell(series, digits=1, scale=1):
    """For a table: a sample, scaled, and what is missing of it."""
    found = series.json()
    for key in ("median", "min", "max"):
        if found[key] is not None:
            found[key] *= scale
    return dict(found, digits=digits, absent=series.absent)


def commands_of(data, measure, cases_variants):
    found = {}
    for name, case, variant in cases_variants:
        for run in data.runs.get((measure, case, variant), []):
            record = data.records.get(run.name)
            if record:
                found[name] = record["command"]
    return found


def floor_ms():
    with open(os.path.join(HOME, "include", "ebb", "report.h")) as f:
        return float(re.search(r"EBB_REPORT_WINDOW_MIN_MS\s+(\d+)", f.read()).group(1))


def p1(data):
    size = data.plan.scale.memhog

    def of(variant, value, name):
        return data.series("P1", "memhog", variant, value, name)

    def t(key):
        return lambda result: result[key]
    ebb = of("ebb", t("t99_ms"), "ebb")
    linux = of("linux", t99_or_more, LINUX)
    bare = of("drop", drop_ms, "bare")
    allowed = Series({n: floor_ms() + 2 * ms for n, ms in bare.values.items()}, bare.errors,
                     bare.absent, "floor + 2 x bare", bare.command)
    bars = [bar("P1", f"{size} freed: until 99 % are back", "ms", ebb, linux, ">=", 20, less=True,
                over=True, digits=1),
            bar("P1", f"the same, by the floor of the window ({floor_ms():.0f} ms) and twice the "
                "bare cost", "ms", ebb, allowed, "<=", 1, less=True, other=False)]
    columns = (("guest", 3), ("host", 4))
    for which, column in columns:
        bars.append(bar("P11", f"{which} CPU time, from the first free until 99 % are back and a "
                        "second more", "ms",
                        of("ebb", all_of(lambda result, c=column: cpu_ms(result, c)), "ebb"),
                        of("linux", lambda result, c=column: cpu_ms(result, c), LINUX),
                        "<=", 1, less=True))
    work = [[name] + [cell(of(variant, lambda r, c=column, b=begin: cpu_ms(
        r, c, None if b == "first" else r["release_ms"]), name), 0)
                      for begin in ("first", "last") for _, column in columns]
            for name, variant in (("ebb", "ebb"), (LINUX, "linux"))]
    keys = ("t50_ms", "t90_ms", "t99_ms")
    rows = [[name] + [cell(of(variant, t(key), name), 0) for key in keys]
            for name, variant in (("ebb", "ebb"), (LINUX, "linux"))]
    rows.append(["bare cost of dropping it", None, None, cell(bare, 0)])
    return {"bars": bars,
            "tables": [table("Milliseconds after the last free until so much was back",
                             ["", "50 %", "90 %", "99 %"], rows),
                       table("CPU time of QEMU, ms, until a second after 99 % were back",
                             ["", "guest, from the first free", "host", "guest, from the last free",
                              "host"], work)],
            "commands": commands_of(data, "P1", [("ebb", "memhog", "ebb"),
                                                 (LINUX, "memhog", "linux"),
                                                 ("bare", "memhog", "drop")])}


CYCLES = [("ebb", "ebb-on"), ("ebb, reporting off", "ebb-off"),
          ("ebb, a fixed delay of 100 ms", "ebb-eager"), (LINUX, "linux-on"),
          (f"{LINUX}, reporting off", "linux-off")]


def p2(data):
    bars, rows = [], []
    for pause, limit in measures.PAUSES_JUDGED.items():
        case = f"{pause}ms"
        if case not in data.cases("P2"):
            continue
        bars.append(bar("P2", f"frames taken and freed per busy second, pause {pause} ms, from the second cycle on",
                        "frames/s", data.series("P2", case, "ebb-on", cycle_speed, "on"),
                        data.series("P2", case, "ebb-off", cycle_speed, "off"), ">=", limit,
                        other=False, digits=3))
        bars.append(bar("P2", f"the same, once the pace is learned, pause {pause} ms",
                        "frames/s", data.series("P2", case, "ebb-on", cycle_learned, "on"),
                        data.series("P2", case, "ebb-off", cycle_learned, "off"), ">=", limit,
                        other=False, digits=3))
    case = f"{measures.PAUSE_P3}ms"
    bars.append(bar("P3", "resident memory on average, pause 3 s", "MiB",
                    data.series("P2", case, "ebb-on", cycle_mean, "ebb"),
                    data.series("P2", case, "linux-on", cycle_mean, LINUX), "<=", 0.7,
                    less=True))
    for case in data.cases("P2"):
        rows.append([case.replace("ms", " ms")] +
                    [cell(data.series("P2", case, variant, cycle_speed), 0, 1e-3)
                     for _, variant in CYCLES])
    means = [[case.replace("ms", " ms")] +
             [cell(data.series("P2", case, variant, cycle_mean), 0) for _, variant in CYCLES]
             for case in data.cases("P2")]
    columns = ["pause"] + [name for name, _ in CYCLES]
    return {"bars": bars, "tables": [table("Thousand frames per busy second", columns, rows),
                                     table("Resident, MiB, average over the time of the step",
                                           columns, means)],
            "commands": commands_of(data, "P2", [(name, case, variant)
                                                 for name, variant in CYCLES])}


def fault_case(case):
    mode, *rest = case.split("-")
    tasks = f" {rest[0]}" if len(rest) == 2 else ""
    return f"page_fault1 {mode}{tasks}, {'2 MiB' if rest[-1] == 'thp' else '4 KiB'}"


def on_off(data, measure, value, what, unit, need, limit, bar_name=None, digits=3):
    return [bar(bar_name or measure, what(case), unit,
                data.series(measure, case, "on", value, "on"),
                data.series(measure, case, "off", value, "off"), need, limit, other=False,
                less=need == "<=", digits=digits)
            for case in data.cases(measure)]


def p4(data):
    bars = on_off(data, "P4", fault_speed, lambda case: f"pages per second, {fault_case(case)}",
                  "pages/s", ">=", 0.99)
    bars += on_off(data, "P4", fault_speed_all,
                   lambda case: f"the same from its start on, {fault_case(case)}", "pages/s", ">=",
                   0.99)
    return {"bars": bars, "tables": [],
            "commands": commands_of(data, "P4", [("time, reporting on", "procs-1-4k", "on")])}


def p5(data):
    variants = [("ebb", "on"), (LINUX, f"linux-{measures.MAIN_PEER}"),
                (f"Linux {measures.OLD_PEER}", f"linux-{measures.OLD_PEER}")]

    def of(case, variant, value, name=None):
        return data.series("P5", case, variant, value, name)
    bars = on_off(data, "P5", fault_ns,
                  lambda case: f"instructions per fault, {fault_case(case)}", "instructions",
                  "<=", 1.002, "P4", 5)
    bars += [bar("P5", "instructions per 4 KiB fault, without the clearing loop", "instructions",
                 of("procs-4k", "on", fault_ns_apart, "ebb"),
                 of("procs-4k", variants[1][1], fault_ns_apart, LINUX), "<=", 0.5, less=True)]
    tables = []
    for case in ("procs-4k", "procs-thp"):
        rows = [[name] + [cell(of(case, variant, value), 0)
                          for value in (fault_ns, clear_ns, fault_ns_apart)]
                for name, variant in variants if ("P5", case, variant) in data.runs]
        tables.append(table(f"Instructions per fault, {fault_case(case)}",
                            ["", "all", "of it clearing", "without clearing"], rows))
    return {"bars": bars, "tables": tables,
            "commands": commands_of(data, "P5", [(name, "procs-4k", variant) for name, variant in
                                                 variants + [("ebb, reporting off", "off")]])}


FRAGMENTS = [("ebb", "ebb"), (LINUX, "linux"), (f"{LINUX}, order 0", "linux-order0")]


def p6(data):
    case = f"every-{measures.KEPT_JUDGED}"

    def within(seconds):
        return lambda result: share_back(result, 1000 * seconds)

    def of(case, variant, value, name=None):
        return data.series("P6", case, variant, value, name)

    def percent(series):
        return Series({n: 100 * value for n, value in series.values.items()}, series.errors,
                      series.absent, series.name, series.command)
    ours = percent(of(case, "ebb", within(5), "ebb"))
    theirs = [percent(of(case, variant, within(5), name)).json() for name, variant in FRAGMENTS[1:]]
    known = [one["median"] for one in theirs if one["median"] is not None]
    text = "; ".join(f"{one['name']}: {one['median']:.1f} %" for one in theirs
                     if one["median"] is not None)
    bars = [plain("P6", "every 8th frame stays in use: share of the freed memory that is back "
                  "within 5 s", "%", ours, ">=", 95, text, max(known, default=None), less=False)]
    rows = [[name, cell(of(case, variant, within(5)), 1, 100),
             cell(of(case, variant, within(10)), 1, 100),
             cell(of(case, variant, lambda result: time_back(result, 0.95)), 1, 1e-3)]
            for name, variant in FRAGMENTS]
    shares = [[f"one in {case.split('-')[1]}"] +
              [cell(of(case, variant, within(10)), 1, 100) for _, variant in FRAGMENTS]
              for case in data.cases("P6")]
    return {"bars": bars,
            "tables": [table("Every 8th frame stays in use", ["", "back within 5 s, %",
                                                              "within 10 s, %", "95 % after, s"],
                             rows),
                       table("Share of the freed memory that is back within 10 s, %",
                             ["kept"] + [name for name, _ in FRAGMENTS], shares)],
            "commands": commands_of(data, "P6", [(name, case, variant)
                                                 for name, variant in FRAGMENTS])}


def stand_ins(what, *names):
    """Rows for bars of which only a result says how many there are."""
    none = Series({}, absent="not run", name="ebb")
    return [plain(name, what, "", none, "<=", 0) | {"need": "-"} for name in names]


def best_row(case, data):
    """What half of the memory that the merged kernel's pacing holds could be good for."""
    def of(variant):
        return data.series("P7", case, variant, lambda result: result)

    def series(values):
        return Series({n: value for n, value in values.items() if value is not None})
    both = Series(combine(of("ebb"), of("off"), lambda ours, off: (ours, off)))
    best = series(combine(of("ebb"), of("kernel"), lambda ours, kernel: foresight(
        ours["samples"], excess(kernel) / 2 * ours["duration_ms"] / 1000)))

    def share(key):
        def of_round(pair, mib):
            more, all_of_it = longer(*pair, key), pair[1]["without_reporting"][key]
            return None if more is None else all_of_it / (all_of_it + more * mib)
        return cell(series(combine(both, best, of_round)), 1, 100)
    each = {n: longer(*pair, "busy_ms") for n, pair in both.values.items()}
    return [case, cell(series({n: refaults(*pair) for n, pair in both.values.items()}), 0),
            cell(best, 0), cell(series(each), 1, 1000 / 256), share("busy_ms"), share("wall_ms")]


def p7(data):
    bars, rows = [], []
    if not data.cases("P7"):
        bars = stand_ins("recorded traces: there were none", "P7")

    def of(case, variant, value, name=None):
        return data.series("P7", case, variant, value, name)

    def per_second(result, which, key):
        return result["records"] / result[which][key] * 1000

    def speed(which, key):
        return lambda result: per_second(result, which, key)
    for case in data.cases("P7"):
        bars.append(bar("P7", f"trace {case}: resident less live, average over time", "MiB",
                        of(case, "ebb", excess, "ebb"),
                        of(case, "kernel", excess, "the merged kernel's pacing"), "<=", 0.5,
                        less=True))
        for what, key in (("busy second", "busy_ms"),
                          ("second as played, pauses included", "wall_ms")):
            bars.append(bar("P7", f"trace {case}: records per {what}", "records/s",
                            of(case, "ebb", speed("with_reporting", key), "on"),
                            of(case, "off", speed("without_reporting", key), "off"), ">=", 0.97,
                            other=False, digits=3))
        rows.append([case, cell(of(case, "ebb", lambda result: result["live_mib"]), 1),
                     cell(of(case, "ebb", lambda r: r["with_reporting"]["resident_mib"]), 1),
                     cell(of(case, "kernel", lambda r: r["with_reporting"]["resident_mib"]), 1),
                     cell(of(case, "off", lambda r: r["without_reporting"]["resident_mib"]), 1)])
    case = (data.cases("P7") or [""])[0]
    return {"bars": bars,
            "tables": [table("MiB, average over the time of the trace",
                             ["trace", "live", "resident: ebb", "the merged kernel's pacing",
                              "no reporting"], rows),
                       table("At best, by one who knows the future and holds half of what the merged "
                             "kernel's pacing holds for nothing",
                             ["trace", "refaults: ebb, MiB", "at best, MiB", "us each",
                              "throughput of busy time at best, %", "as played, %"],
                             [best_row(case, data) for case in data.cases("P7")])],
            "commands": commands_of(data, "P7", [("ebb", case, "ebb"),
                                                 ("the merged kernel's pacing", case, "kernel")])}


def llfree(published, unit):
    """(text, best) of what others' builds were measured to take."""
    known = [value for value in (published or {}).values() if value]
    if not known:
        return None, None
    low, high = number(min(known)), number(max(known))
    return f"LLFree: {low if low == high else low + '-' + high} {unit}", min(known)


def number(value):
    return f"{value:.3g}"


def plain_text(text):
    """ "b1    free at random" has blanks to line up in a terminal."""
    return " ".join(text.split())


def bare(text):
    return (text or "-").replace("LLFree: ", "")


def threads_text(one):
    return f"{one['gib']} GiB, {one['threads']} thread{'s' * (one['threads'] > 1)}"


def most_of(result, what):
    """Of a bar that the bench itself judges."""
    return next((row["most"] for row in result["verdict"] if what in row["what"]), None)


def alloc_series(data, find):
    return data.series("P8", "alloc", "ebb", find, "ebb")


def time_bars(data, result):
    """Every case that has a bar. Values are the medians of each run of the bench."""
    for k, one in enumerate(result["cases"]):
        if one["most_ns"] is not None:
            yield plain("P8" if one["threads"] == 1 else "P9",
                        f"{plain_text(one['text'])}, {threads_text(one)}", "ns",
                        alloc_series(data, lambda r, k=k: r["cases"][k]["ns"]["median"]), "<=",
                        one["most_ns"], *llfree(one["published"], "ns"))
        if one["case"] == "a" and one["threads"] == 2:
            yield plain("P9", f"{plain_text(one['text'])}, {one['gib']} GiB: two threads over one",
                        "",
                        alloc_series(data, lambda r, k=k: r["cases"][k]["two_over_one"]["median"]),
                        "<=", most_of(result, "two threads over one"), "LLFree: 1.0", 1.0)


def memory_bars(data, result):
    for k, one in enumerate(result["memory"]):
        yield plain("P10", f"initialisation, {one['gib']} GiB, per GiB", "us",
                    alloc_series(data, lambda r, k=k: r["memory"][k]["init_us_per_gib"]["median"]),
                    "<=", most_of(result, "initialisation"),
                    *llfree(one["published_init_us_per_gib"], "us"))
        yield plain("P10", f"metadata, {one['gib']} GiB, per frame", "bytes",
                    alloc_series(data, lambda r, k=k: r["memory"][k]["bytes_per_frame"]), "<=",
                    most_of(result, "metadata"),
                    *llfree(one["published_bytes_per_frame"], "bytes"))


def p8(data):
    good = data.good("P8", "alloc", "ebb")
    commands = commands_of(data, "P8", [("ebb", "alloc", "ebb")])
    if not good:
        errors = alloc_series(data, lambda result: None).errors
        bars = stand_ins("ebb bench alloc", "P8", "P9", "P10")
        for row in bars if errors else []:
            row.update(verdict="failed", errors=errors, ebb=dict(row["ebb"], failed=len(errors)))
        return {"bars": bars, "tables": [], "commands": commands}
    result = good[min(good)]
    cases = [[plain_text(one["text"]), threads_text(one),
              cell(alloc_series(data, lambda r, k=k: r["cases"][k]["ns"]["median"]), 1),
              cell(alloc_series(data, lambda r, k=k: r["cases"][k]["idle_ns"]["median"]), 1)
              if one["idle_ns"] else None, bare(llfree(one["published"], "ns")[0])]
             for k, one in enumerate(result["cases"])]
    wholes = [[threads_text(one)] +
              [cell(alloc_series(data, lambda r, k=k, key=key: r["whole_blocks"][k][key]["median"]),
                    1) for key in ("mixed_percent", "thinned_percent")] +
              [bare(llfree(one[f"published_{key}"], "%")[0])
               for key in ("mixed_percent", "thinned_percent")]
             for k, one in enumerate(result["whole_blocks"])]
    tables = [table("Nanoseconds of an operation; idle: an engine is registered, all is reported",
                    ["", "", "no reporting", "idle", "LLFree"], cases),
              table("Of the free frames, the share in whole free blocks of 2 MiB, %",
                    ["", "after d", "after freeing 80 % of what lives", "LLFree", "LLFree"],
                    wholes, result["published"])]
    return {"bars": list(time_bars(data, result)) + list(memory_bars(data, result)),
            "tables": tables, "commands": commands}


def p12(data):
    bars = on_off(data, "P12", fault_speed,
                  lambda case: f"pages per second, page_fault1 {case} 16, 16 virtual CPUs",
                  "pages/s", ">=", 0.97)
    bars += on_off(data, "P12", fault_speed_all,
                   lambda case: f"the same from its start on, {case} 16", "pages/s", ">=", 0.97)
    return {"bars": bars, "tables": [],
            "commands": commands_of(data, "P12", [("reporting on", "procs", "on")])}


def cpu_after(result, columns=(3, 4)):
    """CPU time of QEMU's threads (column 3: the guest's CPUs, 4: the others), and of ebbd if there is one,
    from the last free on."""
    rows = result["samples"]
    first = next(row for row in rows if row[0] >= result["release_ms"])
    return sum(rows[-1][k] - first[k] for k in columns) / 1e6 + (result["ebbd_after_ms"] or 0)


def cpu_of_host(result):
    """Without the guest's CPUs."""
    return cpu_after(result, (4,))


def cycles_cpu(whose):
    """Milliseconds per GiB that the guest reported in all; without the guest's CPUs."""
    def value(result):
        rows = result["samples"]
        spent = {"qemu": (rows[-1][4] - rows[0][4]) / 1e6, "ebbd": result["ebbd_cpu_ms"] or 0}
        return sum(spent[one] for one in whose) / (result["reported_mib"] / 1024)
    return value


def drop_cpu(result):
    """Per GiB."""
    return statistics.median(one["drop_cpu_ms"] for one in result["times"]) / (result["size_mib"] / 1024)


def percent_back(result):
    return 100 * result["returned_mib"] / result["freed_mib"]


def stall(key):
    return lambda result: result["stalls"][key]


HOSTS = [("ebbd", "linux", "ebbd"), ("ebbd, small per-CPU lists in the guest", "small_lists", "ebbd"),
         ("QEMU's own", "linux", "qemu"), ("QEMU's own, reporting off", "linux", "off")]


def h1(data):
    def of(variant, value, name=None):
        return data.series("H1", "linux", variant, value, name)

    def asked(variant, key, name=None):
        return data.series("H1", "asked", variant, stall(key), name)
    small = data.series("H1", "small_lists", "ebbd", percent_back, "ebb")
    cycles = data.plan.scale.host_cycles
    bars = [plain("H1", f"{data.plan.scale.host_memhog} freed by a Linux {measures.MAIN_PEER} guest on ebbd: "
                  "share that is back", "%", of("ebbd", percent_back, "ebb"), ">=", 98, less=False),
            plain("H1", "the same, small per-CPU lists in the guest", "%", small, ">=", 98, less=False),
            bar("H1", "CPU time of ebbd per GiB, by that of one PUNCH_HOLE for all of it", "ms",
                of("ebbd", lambda r: r["ebbd_after_ms"] / (r["returned_mib"] / 1024), "ebb"),
                of("drop", drop_cpu, "bare"), "<=", 1.2, less=True, other=False),
            bar("H2", "CPU time of QEMU, and ebbd, from the last free on, but for the guest's CPUs", "ms",
                of("ebbd", cpu_of_host, "ebb"), of("qemu", cpu_of_host, "QEMU's own"), "<=", 1, less=True),
            bar("H2", "the same with the guest's CPUs", "ms",
                of("ebbd", cpu_after, "ebb"), of("qemu", cpu_after, "QEMU's own"), "<=", 1, less=True),
            bar("H2", f"CPU time per GiB of ebbd, {cycles} times {data.plan.scale.host_memhog}, by that of QEMU "
                "with its own balloon, but for the guest's CPUs", "ms",
                data.series("H1", "cycles", "ebbd", cycles_cpu(["ebbd"]), "ebb"),
                data.series("H1", "cycles", "qemu", cycles_cpu(["qemu"]), "QEMU's own"), "<=", 1, less=True),
            bar("H2", "the same of QEMU and ebbd together", "ms",
                data.series("H1", "cycles", "ebbd", cycles_cpu(["qemu", "ebbd"]), "ebb"),
                data.series("H1", "cycles", "qemu", cycles_cpu(["qemu"]), "QEMU's own"), "<=", 1, less=True),
            bar("H2", "time in which QEMU's main loop was late to answer, while memory is reported", "ms",
                asked("ebbd", "stalled_ms", "ebb"), asked("qemu", "stalled_ms", "QEMU's own"),
                "<=", 1, less=True)]
    rows, late = [], []
    for name, case, variant in HOSTS:
        rows.append([name] + [cell(data.series("H1", case, variant, value), digits) for value, digits in (
            (percent_back, 1), (lambda r: r["t50_ms"], 0), (lambda r: r["t99_ms"], 0), (cpu_after, 0),
            (cpu_of_host, 0))])
        rows[-1].append(cell(data.series("H1", case, variant, lambda r: r["ebbd_after_ms"]), 0)
                        if variant == "ebbd" else None)
    for name, variant in [(name, variant) for name, case, variant in HOSTS if case == "linux"]:
        late.append([name] + [cell(asked(variant, key), 2) for key in ("stalled_ms", "longest_ms", "median_ms")])
    return {"bars": bars,
            "tables": [table("A Linux guest frees its memory; milliseconds, but for the share",
                             ["", "back, %", "50 % back", "99 % back", "CPU time from the last free on",
                              "of that, not the guest's CPUs", "of that, ebbd's"], rows),
                       table("How QEMU's main loop answers meanwhile, in milliseconds; an answer is late "
                             "after 2 ms", ["", "late, in all", "longest answer", "median"], late)],
            "commands": commands_of(data, "H1", HOSTS + [("ebbd, with questions", "asked", "ebbd"),
                                                         ("ebbd, many times", "cycles", "ebbd"),
                                                         ("bare", "linux", "drop")])}


def free_ms(result):
    """How long the guest takes to let go of what it holds."""
    return result["release_ms"] - first_free(result)


def from_first_free(share):
    """Until so much is back; a peer that did not come to it took at least as long as the run."""
    def value(result):
        back = time_back(result, share)
        if back is None:
            return AtLeast(result["samples"][-1][0] - first_free(result))
        return back + free_ms(result)
    return value


def kept_after(seconds):
    def value(result):
        host = host_at(result, 1000 * seconds)
        return None if host is None else max(0, host - result["baseline_mib"])
    return value


MODULES = [("with ebb's module", "module"), ("stock", "stock")]
ORDER_0 = ("stock, order 0", "stock-order0")
OFF = ("reporting off", "off")


def linux_series(data, measure):
    names = {variant: name for name, variant in (OFF, ORDER_0)}

    def of(case, variant, value):
        return data.series(measure, case, variant, value, names.get(variant, variant))
    return of


def linux_commands(data, measure, case, rows=None):
    return commands_of(data, measure, [(name, case, variant) for name, variant in rows or MODULES])


def back_times(of, case, variant):
    """Cells: when half, 90 and 99 % were back."""
    return [cell(of(case, variant, lambda result, k=key: result[k]), 0)
            for key in ("t50_ms", "t90_ms", "t99_ms")]


def l1(data):
    case, of = f"memhog-{measures.MAIN_PEER}", linux_series(data, "L1")

    def percent(seconds):
        return lambda result: 100 * share_back(result, 1000 * seconds)
    bars = [
        plain("L1", "75 % of 2 GiB freed: until 99 % are back, from the last free", "ms",
              of(case, "module", lambda result: result["t99_ms"]), "<=", 1200),
        bar("L1", "from the first free until 90 % are back", "ms",
            of(case, "module", all_of(from_first_free(0.9))), of(case, "stock", from_first_free(0.9)),
            "<=", 0.25, less=True),
        bar("L2", "how long the free itself takes", "ms", of(case, "module", free_ms),
            of(case, "stock", free_ms), "<=", 1.1, less=True)]
    for kernel in (measures.MAIN_PEER, measures.OLD_PEER):
        bars.append(plain("L4", f"what the host holds 10 s later, beyond what it held before, Linux {kernel}",
                          "MiB", of(f"memhog-{kernel}", "module", kept_after(10)), "<=", 8))
    bars.append(plain("L5", "every 8th page stays in use: share of the freed memory back within 6 s", "%",
                      of("fragment", "module", percent(6)), ">=", 98, less=False))
    rows = [[f"{name}, Linux {kernel}"] + back_times(of, f"memhog-{kernel}", variant) +
            [cell(of(f"memhog-{kernel}", variant, kept_after(10)), 0)]
            for kernel in (measures.MAIN_PEER, measures.OLD_PEER) for name, variant in MODULES + [ORDER_0]
            if ("L1", f"memhog-{kernel}", variant) in data.runs]
    shares = [[name, *(cell(of("fragment", variant, percent(seconds)), 1) for seconds in (3, 6, 11))]
              for name, variant in MODULES + [ORDER_0]]
    return {"bars": bars, "tables": [
        table("75 % of 2 GiB freed: milliseconds after the last free until so much was back",
              ["", "50 %", "90 %", "99 %", "kept after 10 s, MiB"], rows),
        table("Every 8th page stays in use: share of the freed memory that is back, %",
              ["", "after 3 s", "after 6 s", "after 11 s"], shares)],
        "commands": commands_of(data, "L1", [(f"{name}: {case}", case, variant)
                                             for case in (case, "fragment")
                                             for name, variant in MODULES])}


BALLOONS = [("QEMU's own balloon", "qemu", 1.1), ("ebbd", "ebbd", 1.05)]


def l2(data):
    of = linux_series(data, "L2")
    bars, rows = [], []
    for host, case, limit in BALLOONS:
        bars += [plain("L1", f"75 % of 2 GiB freed, in a memfd, {host}: until 99 % are back, from the last free",
                       "ms", of(case, "module", lambda result: result["t99_ms"]), "<=", 1200),
                 bar("L2", f"how long the free itself takes, in a memfd, {host}", "ms",
                     of(case, "module", free_ms), of(case, "stock", free_ms), "<=", limit, less=True)]
        rows += [[f"{host}, {name}", *back_times(of, case, variant)]
                 for name, variant in (MODULES[0], ("stock", "stock-long"))]
    return {"bars": bars, "tables": [
        table("75 % of 2 GiB freed, in a memfd: milliseconds after the last free until so much was back",
              ["", "50 %", "90 %", "99 %"], rows)],
        "commands": linux_commands(data, "L2", "ebbd")}


def l3(data):
    of, size = linux_series(data, "L3"), data.plan.scale.memhog
    return {"bars": [
        bar("L3", f"{size} of {data.plan.scale.memhog_memory} freed: until 99 % are back; stock: until 90 % are",
            "ms", of("memhog", "module", lambda result: result["t99_ms"]),
            of("memhog", "stock", lambda result: time_or_more(result, "t90_ms")), "<=", 0.1, less=True, digits=3)],
        "tables": [table(f"{size} freed: milliseconds after the last free until so much was back",
                         ["", "50 %", "90 %", "99 %"],
                         [[name, *back_times(of, "memhog", variant)] for name, variant in MODULES])],
        "commands": linux_commands(data, "L3", "memhog")}


def l6(data):
    of, bars = linux_series(data, "L6"), []
    for pause, limit in measures.PAUSES_MODULE.items():
        for what, value, need in ((f"frames taken and freed per busy second once the pace is learned, "
                                   f"pause {pause} ms", cycle_learned, limit),
                                  (f"the same, from the second cycle on, pause {pause} ms", cycle_speed, 0.9)):
            bars.append(bar("L6", what, "frames/s", of(f"{pause}ms", "module", value),
                            of(f"{pause}ms", "off", value), ">=", need, other=False, digits=3))
    means = [[case.replace("ms", " ms")] + [cell(of(case, variant, cycle_mean), 0)
                                            for variant in ("module", "stock", "off")]
             for case in data.cases("L6")]
    return {"bars": bars, "tables": [
        table("Taking and freeing 75 %: resident, MiB, average over the step",
              ["pause", "with ebb's module", "stock", "reporting off"], means)],
        "commands": linux_commands(data, "L6", "0ms", [MODULES[0], OFF])}


def fault_step(mode, tasks, thp):
    """The last such step of a result."""
    def step(result):
        return next(row for row in reversed(result["results"])
                    if (row["step"], row["mode"], row["tasks"], row["thp"]) ==
                    ("page_fault1", mode, tasks, int(thp)))
    return step


def l7(data):
    of, bars = linux_series(data, "L7"), []
    for mode, tasks, thp in measures.FAULT_CASES:
        def speed(result, step=fault_step(mode, tasks, thp)):
            return step(result)["pages"] / step(result)["elapsed_ns"] * 1e9
        name = fault_case(f"{mode}-{tasks}-{'thp' if thp else '4k'}")
        bars.append(bar("L7", f"pages per second, {name}", "pages/s", of("time", "module", speed),
                        of("time", "off", speed), ">=", 0.99, other=False, digits=3))
    rows = []
    for thp in (False, True):
        def count(result, step=fault_step("procs", 1, thp)):
            return step(result)["elapsed_ns"] / step(result)["faults"]
        name = fault_case(f"procs-{'thp' if thp else '4k'}")
        bars.append(bar("L7", f"instructions per fault, {name}", "instructions", of("count", "module", count),
                        of("count", "off", count), "<=", 1.004, less=True, other=False, digits=5))
        rows.append([name] + [cell(of("count", variant, count), 0) for variant in ("module", "stock", "off")])
    return {"bars": bars, "tables": [table("Instructions per fault",
                                           ["", "with ebb's module", "stock", "reporting off"], rows)],
            "commands": linux_commands(data, "L7", "time", [MODULES[0], OFF]) |
            {f"instructions, {name}": command for name, command in
             linux_commands(data, "L7", "count", [MODULES[0], OFF]).items()}}


def above_live(result):
    """MiB x s that the host held beyond what the guest used, from the load's beginning to the run's end;
    both counted from what they were before."""
    begin = next(step["begin_ms"] for step in result["steps"] if step["cmd"].startswith("compile "))
    rows = [row for row in result["samples"] if row[1] > 0]
    before, held = rows[0][1], result["baseline_mib"]
    rows = [row for row in rows if row[0] >= begin]
    return sum((after[0] - row[0]) / 1000 * max(0, row[2] - held - (row[1] - before))
               for row, after in zip(rows, rows[1:]))


def compile_ms(result):
    return step_of(result, "compile")["elapsed_ns"] / 1e6


def l8(data):
    of = linux_series(data, "L8")

    def sides(value):
        return [of("compile", variant, value) for _, variant in MODULES]
    rows = [[name, cell(of("compile", variant, above_live), 0), cell(of("compile", variant, compile_ms), 0)]
            for name, variant in MODULES]
    return {"bars": [bar("L8", "a load like a build: memory above live, over time", "MiB x s",
                         *sides(above_live), "<=", 0.5, less=True),
                     bar("L8", "how long that takes", "ms", *sides(compile_ms), "<=", 1.02, less=True,
                         digits=3)],
            "tables": [table("A load like a build", ["", "above live, MiB x s", "it takes, ms"], rows)],
            "commands": linux_commands(data, "L8", "compile")}


def told(result, names):
    """By how much these grew in a second, in all, from the first time that the guest told them to the last."""
    rows = [row for row in result["results"] if row["step"] == "tell" and names[0] in row]
    return sum(rows[-1][name] - rows[0][name] for name in names) * 1e9 / (rows[-1]["ns"] - rows[0]["ns"])


def resting_cpu(result):
    """Of the guest's CPUs, as the host sees them, in % of one."""
    step = next(step for step in reversed(result["steps"]) if step["cmd"].startswith("idle "))
    rows = [row for row in result["samples"] if step["begin_ms"] <= row[0] <= step["end_ms"]]
    return (rows[-1][3] - rows[0][3]) / 1e4 / (rows[-1][0] - rows[0][0])


def l9(data):
    of = linux_series(data, "L9")

    def module(*names):
        return of("rest", "module", lambda result: told(result, names))
    cpu = of("rest", "module", lambda result: told(result, ["timers_us"]) / 1e4)
    rows = [[name] + [cell(of("rest", variant, value), 1) for value in (
        lambda result: told(result, ["intr"]), lambda result: told(result, ["ctxt"]), resting_cpu)]
            for name, variant in (MODULES[0], OFF)]
    rows[0].append(cell(module("checks"), 2))
    rows[1].append(None)
    return {"bars": [plain("L9", "idle guest: passes, and runs of a timer that wakes a CPU", "/s",
                           module("passes", "samples"), "<=", 0),
                     plain("L9", "idle guest: CPU time of the module", "%", cpu, "<=", 0.1)],
            "tables": [table("A guest that rests", ["", "interrupts/s", "context switches/s", "its CPUs, % of one",
                                                    "looks of the deferrable timer/s"], rows)],
            "commands": linux_commands(data, "L9", "rest", [MODULES[0], OFF])}


def longest_hold(result):
    return step_of(result, "tell")["longest_hold_us"]


def l10(data):
    of, names = linux_series(data, "L10"), MODULES + [ORDER_0]
    return {"bars": [bar("L10", f"longest hold of a zone's lock, {data.plan.scale.large_guest}, fragmented; a "
                         "clock that counts instructions", "us", of("hold", "module", longest_hold),
                         of("hold", "stock", longest_hold), "<=", 1, less=True)],
            "tables": [table("Longest hold of a zone's lock by reporting, thousand instructions", ["", ""],
                             [[name, cell(of("hold", variant, longest_hold), 0)] for name, variant in names])],
            "commands": linux_commands(data, "L10", "hold", names)}


def turns(result):
    return result["turns"] if result["killed"] else AtLeast(result["turns"])


def l11(data):
    of = linux_series(data, "L11")
    return {"bars": [bar("L11", "guests of 2 GiB that take 1.5 GiB in turn, in 4 GiB", "guests",
                         *[of("crowd", variant, turns) for _, variant in MODULES], ">=", 3)],
            "tables": [], "commands": linux_commands(data, "L11", "crowd")}


SECTIONS = {"P1": p1, "P2": p2, "P4": p4, "P5": p5, "P6": p6, "P7": p7, "P8": p8, "P12": p12, "L1": l1,
            "L2": l2, "L3": l3, "L6": l6, "L7": l7, "L8": l8, "L9": l9, "L10": l10, "L11": l11, "H1": h1}


# ---- curves ----

def thin(rows, top):
    """What a picture can show of them."""
    kept = []
    for row in rows:
        if not kept or row[0] - kept[-1][0] >= 0.1 or abs(row[1] - kept[-1][1]) > top / 100:
            kept.append(row)
    return [[round(x, 3), round(y, 1)] for x, y in kept]


def typical(results, value):
    """The result whose value is the median."""
    known = sorted((value(result), n) for n, result in results.items()
                   if value(result) is not None)
    return results[known[len(known) // 2][1]] if known else None


def residency_curve(data, variant, measure="P1", case="memhog"):
    result = typical(data.good(measure, case, variant), t99_or_more)
    if not result:
        return None
    zero = result["release_ms"]
    rows = [((row[0] - zero) / 1000, row[2]) for row in result["samples"]]
    return {"points": thin(rows, result["peak_mib"]), "t99_ms": result["t99_ms"],
            "end_ms": t99_or_more(result)}


def crowd_curve(data, variant):
    result = typical(data.good("L11", "crowd", variant), lambda result: result["turns"])
    if not result:
        return None
    return {"points": thin(result["samples"], 4096), "turns": result["turns"], "killed": result["killed"]}


def cycle_curve(data, variant):
    result = typical(data.good("P2", f"{measures.PAUSE_P3}ms", variant), cycle_mean)
    if not result:
        return None
    rows = cycle_window(result)
    zero = rows[0][0]
    return {"points": thin([((row[0] - zero) / 1000, row[2]) for row in rows],
                           max(row[2] for row in rows)), "mean_mib": cycle_mean(result)}


def throughput_curve(data, on, off):
    points = []
    for case in data.cases("P2"):
        found = sample(ratios(data.series("P2", case, on, cycle_learned),
                              data.series("P2", case, off, cycle_learned)).values())
        if found:
            points.append([int(case[:-2]), found["median"], found["min"], found["max"]])
    return points


def fragment_curve(data, variant):
    points = []
    for case in data.cases("P6"):
        found = sample(data.series("P6", case, variant,
                                   lambda one: share_back(one, 10000)).values.values())
        if found:
            points.append([int(case.split("-")[1])] + [100 * found[key]
                                                       for key in ("median", "min", "max")])
    return points


def pictures(data):
    def safe(curve, *arguments):
        try:
            return curve(data, *arguments)
        except (KeyError, IndexError, TypeError, StopIteration, ZeroDivisionError):
            return None
    return {"residency": {"ebb": safe(residency_curve, "ebb"),
                          LINUX: safe(residency_curve, "linux")},
            "linux": {f"{LINUX} {name}": safe(residency_curve, variant, "L1", f"memhog-{measures.MAIN_PEER}")
                      for name, variant in MODULES},
            "crowd": {name: safe(crowd_curve, variant) for name, variant in MODULES},
            "cycle": {"ebb": safe(cycle_curve, "ebb-on"), LINUX: safe(cycle_curve, "linux-on")},
            "throughput": {"ebb": safe(throughput_curve, "ebb-on", "ebb-off"),
                           LINUX: safe(throughput_curve, "linux-on", "linux-off"),
                           "as Linux, but each 100 ms": safe(throughput_curve, "ebb-eager",
                                                             "ebb-off")},
            "fragmentation": {name: safe(fragment_curve, variant)
                              for name, variant in FRAGMENTS}}


PICTURES_OF = {"residency": "P1", "linux": "L1", "crowd": "L11", "cycle": "P2", "throughput": "P2", "fragmentation": "P6"}


# ---- the machine, and all of it ----

def cpu_model():
    with open("/proc/cpuinfo") as f:
        found = re.search(r"^model name\s*:\s*(.+)$", f.read(), re.M)
    return found.group(1).strip() if found else platform.machine()


def output_of(*argv):
    try:
        return subprocess.run(argv, cwd=HOME, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def commit():
    """What the tree is of. Pages and figures do not count: the lab itself writes them."""
    name = output_of("git", "describe", "--always")
    changed = name and output_of("git", "status", "--porcelain", "--untracked-files=no", "--", ".",
                                 ":!docs", ":!lab/results")
    return (name or "unknown") + ("-dirty" if changed else "")


def thp_mode():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as f:
            return re.search(r"\[(\w+)\]", f.read()).group(1)
    except (OSError, AttributeError):
        return "unknown"


def linux_version(path):
    """From the boot protocol's header."""
    try:
        with open(path, "rb") as f:
            head = f.read(0x8000)
        at = int.from_bytes(head[0x20e:0x210], "little") + 0x200
        return head[at:at + 80].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace")
    except OSError:
        return None


def machine(data):
    records = list(data.records.values())
    results = [record["result"] for record in records if record.get("ok")]
    qemu = sorted({result["qemu_version"] for result in results
                   if isinstance(result, dict) and result.get("qemu_version")})
    if not qemu and shutil.which("qemu-system-x86_64"):
        qemu = re.findall(r"version (\S+)", output_of("qemu-system-x86_64", "--version"))[:1]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kernels = {v: linux_version(os.path.join(data.plan.linux, f"vmlinuz-{v}"))
               for v in (measures.MAIN_PEER, measures.OLD_PEER)}
    return {"cpu": cpu_model(), "cpus": os.cpu_count(), "memory_mib": pages >> 20,
            "kernel": f"{platform.system()} {platform.release()}", "qemu": ", ".join(qemu),
            "linux_guests": {v: found for v, found in kernels.items() if found},
            "transparent_huge_pages": thp_mode()}


def origin(data, measure):
    """What runs the figures of a measure are of."""
    runs = [run for key, runs in data.runs.items() if key[0] == measure for run in runs
            if run.name in data.records]
    records = [data.records[run.name] for run in runs]
    started = sorted(record["started"] for record in records)
    others = [record.get("others", 0) for record in records]
    failed = [{"run": record["name"], "command": record["command"], "error": record["errors"][-1]}
              for record in records if not record["ok"]]
    return {"runs": len(records), "rounds": max((run.round for run in runs), default=0),
            "commits": sorted({record.get("commit", "unknown") for record in records}),
            "builds": len({record["build"] for record in records}),
            "first": started[0] if started else None, "last": started[-1] if started else None,
            "disturbed": sum(one > BUSY for one in others), "most": max(others, default=0),
            "repeated": sum(bool(record["ok"] and record["errors"]) for record in records),
            "failed": failed}


def merge(saved, kept, only):
    """Of the measures that were not asked for the figures of before stay."""
    names = [name for name, section in kept["sections"].items()
             if name not in only and section["origin"]["runs"]]
    for name in names:
        saved["sections"][name] = kept["sections"][name]
    for picture, measure in PICTURES_OF.items():
        if measure in names:
            saved["pictures"][picture] = kept["pictures"][picture]
    if names:
        old, new = kept["machine"], saved["machine"]
        new["qemu"] = ", ".join(sorted(set(f"{old['qemu']}, {new['qemu']}".split(", ")) - {""}))
        new["linux_guests"] = {**old["linux_guests"], **new["linux_guests"]}


def collect(plan, runs, records, missing, quick, kept=None, only=None):
    """`kept`: the figures of before, of which those stay that are not of the measures `only`."""
    data = Data(plan, runs, records, missing)
    saved = {"version": VERSION, "quick": quick, "machine": machine(data), "busy": BUSY,
             "missing": missing,
             "sections": {name: dict(section(data), origin=origin(data, name))
                          for name, section in SECTIONS.items()},
             "pictures": pictures(data)}
    if kept:
        merge(saved, kept, only)
    return saved

# SPDX-License-Identifier: BSD-2-Clause
"""The figures as Markdown and as pictures.

What stands in docs/performance.md between `<!-- lab: NAME -->` and `<!-- lab: end -->` is replaced;
the text around is written by hand, and has to be read again after that.
"""
import os
import re
import subprocess
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))
from wrap import wrap  # noqa: E402

BLOCK = re.compile(r"<!-- lab: ([\w-]+) -->\n.*?<!-- lab: end -->", re.S)
# As cmd/plot.c draws: one colour a curve.
COLORS = ["#1f5fa8", "#d9772b", "#3a8a4d", "#8b5aa6"]


# ---- numbers ----

def number(value, digits=None):
    if value is None:
        return "-"
    if digits is not None and abs(value) < 1000:
        return f"{value:.{digits}f}"
    size = abs(value)
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def spread(one, digits=None, unit=""):
    """ "12.3 (11.9-14.0) ms", and what is missing of it."""
    if one is None:
        return "-"
    if isinstance(one, str):
        return one
    if "text" in one:
        return one["text"] or "-"
    failed = one.get("failed", 0)
    never = one.get("never", 0)
    if not one.get("n") and never:
        return "not by the end"
    if not one.get("n"):
        return "**failed**" if failed else one.get("absent") or "not measured"
    text = ("at least " if one.get("at_least") else "") + number(one["median"], digits)
    if one["n"] > 1:
        text += f" ({number(one['min'], digits)}-{number(one['max'], digits)})"
    if unit:
        text += f" {unit}"
    if never:
        text += f", {never} not by the end"
    return text + (f", **{failed} failed**" if failed else "")


def rows_of(header, rows, left=1):
    lines = ["| " + " | ".join(header) + " |",
             "|" + "|".join(["---"] * left + ["--:"] * (len(header) - left)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


# ---- bars ----

def all_bars(saved):
    bars = [row for section in saved["sections"].values() for row in section["bars"]]
    # The guest's first, then those of Linux guests, then the host's.
    return sorted(bars, key=lambda row: ("PLH".index(row["bar"][0]), int(row["bar"][1:])))


def side(row, which):
    one = row[which]
    text = spread(one, None, row["unit"])
    name = one.get("name")
    return f"{name}: {text}" if name and name not in ("ebb",) else text


def ratio_text(row):
    if not row["ratio"]:
        return "-"
    swapped = row["ratio_of"] and not row["ratio_of"].startswith(row["ebb"]["name"])
    return spread(row["ratio"], row["digits"]) + (f" ({row['ratio_of']})" if swapped else "")


def verdict_text(row):
    return {"met": "met", "falls short": "**falls short**", "failed": "**failed**"}.get(
        row["verdict"], row["verdict"])


def bars_block(saved):
    rows = [[row["bar"], row["what"], side(row, "ebb"), side(row, "peer"), ratio_text(row),
             row["need"], verdict_text(row)] for row in all_bars(saved)]
    return rows_of(["", "measured", "ebb", "peer", "ratio", "bar", ""], rows, left=2)


def count_by(bars, verdict):
    return sum(row["verdict"] == verdict for row in bars)


def headline(saved):
    bars = all_bars(saved)
    rest = [row for row in bars if row["verdict"] not in ("met", "falls short")]
    text = f"{count_by(bars, 'met')} of {len(bars)} bars are met"
    short = count_by(bars, "falls short")
    if short:
        text += f", {short} {'falls' if short == 1 else 'fall'} short"
    if rest:
        text += f", {len(rest)} could not be judged"
    return text + "."


def line_of(row):
    how = f"ebb {side(row, 'ebb')}" + (f", {side(row, 'peer')}"
                                       if row["peer"].get("n") or row["peer"].get("text") else "")
    ratio = f", ratio {ratio_text(row)}" if row["ratio"] else ""
    errors = "".join(f"\n  - {' '.join(error.split())[:200]}" for error in row["errors"][:3])
    return f"- {row['bar']}, {row['what']}: {how}{ratio}; the bar is {row['need']}{errors}"


def is_not_run(row):
    return row["verdict"] == "not measured: not run"


def not_run(bars):
    """ "P2 (4 bars), P12 (1 bar)" """
    names = [row["bar"] for row in bars if is_not_run(row)]
    return ", ".join(f"{name} ({names.count(name)} bar{'s' * (names.count(name) > 1)})"
                     for name in dict.fromkeys(names))


def slower_block(saved):
    bars = all_bars(saved)
    parts = []

    def part(title, rows):
        if rows:
            parts.append(title + "\n\n" + "\n".join(line_of(row) for row in rows))
    part("**Falls short of its bar:**", [row for row in bars if row["verdict"] == "falls short"])
    part("**Worse than a peer, though the bar is met:**",
         [row for row in bars if row["verdict"] == "met" and row["worse"]])
    part("**Not judged:**", [row for row in bars if row["verdict"] not in ("met", "falls short")
                             and not is_not_run(row)])
    if not_run(bars):
        parts.append(f"**Not run:** {not_run(bars)}")
    if not parts:
        return "Nothing that was measured is slower than its peer, and every bar is met."
    return headline(saved) + "\n\n" + "\n\n".join(parts)


def verdict(saved):
    """For the terminal."""
    quick = "QUICK, so not to be relied on: " if saved["quick"] else ""
    lines = [quick + headline(saved)]
    for row in all_bars(saved):
        if row["verdict"] != "met" and not is_not_run(row):
            ratio = f", ratio {ratio_text(row)}" if row["ratio"] else ""
            lines.append(f"  {row['bar']} {row['what']}: {row['verdict']}{ratio}, "
                         f"the bar is {row['need']}")
    if not_run(all_bars(saved)):
        lines.append("  not run: " + not_run(all_bars(saved)))
    return "\n".join(lines)


# ---- the machine ----

def machine_block(saved):
    one = saved["machine"]
    guests = ", ".join(one["linux_guests"].values()) or "none"
    lines = []
    if saved["quick"]:
        lines.append("**A quick run: one round of smaller sizes. It shows that everything works; "
                     "the figures prove nothing.**\n")
    lines.append(f"{one['cpu']}, {one['cpus']} CPUs, {one['memory_mib']} MiB; {one['kernel']}, "
                 f"transparent huge pages: {one['transparent_huge_pages']}. QEMU {one['qemu']}, "
                 f"TCG. Linux guests: {guests}.")
    lines.append(origins(saved))
    for name, why in saved["missing"].items():
        lines.append(f"**There was no {name}** ({why.splitlines()[0]}"
                     ").")
    return "\n\n".join(lines + failed_lines(saved))


def quiet_text(one):
    if one["disturbed"] is None:  # figures older than this column
        return "not known"
    if not one["disturbed"]:
        return "in none"
    return f"in {one['disturbed']} runs, up to {one['most']:.0%}"


def origins(saved):
    """Which measure was run when."""
    header = ["", "runs", "rounds", "from", "to", "ebb",
              f"others used more than {saved['busy']:.0%} of the CPUs", "done again"]
    rows = []
    for name, section in saved["sections"].items():
        one = section["origin"]
        if one["runs"]:
            builds = f" ({one['builds']} builds)" if one["builds"] > 1 else ""
            rows.append([name, str(one["runs"]), str(one["rounds"]), one["first"], one["last"],
                         ", ".join(one["commits"]) + builds, quiet_text(one), str(one["repeated"])])
    return rows_of(header, rows)


def failed_lines(saved):
    failed = [one for section in saved["sections"].values() for one in section["origin"]["failed"]]
    if not failed:
        return []
    return ["**Runs that failed, twice each:**\n\n" + "\n".join(
        f"- `{one['command']}`: {' '.join(one['error'].split())[:300]}"
        for one in failed)]


# ---- sections ----

def table_block(one):
    rows = []
    for row in one["rows"]:
        rows.append([spread(value, value.get("digits") if isinstance(value, dict) else None)
                     for value in row])
    text = f"{one['title']}:\n\n{rows_of(one['columns'], rows)}"
    return text + (f"\n\n{one['note']}" if one.get("note") else "")


def section_block(section):
    parts = [table_block(one) for one in section["tables"] if one["rows"]]
    if section["commands"]:
        parts.append("\n".join(f"    # {name}\n    {command}"
                               for name, command in section["commands"].items()))
    return "\n\n".join(parts) or "Not measured."


# ---- pictures ----

def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def gnuplot(path, title, subtitle, body):
    """The look of `ebb plot`."""
    script = f"""set terminal svg noenhanced size 960,540 font 'sans-serif,14' \\
background rgb '#ffffff'
set encoding utf8
set title {quoted(title)}."\\n".{quoted(subtitle)}
set grid ytics lc rgb '#dddddd' lt 1
set border 3 lc rgb '#666666'
set tics nomirror
set key noenhanced samplen 3 spacing 1.3
{body}
"""
    done = subprocess.run(["gnuplot", "-d"], input=script, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"gnuplot could not draw {path}:\n{done.stderr}")
    with open(path, "w") as f:
        f.write(done.stdout)


def data_of(names, curves):
    return "".join(f"$curve{i} << EOD\n" + "\n".join(" ".join(str(x) for x in point)
                                                     for point in curve) + "\nEOD\n"
                   for i, (_, curve) in enumerate(zip(names, curves)))


def present(curves, points=lambda curve: curve):
    return {name: curve for name, curve in curves.items() if curve and points(curve)}


def seconds(ms):
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def lines_of(names, titles, style="lines lw 2.4", using="1:2"):
    return "plot " + ", ".join(
        f"$curve{i} using {using} with {style} lc rgb '{COLORS[i]}' title {quoted(titles[i])}"
        for i in range(len(names)))


def draw_residency(curves, path, subtitle):
    found = present(curves, lambda curve: curve["points"])
    if not found:
        return False
    names = list(found)
    slowest = max(curve["end_ms"] / 1000 for curve in found.values())
    top = max(point[1] for curve in found.values() for point in curve["points"])
    last = max(slowest * 1.2, 0.5)
    titles = [f"{name}: 99 % back after {seconds(curve['t99_ms'])}" if curve["t99_ms"] is not None
              else f"{name}: 99 % not back by the end" for name, curve in found.items()]
    gnuplot(path, "What the host holds after the guest frees its memory", subtitle,
            data_of(names, [curve["points"] for curve in found.values()])
            + "set xlabel 'seconds since the guest freed the last frame'\n"
              "set ylabel 'memory (MiB)'\nset key inside top right vertical Left reverse\n"
              "set arrow from 0, graph 0 to 0, graph 1 nohead dt 2 lc rgb '#666666' front\n"
            + f"set xrange [{-last / 8:.3f}:{last:.3f}]\nset yrange [0:{top * 1.2:.0f}]\n"
            + lines_of(names, titles))
    return True


def draw_crowd(curves, path, subtitle):
    found = present(curves, lambda curve: curve["points"])
    if not found:
        return False
    names = list(found)
    titles = [f"{name}: {curve['turns']} guests" +
              (", then one is killed" if curve["killed"] else ", and no more were tried")
              for name, curve in found.items()]
    gnuplot(path, "Guests of 2 GiB on a host that has 4 GiB for them: each takes 1.5 GiB in its turn", subtitle,
            data_of(names, [curve["points"] for curve in found.values()])
            + "set xlabel 'seconds, without those of boots'\nset ylabel 'memory of all guests (MiB)'\n"
              "set yrange [0:5000]\nset key inside top right vertical Left reverse\n"
              "set arrow from graph 0, first 4096 to graph 1, first 4096 nohead dt 2 lc rgb '#666666'\n"
            + lines_of(names, titles))
    return True


def draw_cycle(curves, path, subtitle):
    found = present(curves, lambda curve: curve["points"])
    if not found:
        return False
    names = list(found)
    titles = [f"{name}: {curve['mean_mib']:.0f} MiB on average" for name, curve in found.items()]
    gnuplot(path, "What the host holds while the guest takes and frees 75 %, then pauses for 3 s",
            subtitle, data_of(names, [curve["points"] for curve in found.values()])
            + "set xlabel 'seconds since the guest began'\nset ylabel 'memory (MiB)'\n"
              "set yrange [0:*]\nset key outside bottom center horizontal\n"
            + lines_of(names, titles))
    return True


def draw_throughput(curves, path, subtitle):
    found = present(curves)
    if not found:
        return False
    names = list(found)
    pauses = sorted({point[0] for curve in found.values() for point in curve})
    places = {pause: i for i, pause in enumerate(pauses)}
    tics = ", ".join(f"'{pause}' {i}" for pause, i in places.items())
    gnuplot(path, "Throughput with reporting, as a share of that without", subtitle,
            data_of(names, [[[places[point[0]], *point[1:]] for point in curve]
                            for curve in found.values()])
            + "set xlabel 'pause between two bursts of taking and freeing (ms)'\n"
              "set ylabel 'frames per busy second, on / off'\n"
            + f"set xtics ({tics})\nset xrange [-0.3:{len(pauses) - 0.7}]\nset yrange [0:1.2]\n"
              "set key inside bottom right vertical Left reverse\n"
              "set arrow from graph 0, first 1 to graph 1, first 1 nohead dt 2 lc rgb '#666666'\n"
            + lines_of(names, names, "yerrorlines lw 2.2 pt 7 ps 0.7", "1:2:3:4"))
    return True


def draw_fragmentation(curves, path, subtitle):
    found = present(curves)
    if not found:
        return False
    names = list(found)
    keeps = sorted({point[0] for curve in found.values() for point in curve})
    tics = ", ".join(f"'{keep}' {keep}" for keep in keeps)
    gnuplot(path, "Of the freed memory, what is back on the host after 10 s", subtitle,
            data_of(names, found.values())
            + "set xlabel 'one 4 KiB frame in so many stays in use'\n"
              "set ylabel 'per cent of what was freed'\nset logscale x 2\n"
            + f"set xtics ({tics})\nset xrange [{keeps[0] * 0.9}:{keeps[-1] * 1.1}]\n"
              "set yrange [-2:105]\nset key outside bottom center horizontal\n"
            + lines_of(names, names, "yerrorlines lw 2.2 pt 7 ps 0.7", "1:2:3:4"))
    return True


PICTURES = {
    "residency": (draw_residency, "What the host holds over time, beside Linux"),
    "linux": (draw_residency, "A Linux guest, stock and with ebb's module: what the host holds"),
    "crowd": (draw_crowd, "How many Linux guests a host of 4 GiB has room for"),
    "cycle": (draw_cycle, "What the host holds in cycles with a pause of 3 s, beside Linux"),
    "throughput": (draw_throughput, "Throughput with reporting on, by the length of the pause"),
    "fragmentation": (draw_fragmentation, "Share of freed memory that comes back, by "
                                          "fragmentation"),
}


def picture_block(saved, name, directory):
    draw, what = PICTURES[name]
    file = f"performance-{name}.svg"
    path = os.path.join(directory, file)
    one = saved["machine"]
    subtitle = (f"q35, 2 CPUs, tcg, anon, QEMU {one['qemu']}; medians"
                + (" (a quick run)" if saved["quick"] else ""))
    if draw(saved["pictures"].get(name, {}), path, subtitle):
        return f"![{what}]({file})"
    if os.path.exists(path):
        os.remove(path)
    return "(No picture: not measured.)"


# ---- all of it ----

def block(saved, name, directory):
    if name.startswith("picture-"):
        return picture_block(saved, name[len("picture-"):], directory)
    if name in saved["sections"]:
        return section_block(saved["sections"][name])
    return {"slower": slower_block, "machine": machine_block, "bars": bars_block}[name](saved)


def render(saved, target):
    directory = os.path.dirname(os.path.abspath(target))
    with open(target) as f:
        text = f.read()
    unknown = [name for name in BLOCK.findall(text)
               if name not in saved["sections"] and name not in ("slower", "machine", "bars")
               and name.replace("picture-", "") not in PICTURES]
    if unknown:
        raise SystemExit(f"lab: {target} has blocks that nobody fills: {', '.join(unknown)}")

    def filled(match):
        inside = block(saved, match.group(1), directory).strip("\n")
        return f"<!-- lab: {match.group(1)} -->\n\n{inside}\n\n<!-- lab: end -->"
    text = wrap(BLOCK.sub(filled, text))
    with open(target + ".new", "w") as f:
        f.write(text)
    os.replace(target + ".new", target)

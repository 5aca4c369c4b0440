# SPDX-License-Identifier: BSD-2-Clause
"""ebb_reporting built into a kernel (linux/builtin): what the script does to a tree, and
that what it leaves compiles with Debian's sources of 6.1 and 6.12. Building a whole
kernel takes longer than all other tests: `make lab-kernel` does, and Boots boots what
it made, or any kernel with ebb in $EBB_BUILTIN_KERNEL.
Sources and headers are kept in $EBB_LINUX_DIR, or else in the build directory.
"""
import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import e2e

ROOT = os.path.join(e2e.HERE, "..", "..")
BUILTIN = os.path.join(ROOT, "linux", "builtin")
KERNELS = ("6.12", "6.1")

# What linux/builtin looks for, and next to nothing else.
TOY = {
    "Makefile": "VERSION = 6\nPATCHLEVEL = 12\n",
    "include/linux/mmzone.h": "int get_pageblock_migratetype(void);\n",
    "include/linux/page-flags.h": "FLAG(Reported, reported)\n",
    "include/linux/page_reporting.h": """#define PAGE_REPORTING_CAPACITY 32
struct page_reporting_dev_info {
\t/* toy */
\tint (*report)(struct page_reporting_dev_info *prdev,
\t\t\tint toy);
\tstruct delayed_work work;
\tatomic_t state; /* toy */
};
int page_reporting_register(struct page_reporting_dev_info *prdev);
void page_reporting_unregister(struct page_reporting_dev_info *prdev);
""",
    "mm/Makefile": """obj-y += page_alloc.o
obj-$(CONFIG_PAGE_REPORTING) += page_reporting.o
obj-y += another.o
""",
    "mm/another.c": "int another;\n",
    "mm/page_alloc.c": """#include "page_reporting.h"
static void take(void)
{
\tif (page_reported(page))
\t\tclear();
\tn -= expand(zone, page, low, high, migratetype);
\t\tif (x)
\t\t\texpand(zone, page, order, current_order, start_type);
\t/* What expand() leaves. */
}
\tpage_reporting_notify_free(order);
int __isolate_free_page(struct page *page, unsigned int order)
void __putback_isolated_page(struct page *page, unsigned int order, int mt)
void drain_all_pages(struct zone *zone)
""",
    "mm/page_reporting.c": "int page_reporting_register(struct page_reporting_dev_info *prdev) { toy }\n",
    "mm/page_reporting.h": "page_reporting_enabled page_reported page_reporting_notify_free toy\n",
}


def write_tree(directory, files):
    for name, text in files.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)


def read_tree(directory):
    found = {}
    for root, dirs, files in os.walk(directory):
        dirs[:] = [d for d in dirs if d != ".git"]
        for name in files:
            path = os.path.join(root, name)
            with open(path) as f:
                found[os.path.relpath(path, directory)] = f.read()
    return found


class Script(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="ebb-e2e-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.tree = os.path.join(self.dir, "tree")
        write_tree(self.tree, TOY)

    def call(self, *args, rc=0):
        done = subprocess.run([BUILTIN, *args], text=True, capture_output=True, env=dict(os.environ, LC_ALL="C"))
        self.assertEqual(done.returncode, rc, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def git(self, *args):
        return subprocess.run(["git", "-C", self.tree, "-c", "user.name=A Tester", "-c", "user.email=a@example.org",
                               *args], text=True, check=True, capture_output=True).stdout

    def test_usage(self):
        self.assertIn("--series", self.call("--help"))
        for args in ([], ["--nonsense", self.tree], [self.tree, self.tree], ["--series", self.tree]):
            self.assertIn("usage:", self.call(*args, rc=2))
        self.assertIn("no such folder", self.call(os.path.join(self.dir, "nothing"), rc=1))

    def test_applied(self):
        """Ours is there, the rest is as it was; once more changes nothing; undone is as before."""
        self.call(self.tree)
        now = read_tree(self.tree)
        for name in ("page_reporting.c", "page_reporting.h"):
            self.assertNotIn("toy", now["mm/" + name])
            self.assertEqual(now[f"mm/{name}.orig"], TOY["mm/" + name])
        self.assertIn("page_reporting.o ebb/\n", now["mm/Makefile"])
        self.assertNotIn("mm/ebb/module.c", now)
        self.assertNotIn("mm/ebb/Kbuild", now)
        for name in ("mm/another.c", "mm/page_alloc.c", "Makefile"):
            self.assertEqual(now[name], TOY[name])
        written = {n: os.stat(os.path.join(self.tree, n)).st_mtime_ns for n in now}
        self.call(self.tree)
        self.assertEqual(read_tree(self.tree), now)
        self.assertEqual({n: os.stat(os.path.join(self.tree, n)).st_mtime_ns for n in now}, written)
        self.call("--undo", self.tree)
        self.assertEqual(read_tree(self.tree), TOY)
        self.assertIn("nothing to undo", self.call("--undo", self.tree, rc=1))

    def test_complete(self):
        """All that the folder's Makefile compiles is there, and each header that these include."""
        self.call(self.tree)
        folder = os.path.join(self.tree, "mm", "ebb")
        with open(os.path.join(folder, "Makefile")) as f:
            objects = re.search(r"^ebb_reporting-y := (.*)$", f.read(), re.M).group(1).split()
        self.assertEqual(sorted(o[:-1] + "c" for o in objects), sorted(n for n in os.listdir(folder) if n.endswith(".c")))
        for name, text in read_tree(os.path.join(self.tree, "mm")).items():
            for quote, header in re.findall(r'^#\s*include (["<])([^">]+)', text, re.M):
                at = os.path.dirname(name) if quote == '"' else "ebb/include"
                if (quote == '"' or header.startswith("ebb/")) and name != "page_alloc.c" and header != "../internal.h":
                    self.assertTrue(os.path.exists(os.path.join(self.tree, "mm", at, header)), f"{name}: {header}")

    def test_hooks(self):
        self.call("--hooks", self.tree)
        hooked = read_tree(self.tree)["mm/page_alloc.c"]
        self.assertIn("\tn -= expand(zone, page, low, high, migratetype);\n"
                      "\tpage_reporting_notify_taken(zone, high);\n", hooked)
        self.assertIn("\t\t\tpage_reporting_notify_taken(zone, current_order);\n", hooked)
        self.assertEqual(hooked.count("notify_taken"), 2)
        self.call("--hooks", self.tree)
        self.assertEqual(read_tree(self.tree)["mm/page_alloc.c"], hooked)
        self.call(self.tree)  # without
        self.assertEqual(read_tree(self.tree)["mm/page_alloc.c"], TOY["mm/page_alloc.c"])
        self.call("--hooks", self.tree)
        self.call("--undo", self.tree)
        self.assertEqual(read_tree(self.tree), TOY)

    def refused(self, changes, says, *options):
        shutil.rmtree(self.tree)
        write_tree(self.tree, {**TOY, **changes})
        before = read_tree(self.tree)
        said = self.call(*options, self.tree, rc=1)
        self.assertIn(says, said)
        self.assertIn("Nothing was changed", said)
        self.assertEqual(read_tree(self.tree), before)

    def test_refused(self):
        """Whatever is not where it is looked for is named, and the tree stays as it was."""
        self.refused({"Makefile": "VERSION = 5\n"}, "VERSION")
        self.refused({"mm/Makefile": "obj-y += page_reporting.o\n"}, "obj-$(CONFIG_PAGE_REPORTING)")
        for name, text in TOY.items():
            if name.endswith((".c", ".h")) and name not in ("mm/another.c", "mm/page_reporting.c"):
                for line in text.splitlines():
                    if line != "struct page_reporting_dev_info {" and re.search(r"report|migratetype\(|_page\(|drain|work|state", line):
                        self.refused({name: text.replace(line + "\n", "")}, name)
        self.refused({"mm/another.c": "page_reporting_host_zeroes();\n"}, "page_reporting_host_zeroes()")
        header = TOY["include/linux/page_reporting.h"]
        self.refused({"include/linux/page_reporting.h": header.replace("atomic_t", "unsigned int capacity;\n\tatomic_t")},
                     "a field 'capacity'")
        self.refused({"mm/ebb/other.c": "int other;\n"}, "mm/ebb")
        self.refused({"mm/page_alloc.c": TOY["mm/page_alloc.c"] + "\texpand(page);\n"}, "for the hooks", "--hooks")

    def test_series(self):
        """The patches, applied, are what the script does; the tree they are of is not touched."""
        out = os.path.join(self.dir, "patches")
        self.assertIn("git init", self.call("--series", out, self.tree, rc=1))
        self.git("init", "-q")
        self.git("config", "user.name", "A Tester")
        self.git("config", "user.email", "a@example.org")
        self.git("add", "-A")
        self.git("commit", "-qm", "as it was")
        self.call("--series", out, self.tree)
        self.assertEqual(self.git("status", "--porcelain"), "")
        patches = sorted(glob.glob(os.path.join(out, "*.patch")))
        self.assertEqual(len(patches), 7)
        with open(patches[0]) as f:
            cover = f.read()
        self.assertIn("[PATCH 0/6] mm/page_reporting: give free memory back in a second", cover)
        self.assertNotIn("***", cover)
        self.assertNotRegex(cover, r"(?m)^@\w+@$")
        self.assertIn("| stock, Linux 6.12 |", cover)
        self.git("am", "-q", *patches[1:])
        applied = read_tree(self.tree)
        self.git("reset", "-q", "--hard", "HEAD~6")
        self.assertEqual(read_tree(self.tree), TOY)
        self.call("--hooks", self.tree)
        expected = {n: t for n, t in read_tree(self.tree).items() if not n.endswith(".orig")}
        applied.pop("Documentation/mm/ebb_reporting.rst")
        self.assertEqual(applied, expected)
        self.assertIn("is not empty", self.call("--series", out, self.tree, rc=1))


class Compiles(unittest.TestCase):
    """mm of Debian's sources with ebb in it, against the kernel's header packages."""

    def setUp(self):
        self.kept = e2e.linux_dir()
        self.build = e2e.load_build()

    def get_tree(self, kernel):
        """Makefile, mm and the headers that the script looks at."""
        kept = os.path.join(self.kept, f"mm-{kernel}")
        if not os.path.exists(kept):
            with tempfile.TemporaryDirectory(prefix="fetch-", dir=self.kept) as work:
                os.chmod(work, 0o755)  # for apt's own user
                root = self.build.fetch(f"linux-source-{kernel}", work)
                name = f"linux-source-{kernel}"
                subprocess.run(["tar", "-xJf", os.path.join(root, "usr", "src", name + ".tar.xz"), "-C", work,
                                f"{name}/Makefile", f"{name}/mm", f"{name}/include/linux"], check=True)
                os.rename(os.path.join(work, name), kept)
        return kept

    def test_compiles(self):
        for kernel in KERNELS:
            try:
                with self.build.taking_turns(self.kept):
                    tree = self.get_tree(kernel)
                    self.build.get_kernel(kernel, self.kept)
                    kdir = self.build.get_headers(kernel, self.kept)
            except SystemExit as lacking:
                if lacking.code != self.build.LACKING:
                    raise
                self.skipTest(f"Linux {kernel} cannot be had here, so the built-in was NOT compiled")
            with self.subTest(kernel), tempfile.TemporaryDirectory() as copy:
                shutil.copytree(tree, copy, dirs_exist_ok=True)
                subprocess.run([BUILTIN, "--hooks", copy], check=True)
                self.compile(copy, kdir)

    def compile(self, tree, kdir):
        mm = os.path.join(tree, "mm")
        objects = [os.path.relpath(f, mm)[:-1] + "o" for f in sorted(glob.glob(os.path.join(mm, "ebb", "*.c")))]
        objects += ["page_reporting.o", "page_alloc.o"]
        shutil.rmtree(os.path.join(tree, "include"))  # the headers' own are of the right configuration
        with open(os.path.join(mm, "ebb", "Makefile")) as f:
            flags = [line.replace("$(srctree)", tree) for line in f if line.startswith("ccflags-y")]
        with open(os.path.join(mm, "Kbuild"), "w") as f:
            f.write(f"obj-m := mm.o\nmm-y := {' '.join(objects)}\n" + "".join(flags))
        # As the kernel's own files, not as a module's.
        done = subprocess.run(["make", "-j2", "-k", "-C", kdir, f"M={mm}", "KBUILD_CFLAGS_MODULE=",
                               "KCFLAGS=-Werror", *objects], text=True, capture_output=True, timeout=1200)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class Boots(e2e.Case):
    """A kernel with ebb in it."""

    def test_boots(self):
        kernel = os.environ.get("EBB_BUILTIN_KERNEL")
        if not kernel:
            self.skipTest("no kernel with ebb built in was BOOTED: `make lab-kernel`, then "
                          "EBB_BUILTIN_KERNEL=lab-kernel/built-in-6.12-plain")
        initrd = os.path.join(os.path.dirname(kernel), "initrd")
        run = self.ebb("run", "--guest", "linux", "--kernel", kernel, "--initrd", initrd, "--accel", "tcg", "--memory",
                       "1G", "--console", "--append", "loglevel=7", "--workload",
                       "module wait; memhog 60%; idle 8; module show; fragment 50% 8; report now; verify")
        d = run.json()
        self.assertEqual((d["status"], d["verify_errors"]), ("ok", 0))
        self.assertIn("attached: free memory is reported by ebb", run.out)
        self.assertIsNone(re.search(r"WARNING:|BUG:|Oops|Call Trace|ebb: broken", run.out), run.out)
        self.assertGreaterEqual(d["returned_mib"], 0.98 * d["freed_mib"])


if __name__ == "__main__":
    e2e.main()

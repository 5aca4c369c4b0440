/* SPDX-License-Identifier: BSD-2-Clause */
/* What the host has, and lacks, for memory to come back. */
#include "child.h"
#include "cmd.h"
#include "control.h"
#include "doctor.h"
#include "host.h"
#include "kvm.h"
#include "qemu.h"
#include "result.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HOST     "host"
#define THP      "/sys/kernel/mm/transparent_hugepage/"
#define HUGE_2M  "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define QEMU_S   20.0
#define ASK_NS   (2 * CMD_S)
#define MAPS_LOW 65530u /* the kernel's own default */

/* ---- guests ---- */

static void look_at_kvm(struct doctor *doctor)
{
    struct kvm_probe kvm;

    kvm_probe(&kvm);
    switch (kvm.state) {
    case KVM_FAST:
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL, "%s", kvm.text);
        break;
    case KVM_SLOW:
        doctor_tell(doctor, DOCTOR_NOTE, HOST,
                    "give QEMU -accel tcg; ebb run chooses that by itself", "%s", kvm.text);
        break;
    case KVM_REFUSED:
        doctor_tell(doctor, DOCTOR_WRONG, HOST, "sudo usermod -aG kvm $USER, and log in again",
                    "%s", kvm.text);
        break;
    case KVM_ABSENT:
    case KVM_BROKEN:
        doctor_tell(doctor, DOCTOR_NOTE, HOST,
                    "switch virtualization on in the firmware; if this machine is a guest, let "
                    "its host offer nested virtualization",
                    "%s: guests are translated (TCG), and many times slower", kvm.text);
        break;
    }
}

static void look_at_devices(struct doctor *doctor, const char *path, const char *version)
{
    const char *const argv[] = {path, "-M", "none", "-device", "help", NULL};
    char *out = NULL, *err = NULL;
    size_t n;
    int status = child_run((char *const *)argv, NULL, QEMU_S, &out, &n, &err);

    if (status != 0 || !strstr(out, "\"virtio-balloon"))
        doctor_tell(doctor, DOCTOR_WRONG, HOST, "install the distribution's QEMU",
                    "QEMU %s (%s) has no balloon device", version, path);
    else if (strstr(out, "\"vhost-user-test-device-pci\""))
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL,
                    "QEMU %s (%s) has a balloon, and a device for that of ebbd", version, path);
    else
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL,
                    "QEMU %s (%s) has a balloon; ebbd's would take QEMU 10.2 or newer", version,
                    path);
    free(out);
    free(err);
}

static void look_at_qemu(struct doctor *doctor)
{
    static const char *const names[] = {"qemu-system-x86_64", "qemu-system-aarch64",
                                        "qemu-system-riscv64", "qemu-kvm"};
    unsigned found = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *path = host_find_program(names[i]);
        char *version = path ? qemu_version(path) : NULL;

        found += path != NULL;
        if (version)
            look_at_devices(doctor, path, version);
        else if (path)
            doctor_tell(doctor, DOCTOR_WRONG, HOST, "install it anew", "%s does not run", path);
        free(version);
        free(path);
    }
    if (!found)
        doctor_tell(doctor, DOCTOR_NOTE, HOST, "sudo apt-get install qemu-system-x86",
                    "there is no QEMU in PATH, which ebb run needs");
}

/* ---- memory ---- */

/* Whether a hole can be punched into a file in memory, as guests' memory is for a back end. */
static bool holes_work(void)
{
    const off_t size = 1 << 21;
    int fd = memfd_create("ebb-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct stat before = {0}, after = {0};
    bool done = fd >= 0 && posix_fallocate(fd, 0, size) == 0 && fstat(fd, &before) == 0 &&
                fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) == 0 &&
                fstat(fd, &after) == 0;

    if (fd >= 0)
        close(fd);
    return done && before.st_blocks > 0 && after.st_blocks == 0;
}

static void look_at_memfd(struct doctor *doctor)
{
    if (holes_work())
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL,
                    "memory files (memfd) give back what a hole is punched into");
    else
        doctor_tell(doctor, DOCTOR_WRONG, HOST, "use a kernel with memfd and tmpfs (CONFIG_TMPFS)",
                    "memory files (memfd) do not give memory back here");
}

/* The word in brackets. */
static const char *chosen(const char *path, char *text, size_t size)
{
    char *open = strchr(doctor_read(path, text, size), '[');

    if (!open)
        return "absent";
    open[1 + strcspn(open + 1, "]")] = '\0';
    return open + 1;
}

static void look_at_thp(struct doctor *doctor)
{
    char all[128], files[128], none[32];
    const char *mode = chosen(THP "enabled", all, sizeof(all));
    const long most =
        strtol(doctor_read(THP "khugepaged/max_ptes_none", none, sizeof(none)), NULL, 10);

    doctor_tell(doctor, DOCTOR_OK, HOST, NULL,
                "transparent huge pages: %s for private memory, %s for memory files", mode,
                chosen(THP "shmem_enabled", files, sizeof(files)));
    if (most > 0 && strcmp(mode, "always") == 0)
        doctor_tell(doctor, DOCTOR_NOTE, HOST, "echo 0 | sudo tee " THP "khugepaged/max_ptes_none",
                    "khugepaged may fill again what guests gave back in part: it makes huge pages "
                    "of those that lack up to %ld of 512 pages",
                    most);
}

static void look_at_huge_pages(struct doctor *doctor)
{
    char text[32];
    const long all = strtol(doctor_read(HUGE_2M "nr_hugepages", text, sizeof(text)), NULL, 10);
    const long idle = strtol(doctor_read(HUGE_2M "free_hugepages", text, sizeof(text)), NULL, 10);

    if (all > 0)
        doctor_tell(doctor, DOCTOR_NOTE, HOST, NULL,
                    "%ld huge pages of 2 MiB are reserved, %ld of them free: what a guest gives "
                    "back of these only other users of huge pages can have",
                    all, idle);
}

static void look_at_cgroups(struct doctor *doctor)
{
    char text[256];

    if (strstr(doctor_read("/sys/fs/cgroup/cgroup.controllers", text, sizeof(text)), "memory"))
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL, "cgroups (version 2) can limit memory");
    else
        doctor_tell(
            doctor, DOCTOR_NOTE, HOST, "boot with systemd.unified_cgroup_hierarchy=1",
            "no cgroup of version 2 limits memory here: VMs and back ends share the host's");
    if (access("/proc/pressure/memory", R_OK) == 0)
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL, "the kernel tells how short memory is (PSI)");
    else
        doctor_tell(doctor, DOCTOR_NOTE, HOST, "boot with psi=1",
                    "the kernel does not tell how short memory is (PSI)");
}

/* ---- what back ends of ebbd need ---- */

static void look_at_landlock(struct doctor *doctor)
{
    const long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1u);

    if (abi > 0)
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL, "Landlock is there (ABI %ld)", abi);
    else
        doctor_tell(doctor, DOCTOR_NOTE, HOST,
                    "boot with landlock among those of lsm= (cat /sys/kernel/security/lsm)",
                    "Landlock is not in use: a back end of ebbd is confined by the rest of its "
                    "sandbox");
}

static void look_at_limits(struct doctor *doctor)
{
    struct rlimit files = {0};
    char text[32];
    const long maps =
        strtol(doctor_read("/proc/sys/vm/max_map_count", text, sizeof(text)), NULL, 10);

    getrlimit(RLIMIT_NOFILE, &files);
    if (maps > 0 && maps < (long)MAPS_LOW)
        doctor_tell(doctor, DOCTOR_NOTE, HOST, "sudo sysctl vm.max_map_count=65530",
                    "a process may have %ld mappings only", maps);
    doctor_tell(doctor, DOCTOR_OK, HOST, NULL,
                "a process may have %llu descriptors and %ld mappings",
                (unsigned long long)files.rlim_cur, maps);
    if (strcmp(doctor_read("/proc/sys/vm/overcommit_memory", text, sizeof(text)), "2") == 0)
        doctor_tell(doctor, DOCTOR_NOTE, HOST, "sudo sysctl vm.overcommit_memory=0",
                    "the kernel counts all memory that guests could use (vm.overcommit_memory=2), "
                    "whether they gave it back or not");
    if (strcmp(doctor_read("/proc/sys/vm/unprivileged_userfaultfd", text, sizeof(text)), "0") ==
            0 &&
        access("/dev/userfaultfd", R_OK | W_OK) != 0)
        doctor_tell(doctor, DOCTOR_NOTE, HOST, "sudo sysctl vm.unprivileged_userfaultfd=1",
                    "post-copy migration needs userfaultfd, which this user may not use");
}

static void look_at_ebbd(struct doctor *doctor)
{
    struct json_object *request = control_hello(), *answer = NULL;
    struct control control;

    control_init(&control, doctor->control, &control_ebbd);
    if (access(doctor->control, F_OK) != 0 && errno == ENOENT)
        doctor_tell(doctor, DOCTOR_NOTE, HOST,
                    "sudo systemctl start ebbd, for VMs that shall use it; QEMU's own balloon does "
                    "without",
                    "ebbd does not run here: there is no %s", doctor->control);
    else if (!control_connect(&control))
        doctor_tell(doctor, DOCTOR_WRONG, HOST, NULL, "%s", control.error);
    else if ((answer = control_call(&control, request, ASK_NS)) &&
             control_is_hello(&control, answer))
        doctor_tell(doctor, DOCTOR_OK, HOST, NULL, "ebbd %s runs (%s)",
                    result_text(answer, "version"), doctor->control);
    else
        doctor_tell(doctor, DOCTOR_WRONG, HOST, "sudo systemctl restart ebbd; VMs go on meanwhile",
                    "%s", control.error);
    json_object_put(answer);
    json_object_put(request);
    control_close(&control);
}

void doctor_host(struct doctor *doctor)
{
    look_at_kvm(doctor);
    look_at_qemu(doctor);
    look_at_memfd(doctor);
    look_at_thp(doctor);
    look_at_huge_pages(doctor);
    look_at_cgroups(doctor);
    look_at_landlock(doctor);
    look_at_limits(doctor);
    look_at_ebbd(doctor);
}

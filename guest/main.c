/* SPDX-License-Identifier: BSD-2-Clause */
/* The reference guest: from boot to power-off. */
#include "guest.h"

static struct settings settings;

static _Noreturn void leave(enum status status)
{
    arch_interrupts_off(); /* no sample behind the end */
    telemetry_engine();
    telemetry_end(status);
    if (status == STATUS_VERIFY)
        console_print("FAILED: %lu errors in %lu checks\n", hold_errors(), hold_checks());
    arch_exit(status);
}

static void say_what_is_there(void)
{
    char size[16];

    console_print("%u CPU%s, %s in %u zone%s, up after %lu ms\n", cpus_online(),
                  cpus_online() == 1 ? "" : "s", text_size(size, memory_managed() * FRAME_KIB),
                  memory_zones(), memory_zones() == 1 ? "" : "s", arch_now() / NS_PER_MS);
}

/* At the end nothing may be lost, and nothing held. */
static enum status settle(enum status status)
{
    if (hold_errors())
        return STATUS_VERIFY;
    return workload_end() == STATUS_OK ? status : STATUS_VERIFY;
}

_Noreturn void guest_main(const struct arch_boot *boot)
{
    enum status status;
    void *dma;

    console_print("ebb %s reference guest\n", EBB_VERSION);
    memory_early(boot);
    arch_init(boot);
    telemetry_init();
    status = settings_parse(&settings, boot);
    cpus_set(arch_cpus_start());
    hold_init(cpus_online(), settings.seed);
    dma = early_alloc(ebb_balloon_dma_size(), 4096);
    memory_init(cpus_online(), settings.fill);
    if (status == STATUS_OK)
        status = balloon_init_engine(&settings);
    memory_open();
    say_what_is_there();
    if (status == STATUS_OK)
        balloon_init(&settings, boot->command_line, dma);
    telemetry_boot();
    if (status != STATUS_OK)
        leave(status);
    events_start();

    telemetry_base();
    status = settings.script ? script_run(settings.script) : shell_run();
    leave(settle(status));
}

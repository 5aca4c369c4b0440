/* SPDX-License-Identifier: BSD-2-Clause */
/* A zone on the virtual port, for the tests of the allocator. */
#ifndef EBB_TESTS_ZONE_RIG_H
#define EBB_TESTS_ZONE_RIG_H

/* What a test may look into. */
#include "pcp.h"
#include "port_virtual.h"
#include "zone_private.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct zone_rig {
    struct ebb_zone zone;
    void *metadata;
    size_t size;
};

static struct zone_rig rig;
static struct ebb_zone *const zone = &rig.zone;

/* Make the zone; add frames unless there are none. */
__attribute__((unused)) static void rig_make(const struct ebb_zone_config *config, bool add)
{
    free(rig.metadata); /* of a test that failed */
    port_virtual_reset();
    memset(&rig, 0, sizeof(rig));
    rig.size = ebb_zone_metadata_size(config);
    assert_true(rig.size > 0);
    rig.metadata = aligned_alloc(64, (rig.size + 63) & ~(size_t)63);
    assert_non_null(rig.metadata);
    memset(rig.metadata, 0, rig.size);
    assert_int_equal(ebb_zone_init(zone, config, rig.metadata), 0);
    if (add)
        assert_int_equal(ebb_zone_add(zone, config->base, config->frames), 0);
}

__attribute__((unused)) static void rig_check(void)
{
    struct ebb_violation violation = {.what = ""};

    if (ebb_zone_check(zone, EBB_CHECK_FRAMES, &violation))
        fail_msg("I%u at pfn %#llx: %s", violation.invariant, (unsigned long long)violation.pfn,
                 violation.what);
}

__attribute__((unused)) static struct ebb_zone_stats rig_stats(void)
{
    struct ebb_zone_stats stats;

    ebb_zone_stats(zone, &stats);
    assert_int_equal(stats.free + stats.cached + stats.in_flight + stats.allocated, stats.managed);
    return stats;
}

/* Release the zone; all that was allocated must be back, and the zone whole. */
__attribute__((unused)) static void rig_done(void)
{
    rig_check();
    assert_int_equal(rig_stats().allocated, 0);
    assert_int_equal(rig_stats().in_flight, 0);
    assert_int_equal(port_virtual.locks_held, 0);
    free(rig.metadata);
    rig.metadata = NULL;
}

__attribute__((unused)) static ebb_pfn_t rig_alloc(unsigned order, enum ebb_migratetype type,
                                                   unsigned flags)
{
    ebb_pfn_t pfn = UINT64_MAX;

    assert_int_equal(ebb_alloc(zone, order, type, flags, &pfn), 0);
    return pfn;
}

__attribute__((unused)) static struct ebb_block rig_lookup(ebb_pfn_t pfn)
{
    struct ebb_block block;

    ebb_zone_lookup(zone, pfn, &block);
    return block;
}

/* The block at pfn is what the host was told of: as the engine would do it. */
__attribute__((unused)) static void rig_report(ebb_pfn_t pfn)
{
    uint32_t index = (uint32_t)(pfn - zone->base);

    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, index));
    ebb__put_back(zone, index, true);
    ebb_port_unlock(&zone->lock);
}

/* Expect a refusal of that kind. */
__attribute__((unused)) static void rig_misuse(ebb_pfn_t pfn, unsigned order,
                                               enum ebb_misuse_kind kind)
{
    unsigned before = port_virtual.misuses;

    assert_int_equal(ebb_free(zone, pfn, order), -EBB_EINVAL);
    assert_int_equal(port_virtual.misuses, before + 1);
    assert_int_equal(port_virtual.misuse.kind, kind);
    assert_int_equal(port_virtual.misuse.pfn, pfn);
    assert_int_equal(port_virtual.misuse.order, order);
    assert_non_null(port_virtual.misuse.what);
}

#endif

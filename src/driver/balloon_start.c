/* SPDX-License-Identifier: BSD-2-Clause */
/* Balloon driver: bringing the device up, from its reset to DRIVER_OK. */
#include "balloon_private.h"

#include <ebb/impl/assert.h>
#include <ebb/port.h>

#define DMA_STATS    (EBB_BALLOON_PFNS * sizeof(uint32_t)) /* behind the pfns */
#define STATS_LENGTH (EBB_BALLOON_STATS_MAX * EBB_STAT_ENTRY_SIZE)

_Static_assert(EBB_BALLOON_RING_SIZE * 26 + 12 + 2 <= EBB__DMA_PAGE, "a ring fits a page");
_Static_assert(DMA_STATS + STATS_LENGTH <= EBB__DMA_PAGE, "the buffers fit a page");
_Static_assert(EBB_BALLOON_RING_SIZE <= EBB_REPORT_CAPACITY_LIMIT, "a full ring is a legal batch");
_Static_assert((EBB_FRAME_SIZE << EBB_ORDER_LIMIT) <= EBB_RING_CHAIN_LIMIT,
               "a block fits a descriptor, and a chain");

size_t ebb_balloon_dma_size(void)
{
    return EBB__DMA_BUFFERS + EBB__DMA_PAGE;
}

static bool config_ok(const struct ebb_balloon_config *config)
{
    const uint64_t size = ebb_balloon_dma_size();

    return config->transport && config->dma && (uintptr_t)config->dma % EBB__DMA_PAGE == 0 &&
           config->dma_addr % EBB__DMA_PAGE == 0 && config->dma_addr <= UINT64_MAX - size &&
           config->numbering <= EBB_BALLOON_FIXED;
}

/*
 * Which of the offered features to accept.
 *
 * Never DEFLATE_ON_OOM: it allows the guest to take frames back by itself, and
 * nothing here does (a guest that is short of memory inflates less). Never
 * FREE_PAGE_HINT, INDIRECT_DESC or EVENT_IDX.
 */
static uint64_t choose_features(const struct ebb_balloon_config *config, uint64_t offered)
{
    uint64_t wanted = EBB_F_VERSION_1 | EBB_F_MUST_TELL_HOST | EBB_F_PAGE_REPORTING;

    offered &= ~config->refuse;
    if (config->ops && config->ops->stats)
        wanted |= EBB_F_STATS_VQ;
    if (config->poison) {
        /* A guest that counts on the content of free frames must not report
         * them to a host that does not know what that is (5.5.6.7.1). */
        if (offered & EBB_F_PAGE_POISON)
            wanted |= EBB_F_PAGE_POISON;
        else
            wanted &= ~EBB_F_PAGE_REPORTING;
    }
    return offered & wanted;
}

static int negotiate(struct ebb_balloon *balloon, uint64_t offered)
{
    struct ebb_transport *t = balloon->config.transport;
    const uint8_t status = EBB_STATUS_ACKNOWLEDGE | EBB_STATUS_DRIVER | EBB_STATUS_FEATURES_OK;

    balloon->features = choose_features(&balloon->config, offered);
    if (!(balloon->features & EBB_F_VERSION_1))
        return -EBB_ENODEV;
    t->ops->set_features(t, balloon->features);
    t->ops->set_status(t, status);
    if (!(t->ops->get_status(t) & EBB_STATUS_FEATURES_OK))
        return -EBB_ENODEV;
    return 0;
}

/* Has the device a queue that the specification gives this number? */
static bool queue_offered(uint64_t features, unsigned which)
{
    static const uint64_t needs[EBB_BALLOON_QUEUES] = {
        [EBB_BALLOON_STATS] = EBB_F_STATS_VQ,
        [EBB_BALLOON_HINT] = EBB_F_FREE_PAGE_HINT,
        [EBB_BALLOON_REPORTING] = EBB_F_PAGE_REPORTING,
    };

    return (features & needs[which]) == needs[which];
}

static unsigned ring_size(unsigned max)
{
    unsigned size = EBB_BALLOON_RING_SIZE;

    while (size > max)
        size /= 2;
    EBB_DEBUG_ASSERT(size <= EBB_BALLOON_RING_SIZE && (size & (size - 1)) == 0);
    return size;
}

EBB_RARE static int setup_queue(struct ebb_balloon *balloon, unsigned which, unsigned index)
{
    struct ebb_transport *t = balloon->config.transport;
    struct ebb_balloon_vq *vq = &balloon->queues[which];
    const unsigned size = ring_size(t->ops->queue_max(t, index));
    const struct ebb_ring_layout layout = ebb_ring_layout(size);
    const uint64_t addr = balloon->config.dma_addr + which * EBB__DMA_PAGE;
    char *memory = (char *)balloon->config.dma + which * EBB__DMA_PAGE;
    int err;

    if (size == 0)
        return -EBB_ENOSPC;
    EBB_DEBUG_ASSERT(which < EBB_BALLOON_QUEUES && layout.total > 0 &&
                     layout.total <= EBB__DMA_PAGE);
    err = ebb_ring_driver_init(&vq->ring, size, memory, vq->slots);
    if (err)
        return err;
    vq->index = index;
    vq->exists = true;
    return t->ops->queue_setup(t, index, size, addr + layout.desc, addr + layout.avail,
                               addr + layout.used);
}

/*
 * Dense numbers count the queues that the device offers, negotiated or not: a
 * VMM makes its queues before it knows what the driver will accept. A driver
 * that accepts all it is offered, as Linux's does, cannot tell the difference.
 */
static int setup_queues(struct ebb_balloon *balloon, uint64_t offered)
{
    unsigned index = 0;

    for (unsigned which = 0; which < EBB_BALLOON_QUEUES; which++) {
        const bool fixed = balloon->config.numbering == EBB_BALLOON_FIXED;
        int err;

        if (queue_offered(balloon->features, which)) {
            err = setup_queue(balloon, which, fixed ? which : index);
            if (err)
                return err;
        }
        if (queue_offered(offered, which))
            index++;
    }
    return 0;
}

static void prepare_reporting(struct ebb_balloon *balloon)
{
    balloon->device.ops = &ebb__balloon_report_ops;
    balloon->device.capacity = balloon->queues[EBB_BALLOON_REPORTING].ring.size;
    /* Without PAGE_POISON the device may leave anything; with it, what was there or
     * the value that it is told (5.5.6.7.2). */
    if (balloon->features & EBB_F_PAGE_POISON) {
        balloon->device.content = EBB_CONTENT_KEPT_OR_VALUE;
        balloon->device.value = balloon->config.poison_val;
    }
}

static int bring_up(struct ebb_balloon *balloon)
{
    struct ebb_transport *t = balloon->config.transport;
    uint64_t offered;
    int err;

    t->ops->set_status(t, EBB_STATUS_ACKNOWLEDGE);
    t->ops->set_status(t, EBB_STATUS_ACKNOWLEDGE | EBB_STATUS_DRIVER);
    offered = t->ops->get_features(t);
    err = negotiate(balloon, offered);
    if (!err)
        err = setup_queues(balloon, offered);
    if (err)
        return err;

    prepare_reporting(balloon);
    if (balloon->features & EBB_F_PAGE_POISON)
        t->ops->config_write32(t, EBB_BALLOON_CFG_POISON_VAL, balloon->config.poison_val);
    /* A balloon that an earlier driver left behind is empty now. */
    t->ops->config_write32(t, EBB_BALLOON_CFG_ACTUAL, 0);
    /* The first interrupt may come before set_status() returns. */
    EBB_DEBUG_ASSERT(balloon->in_flight == 0 && balloon->transfer == 0);
    __atomic_store_n(&balloon->running, 1, __ATOMIC_RELEASE);
    t->ops->set_status(t, EBB_STATUS_ACKNOWLEDGE | EBB_STATUS_DRIVER | EBB_STATUS_FEATURES_OK |
                              EBB_STATUS_DRIVER_OK);
    /* Not before: of changes until then the device need not tell. */
    __atomic_fetch_or(&balloon->events, EBB__EVENT_CONFIG, __ATOMIC_RELEASE);
    return 0;
}

EBB_RARE int ebb_balloon_start(struct ebb_balloon *balloon, const struct ebb_balloon_config *config)
{
    struct ebb_transport *t = config->transport;
    int err;

    if (!config_ok(config))
        return -EBB_EINVAL;
    __builtin_memset(balloon, 0, sizeof(*balloon));
    balloon->config = *config;
    balloon->pfns = (void *)((char *)config->dma + EBB__DMA_BUFFERS);
    balloon->stats = (uint8_t *)config->dma + EBB__DMA_BUFFERS + DMA_STATS;

    err = ebb__balloon_reset(t);
    if (err)
        return err;
    err = bring_up(balloon);
    if (err) {
        /* Queues may be set up already, so a reset; then say why it is silent. */
        balloon->features = 0;
        if (ebb__balloon_reset(t) == 0)
            t->ops->set_status(t, EBB_STATUS_FAILED);
        return err;
    }
    ebb_port_wake(config->worker);
    return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon device in memory; see device_model.h. */
#include "device_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct model *model_of(struct ebb_transport *t)
{
    return (struct model *)t;
}

void *model_translate(void *ctx, uint64_t gpa, uint64_t len)
{
    struct model *m = ctx;

    if (gpa < MODEL_RAM_BASE || gpa - MODEL_RAM_BASE > MODEL_RAM_BYTES ||
        len > MODEL_RAM_BYTES - (gpa - MODEL_RAM_BASE))
        return NULL;
    return m->ram + (gpa - MODEL_RAM_BASE);
}

static uint64_t get_le(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

uint32_t model_config32(const struct model *m, unsigned offset)
{
    return (uint32_t)get_le(&m->config[offset], 4);
}

/* ---- queue numbers ---- */

static bool has_queue(uint64_t features, unsigned which)
{
    switch (which) {
    case EBB_BALLOON_STATS:
        return features & EBB_F_STATS_VQ;
    case EBB_BALLOON_HINT:
        return features & EBB_F_FREE_PAGE_HINT;
    case EBB_BALLOON_REPORTING:
        return features & EBB_F_PAGE_REPORTING;
    default:
        return true;
    }
}

struct model_queue *model_queue(struct model *m, unsigned which)
{
    const uint64_t features = m->count_accepted ? m->accepted : m->offered;
    unsigned index = 0;

    if (!has_queue(features, which))
        return NULL;
    if (m->fixed_numbers)
        return &m->queues[which];
    for (unsigned i = 0; i < which; i++)
        index += has_queue(features, i);
    return &m->queues[index];
}

/* ---- transport ---- */

static void forget_driver(struct model *m)
{
    m->status = 0;
    m->accepted = 0;
    m->irq = 0;
    m->stats_held = false;
    for (unsigned i = 0; i < MODEL_QUEUES; i++) {
        m->queues[i].size = 0;
        memset(&m->queues[i].ring, 0, sizeof(m->queues[i].ring));
    }
}

static uint64_t model_get_features(struct ebb_transport *t)
{
    return model_of(t)->offered;
}

static void model_set_features(struct ebb_transport *t, uint64_t features)
{
    model_of(t)->accepted = features;
}

static uint8_t model_get_status(struct ebb_transport *t)
{
    const struct model *m = model_of(t);

    return m->stuck_in_reset ? m->status | EBB_STATUS_ACKNOWLEDGE : m->status;
}

static void model_set_status(struct ebb_transport *t, uint8_t status)
{
    struct model *m = model_of(t);

    if (m->statuses < MODEL_STATUS_LOG)
        m->status_log[m->statuses++] = status;
    if (status == 0) {
        m->resets++;
        forget_driver(m);
        return;
    }
    if ((status & EBB_STATUS_FEATURES_OK) &&
        (m->refuse_features_ok || (m->accepted & ~m->offered) != 0))
        status &= (uint8_t)~EBB_STATUS_FEATURES_OK;
    if ((status & EBB_STATUS_DRIVER_OK) && !(m->status & EBB_STATUS_DRIVER_OK))
        m->poison_at_driver_ok = model_config32(m, EBB_BALLOON_CFG_POISON_VAL);
    m->status = status;
}

static unsigned model_queue_max(struct ebb_transport *t, unsigned index)
{
    const struct model *m = model_of(t);

    if (index >= MODEL_QUEUES)
        return 0;
    return m->queues[index].max;
}

static int model_queue_setup(struct ebb_transport *t, unsigned index, unsigned size, uint64_t desc,
                             uint64_t avail, uint64_t used)
{
    struct model *m = model_of(t);
    struct model_queue *q = &m->queues[index];

    if (m->setup_error)
        return m->setup_error;
    q->size = size;
    q->desc = desc;
    q->avail = avail;
    q->used = used;
    return ebb_ring_device_init(&q->ring, size, desc, avail, used, 0, model_translate, m);
}

static void model_notify(struct ebb_transport *t, unsigned index)
{
    struct model *m = model_of(t);

    m->queues[index].notified++;
    if (!(m->status & EBB_STATUS_DRIVER_OK))
        m->early_notify = true;
}

static uint32_t model_config_read32(struct ebb_transport *t, unsigned offset)
{
    model_of(t)->config_reads++;
    return model_config32(model_of(t), offset);
}

static void model_config_write32(struct ebb_transport *t, unsigned offset, uint32_t value)
{
    put_le(&model_of(t)->config[offset], value, 4);
}

static unsigned model_irq_causes(struct ebb_transport *t)
{
    struct model *m = model_of(t);
    const unsigned causes = m->irq;

    m->irq = 0;
    return causes;
}

static const struct ebb_transport_ops model_ops = {
    .get_features = model_get_features,
    .set_features = model_set_features,
    .get_status = model_get_status,
    .set_status = model_set_status,
    .queue_max = model_queue_max,
    .queue_setup = model_queue_setup,
    .notify = model_notify,
    .config_read32 = model_config_read32,
    .config_write32 = model_config_write32,
    .irq_causes = model_irq_causes,
};

void model_init(struct model *m, uint64_t features)
{
    memset(m, 0, sizeof(*m));
    m->transport.ops = &model_ops;
    m->offered = EBB_F_VERSION_1 | features;
    m->ram = aligned_alloc(4096, MODEL_RAM_BYTES);
    if (!m->ram)
        abort();
    memset(m->ram, 0x5a, MODEL_RAM_BYTES);
    for (unsigned i = 0; i < MODEL_QUEUES; i++)
        m->queues[i].max = 128;
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        struct model_queue *q = model_queue(m, i);

        if (q && i == EBB_BALLOON_REPORTING)
            q->max = 32;
    }
}

void model_exit(struct model *m)
{
    free(m->ram);
    m->ram = NULL;
}

/* ---- serving ---- */

static void give_back(struct model *m, struct model_queue *q, uint16_t head, uint32_t len)
{
    ebb_ring_device_put(&q->ring, head, len);
    if (ebb_ring_device_wants_call(&q->ring))
        m->irq |= EBB_IRQ_QUEUE;
}

static void serve_reporting(struct model *m, const struct ebb_ring_buf *bufs, unsigned n)
{
    m->reporting_chains++;
    for (unsigned i = 0; i < n; i++) {
        const struct ebb_ring_buf *b = &bufs[i];

        if (!b->write || b->addr % 4096 != 0 || b->len % 4096 != 0 || b->len == 0 ||
            b->addr > MODEL_SPACE || b->len > MODEL_SPACE - b->addr) {
            m->bad_requests++;
            continue;
        }
        m->reported_bytes += b->len;
        if (m->on_range)
            m->on_range(b->addr, b->len);
        if (m->range_count < MODEL_RANGES)
            m->ranges[m->range_count++] = (struct ebb_range){.addr = b->addr, .len = b->len};
    }
}

static void serve_pfn(struct model *m, uint32_t pfn, bool inflate)
{
    const uint8_t bit = (uint8_t)(1u << (pfn % 8));

    if (pfn >= MODEL_PFNS || inflate == !!(m->ballooned[pfn / 8] & bit)) {
        m->bad_requests++;
        return;
    }
    m->ballooned[pfn / 8] ^= bit;
    if (inflate)
        m->balloon_size++;
    else
        m->balloon_size--;
}

static void serve_pfns(struct model *m, const struct ebb_ring_buf *bufs, unsigned n, bool inflate)
{
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *data = model_translate(m, bufs[i].addr, bufs[i].len);

        if (!data || bufs[i].write || bufs[i].len % 4 != 0 || bufs[i].len == 0) {
            m->bad_requests++;
            continue;
        }
        for (uint32_t at = 0; at < bufs[i].len; at += 4)
            serve_pfn(m, (uint32_t)get_le(data + at, 4), inflate);
    }
}

static void serve_stats(struct model *m, const struct ebb_ring_buf *bufs, unsigned n)
{
    const uint8_t *data = model_translate(m, bufs[0].addr, bufs[0].len);

    if (n != 1 || !data || bufs[0].write || bufs[0].len % 10 != 0 || bufs[0].len > 320) {
        m->bad_requests++;
        return;
    }
    m->stats_buffers++;
    m->stat_count = bufs[0].len / 10;
    for (unsigned i = 0; i < m->stat_count; i++) {
        m->stats[i].tag = (uint16_t)get_le(data + 10 * i, 2);
        m->stats[i].value = get_le(data + 10 * i + 2, 8);
    }
}

/* One chain of the queue that the specification numbers `which`. */
static void serve(struct model *m, struct model_queue *q, unsigned which, uint16_t head,
                  const struct ebb_ring_buf *bufs, unsigned n)
{
    switch (which) {
    case EBB_BALLOON_INFLATE:
    case EBB_BALLOON_DEFLATE:
        serve_pfns(m, bufs, n, which == EBB_BALLOON_INFLATE);
        give_back(m, q, head, m->reading_len);
        break;
    case EBB_BALLOON_STATS:
        serve_stats(m, bufs, n);
        if (m->stats_held)
            give_back(m, q, m->stats_head, m->reading_len);
        m->stats_held = true;
        m->stats_head = head;
        break;
    case EBB_BALLOON_REPORTING:
        serve_reporting(m, bufs, n);
        give_back(m, q, head, m->reporting_len);
        break;
    default:
        m->bad_requests++;
        give_back(m, q, head, 0);
        break;
    }
}

unsigned model_run(struct model *m)
{
    struct ebb_ring_buf bufs[EBB_RING_SIZE_LIMIT];
    unsigned served = 0;

    if (m->silent || !(m->status & EBB_STATUS_DRIVER_OK))
        return 0;
    for (unsigned which = 0; which < EBB_BALLOON_QUEUES; which++) {
        struct model_queue *q = model_queue(m, which);
        uint16_t head;
        int n;

        if (!q || q->size == 0)
            continue;
        while ((n = ebb_ring_device_take(&q->ring, bufs, &head)) > 0) {
            serve(m, q, which, head, bufs, (unsigned)n);
            served++;
        }
        if (n < 0)
            model_needs_reset(m);
    }
    return served;
}

void model_poll_stats(struct model *m)
{
    struct model_queue *q = model_queue(m, EBB_BALLOON_STATS);

    if (!q || !m->stats_held)
        return;
    m->stats_held = false;
    give_back(m, q, m->stats_head, m->reading_len);
}

void model_resize(struct model *m, uint32_t frames)
{
    put_le(&m->config[EBB_BALLOON_CFG_NUM_PAGES], frames, 4);
    m->irq |= EBB_IRQ_CONFIG;
}

void model_needs_reset(struct model *m)
{
    m->status |= EBB_STATUS_NEEDS_RESET;
    m->irq |= EBB_IRQ_CONFIG;
}

/* ---- lies ---- */

void model_raw_used(struct model *m, struct model_queue *q, uint32_t id, uint32_t len)
{
    uint8_t *used = model_translate(m, q->used, 4 + 8 * (uint64_t)q->size);
    const unsigned idx = (unsigned)get_le(used + 2, 2);
    uint8_t *elem = used + 4 + 8 * (idx & (q->size - 1));

    put_le(elem, id, 4);
    put_le(elem + 4, len, 4);
    model_raw_used_idx(m, q, 1);
}

void model_raw_used_idx(struct model *m, struct model_queue *q, int by)
{
    uint8_t *used = model_translate(m, q->used, 4);

    put_le(used + 2, get_le(used + 2, 2) + (uint64_t)(int64_t)by, 2);
    m->irq |= EBB_IRQ_QUEUE;
}

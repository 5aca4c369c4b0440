/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker beside the lists (v10 to v12 of the other series of 2019): a bit for each
 * block of the smallest reported order says that a block which begins there might be free and
 * unreported. A pass visits the bits that are set, in the order of addresses, and looks again.
 *
 * Two levels: a second bitmap says which words of the first are not zero, so that the
 * search passes 4096 blocks a step where there is nothing. Both are touched only where there are
 * frames: what a sparse zone needs is address space, not memory.
 *
 * Bits are set wherever an unreported block is linked, not just where one is freed
 * (parts that are split off, blocks that come back from a failed batch), and
 * cleared only here, when no candidate begins there: none is lost, none stays for good.
 * There is no count of them.
 */
#include "tracker.h"

#define WORD_BITS 64u

/* Largest blocks looked at in one hold of the lock. */
#define ATTACH_PER_HOLD 64u

static uint64_t units(const struct ebb_zone *zone)
{
    return ((zone->span - 1) >> zone->report_min_order) + 1;
}

static void set_bit(struct ebb_zone *zone, uint64_t unit)
{
    uint64_t word = unit / WORD_BITS;

    zone->bits[word] |= (uint64_t)1 << unit % WORD_BITS;
    zone->bit_words[word / WORD_BITS] |= (uint64_t)1 << word % WORD_BITS;
}

static void clear_bit(struct ebb_zone *zone, uint64_t unit)
{
    uint64_t word = unit / WORD_BITS;

    zone->bits[word] &= ~((uint64_t)1 << unit % WORD_BITS);
    if (zone->bits[word] == 0)
        zone->bit_words[word / WORD_BITS] &= ~((uint64_t)1 << word % WORD_BITS);
}

void ebb__bitmap_mark(struct ebb_zone *zone, uint32_t index)
{
    set_bit(zone, index >> zone->report_min_order);
}

/* Whatever there is might be free. */
void ebb__bitmap_attach(struct ebb_zone *zone)
{
    unsigned shift = zone->max_order - zone->report_min_order;
    uint64_t largest = ((zone->span - 1) >> zone->max_order) + 1;

    for (uint64_t at = 0; at < largest;) {
        ebb_port_lock(&zone->lock);
        for (unsigned held = 0; held < ATTACH_PER_HOLD && at < largest; held++, at++) {
            uint64_t end = (at + 1) << shift;

            if (zone->present[at] == 0)
                continue;
            for (uint64_t unit = at << shift; unit < end && unit < units(zone); unit++)
                set_bit(zone, unit);
        }
        ebb_port_unlock(&zone->lock);
    }
}

static uint64_t words(const struct ebb_zone *zone)
{
    return (units(zone) - 1) / WORD_BITS + 1;
}

void ebb__bitmap_open(struct ebb_report *report)
{
    /* The word where it begins is visited again at the end. */
    report->scan_left = words(report->zone) + 1;
    if (report->zone->bit_cursor >= units(report->zone))
        report->zone->bit_cursor = 0;
}

/* From the word of this unit to the next one that is not zero, or to the end of what one word
 * of the second level tells of, or round to the first. */
static uint64_t next_word(struct ebb_report *report, uint64_t unit)
{
    const struct ebb_zone *zone = report->zone;
    uint64_t word = unit / WORD_BITS;
    uint64_t next = word + 1;
    uint64_t later = zone->bit_words[next / WORD_BITS] >> next % WORD_BITS;
    uint64_t end = words(zone);

    next += later ? (uint64_t)__builtin_ctzll(later) : WORD_BITS - next % WORD_BITS;
    if (next > end)
        next = end;
    report->scan_left -= next - word < report->scan_left ? next - word : report->scan_left;
    return next == end ? 0 : next * WORD_BITS;
}

static bool is_candidate(const struct ebb_zone *zone, uint32_t index)
{
    uint16_t state = ebb__load_state(zone, index);

    return ebb__state_of(state) == EBB__FREE && ebb__order_of(state) >= zone->report_min_order &&
           !(state & EBB__REPORTED) && ebb__type_of(state) != EBB_ISOLATE;
}

static bool fits(const struct ebb_zone *zone, uint32_t index)
{
    uint64_t frames = (uint64_t)1 << ebb__order_of(ebb__load_state(zone, index));

    return zone->free - zone->isolated >= zone->watermark_low + frames;
}

enum ebb__found ebb__bitmap_next(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    struct ebb_zone *zone = report->zone;
    uint64_t unit = zone->bit_cursor;
    enum ebb__found found = EBB__PAUSE;

    for (; *steps > 0 && found == EBB__PAUSE; (*steps)--) {
        uint64_t later = zone->bits[unit / WORD_BITS] >> unit % WORD_BITS;

        if (report->scan_left == 0) {
            found = EBB__NOTHING;
            break;
        }
        if (!later) {
            unit = next_word(report, unit);
            continue;
        }
        unit += (uint64_t)__builtin_ctzll(later);
        *index = (uint32_t)(unit << zone->report_min_order);
        if (!is_candidate(zone, *index))
            clear_bit(zone, unit);
        else if (fits(zone, *index))
            found = EBB__FOUND; /* its bit is cleared when it is seen to be gone */
        else
            unit = unit % WORD_BITS == WORD_BITS - 1 ? next_word(report, unit) : unit + 1;
    }
    zone->bit_cursor = unit;
    return found;
}

bool ebb__bitmap_check(const struct ebb_zone *zone, uint32_t *index)
{
    if (zone->report_min_order > zone->max_order)
        return true;
    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++) {
            const struct ebb_free_list *list = &zone->lists[order][type];

            *index = list->head;
            for (uint64_t i = 0; i < list->blocks;
                 i++, *index = ebb__link_of(zone, order, *index)->next) {
                uint64_t unit = *index >> zone->report_min_order;
                uint64_t word = unit / WORD_BITS;

                if (!ebb__is_reported(zone, order, *index) &&
                    (!(zone->bits[word] >> unit % WORD_BITS & 1) ||
                     !(zone->bit_words[word / WORD_BITS] >> word % WORD_BITS & 1)))
                    return false;
            }
        }
    }
    return true;
}

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

static uint64_t n_bits(const struct ebb_zone *zone)
{
    return ((zone->span - 1) >> zone->report_min_order) + 1;
}

static void set_bit(struct ebb_zone *zone, uint64_t bit)
{
    uint64_t word = bit / WORD_BITS;

    ebb__history_of(zone)->bits[word] |= (uint64_t)1 << bit % WORD_BITS;
    ebb__history_of(zone)->bit_words[word / WORD_BITS] |= (uint64_t)1 << word % WORD_BITS;
}

static void clear_bit(struct ebb_zone *zone, uint64_t bit)
{
    uint64_t word = bit / WORD_BITS;

    ebb__history_of(zone)->bits[word] &= ~((uint64_t)1 << bit % WORD_BITS);
    if (ebb__history_of(zone)->bits[word] == 0)
        ebb__history_of(zone)->bit_words[word / WORD_BITS] &= ~((uint64_t)1 << word % WORD_BITS);
}

static void bitmap_mark(struct ebb_zone *zone, uint32_t index)
{
    set_bit(zone, index >> zone->report_min_order);
}

/* Bits behind the last block, of a device that wanted smaller ones: nobody may look there. */
static void clear_tail(struct ebb_zone *zone)
{
    const uint64_t end = n_bits(zone);

    ebb__lock(zone);
    if (end % WORD_BITS > 0)
        ebb__history_of(zone)->bits[end / WORD_BITS] &= ((uint64_t)1 << end % WORD_BITS) - 1;
    ebb__unlock(zone);
}

/* Whatever there is might be free. */
static void bitmap_attach(struct ebb_history_zone *history_zone)
{
    struct ebb_zone *zone = history_zone->zone;
    unsigned shift = zone->max_order - zone->report_min_order;
    uint64_t largest = ((zone->span - 1) >> zone->max_order) + 1;

    clear_tail(zone);
    for (uint64_t at = 0; at < largest;) {
        ebb__lock(zone);
        for (unsigned held = 0; held < ATTACH_PER_HOLD && at < largest; held++, at++) {
            uint64_t end = (at + 1) << shift;

            if (zone->present[at] == 0)
                continue;
            for (uint64_t bit = at << shift; bit < end && bit < n_bits(zone); bit++)
                set_bit(zone, bit);
        }
        ebb__unlock(zone);
    }
}

static uint64_t words(const struct ebb_zone *zone)
{
    return (n_bits(zone) - 1) / WORD_BITS + 1;
}

static void bitmap_open(struct ebb_history *history)
{
    /* Behind the block where the last pass stopped, which may have come back from a failed batch.
     * The word where it begins is visited again at the end. */
    history->scan_left = words(history->at->zone) + 1;
    if (++history->at->bit_cursor >= n_bits(history->at->zone))
        history->at->bit_cursor = 0;
}

/* From the word of this bit to the next one that is not zero, or to the end of what one word
 * of the second level tells of, or round to the first. */
static uint64_t next_word(struct ebb_history *history, uint64_t bit)
{
    const struct ebb_zone *zone = history->at->zone;
    uint64_t word = bit / WORD_BITS;
    uint64_t next = word + 1;
    uint64_t later = ebb__history_of(zone)->bit_words[next / WORD_BITS] >> next % WORD_BITS;
    uint64_t end = words(zone);

    next += later ? (uint64_t)__builtin_ctzll(later) : WORD_BITS - next % WORD_BITS;
    if (next > end)
        next = end;
    history->scan_left -= next - word < history->scan_left ? next - word : history->scan_left;
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

static enum ebb__found bitmap_next(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    struct ebb_zone *zone = history->at->zone;
    uint64_t bit = ebb__history_of(zone)->bit_cursor;
    enum ebb__found found = EBB__PAUSE;

    for (; *looks > 0 && found == EBB__PAUSE; (*looks)--) {
        uint64_t later = ebb__history_of(zone)->bits[bit / WORD_BITS] >> bit % WORD_BITS;

        if (history->scan_left == 0) {
            found = EBB__NOTHING;
            break;
        }
        if (!later) {
            bit = next_word(history, bit);
            continue;
        }
        bit += (uint64_t)__builtin_ctzll(later);
        *index = (uint32_t)(bit << zone->report_min_order);
        if (!is_candidate(zone, *index))
            clear_bit(zone, bit);
        else if (fits(zone, *index))
            found = EBB__FOUND; /* its bit is cleared when it is seen to be gone */
        else
            bit = bit % WORD_BITS == WORD_BITS - 1 ? next_word(history, bit) : bit + 1;
    }
    ebb__history_of(zone)->bit_cursor = bit;
    return found;
}

static bool bitmap_check(const struct ebb_zone *zone, uint32_t *index)
{
    uint64_t end;

    if (zone->report_min_order > zone->max_order || !ebb__history_of(zone)->ready)
        return true;
    end = n_bits(zone);
    *index = 0;
    if (end % WORD_BITS > 0 && ebb__history_of(zone)->bits[end / WORD_BITS] >> end % WORD_BITS)
        return false;
    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++) {
            const struct ebb_free_list *list = &zone->lists[order][type];

            *index = list->head;
            for (uint64_t i = 0; i < list->blocks;
                 i++, *index = ebb__link_of(zone, order, *index)->next) {
                uint64_t bit = *index >> zone->report_min_order;
                uint64_t word = bit / WORD_BITS;

                if (!ebb__is_reported(zone, order, *index) &&
                    (!(ebb__history_of(zone)->bits[word] >> bit % WORD_BITS & 1) ||
                     !(ebb__history_of(zone)->bit_words[word / WORD_BITS] >> word % WORD_BITS & 1)))
                    return false;
            }
        }
    }
    return true;
}

static const struct ebb_zone_hooks bitmap_hooks = {
    .mark = bitmap_mark,
    .check = bitmap_check,
};

const struct ebb_tracker_ops ebb__tracker_bitmap = {
    .name = "bitmap",
    .by_address = true,
    .hooks = &bitmap_hooks,
    .attach = bitmap_attach,
    .open = bitmap_open,
    .next = bitmap_next,
};

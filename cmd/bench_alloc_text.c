/* SPDX-License-Identifier: BSD-2-Clause */
/* The tables of `ebb bench alloc`, from its JSON: plain, or as Markdown. */
#include "bench_alloc.h"
#include "cmd.h"
#include "result.h"
#include "table.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON ---- */

static const char *text_of(struct json_object *json, const char *key)
{
    const char *text = result_text(json, key);

    return text ? text : "?";
}

/* ---- cells ---- */

static void put_number(struct table *table, double value, int digits)
{
    table_put(table, isnan(value) ? cmd_format("-") : cmd_format("%.*f", digits, value));
}

/* "12.3 (11.9-14.0)" */
static void put_samples(struct table *table, struct json_object *samples, int digits)
{
    double middle = result_number(samples, "median");

    table_put(table, isnan(middle) ? cmd_format("-")
                                   : cmd_format("%.*f (%.*f-%.*f)", digits, middle, digits,
                                                result_number(samples, "min"), digits,
                                                result_number(samples, "max")));
}

static void put_peers(struct table *table, struct json_object *published, unsigned n, int digits)
{
    for (unsigned i = 0; i < n; i++)
        put_number(table, result_number(published, alloc_peers[i].key), digits);
}

static void put_peer_heads(struct table *table, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        table_put(table, cmd_format("%s%s", i == 0 ? "LLFree " : "", alloc_peers[i].name));
}

/* ---- the machine ---- */

static void print_head(struct json_object *json, FILE *out)
{
    struct json_object *machine = result_get(json, "machine");
    bool quick = result_flag(json, "quick");

    fprintf(out, "`%s`, ebb %s, %.0f s%s\n", text_of(json, "command"), text_of(json, "ebb_version"),
            result_number(json, "seconds"),
            quick ? ", QUICK: figures to look at, not to rely on" : "");
    fprintf(out, "%s %s, %s, %.0f CPUs, compiled with %s; metadata in %s pages\n",
            text_of(machine, "system"), text_of(machine, "release"), text_of(machine, "cpu"),
            result_number(machine, "cpus"), text_of(machine, "compiler"),
            result_flag(json, "huge_pages") ? "huge" : "SMALL");
    if (!result_flag(json, "all_reported"))
        fprintf(out, "NOT ALL was reported when the engine was to be idle.\n");
}

static void print_quiet(struct json_object *json, FILE *out)
{
    struct json_object *sections = result_get(json, "sections");

    fprintf(
        out,
        "Medians of %.0f rounds (least-most). Of %.0f measurements %.0f were discarded, since a "
        "thread had its CPU for less than %.1f %% of the time; %.0f were such and were kept.\n",
        result_number(json, "rounds"), result_number(sections, "measured"),
        result_number(sections, "discarded"), 100 * result_number(sections, "least_cpu_over_wall"),
        result_number(sections, "noisy"));
}

static void print_calibration(struct json_object *json, FILE *out)
{
    struct json_object *calibration = result_get(json, "calibration");

    fprintf(out, "To compare machines:");
    for (unsigned m = ALLOC_WORKLOADS; m < ALLOC_MEASURES; m++) {
        char *key = cmd_format("%s_ns", alloc_names[m]);

        fprintf(out, "%s %s %.2f ns", m > ALLOC_WORKLOADS ? "," : "", alloc_texts[m],
                result_number(result_get(calibration, key), "median"));
        free(key);
    }
    fprintf(out, " (not subtracted).\n%s\n\n", text_of(json, "published"));
}

/* ---- times ---- */

static void put_case_heads(struct table *table, unsigned threads)
{
    table_row(table);
    table_put_text(table, "ns an operation");
    table_put_text(table, "ebb");
    table_put_text(table, "idle/off");
    if (threads > 1)
        table_put_text(table, "2/1 threads");
    put_peer_heads(table, threads > 1 ? ALLOC_FULL_PEERS : ALLOC_PEERS);
    table_put_text(table, "at most");
    table_put_text(table, "met");
}

/* Whether a quick run has reached it says little. */
static void put_bar(struct table *table, double value, double most, bool quick)
{
    bool judged = !isnan(value) && !isnan(most);

    put_number(table, most, 0);
    table_put_text(table, !judged ? "" : quick ? "quick" : value <= most ? "yes" : "NO");
}

static void put_case(struct table *table, struct json_object *one, unsigned threads, bool quick)
{
    table_row(table);
    table_put_text(table, text_of(one, "text"));
    put_samples(table, result_get(one, "ns"), 1);
    put_number(table, result_number(result_get(one, "idle_over_off"), "median"), 3);
    if (threads > 1)
        put_number(table, result_number(result_get(one, "two_over_one"), "median"), 2);
    put_peers(table, result_get(one, "published"), threads > 1 ? ALLOC_FULL_PEERS : ALLOC_PEERS, 1);
    put_bar(table, result_number(result_get(one, "ns"), "median"), result_number(one, "most_ns"),
            quick);
}

static void print_cases(struct json_object *json, unsigned threads, unsigned gib, bool markdown,
                        FILE *out)
{
    struct json_object *cases = result_get(json, "cases");
    struct table table = {.rows = 0};
    char *title = cmd_format("%u GiB, %s", gib, threads > 1 ? "two threads" : "one thread");

    put_case_heads(&table, threads);
    for (size_t i = 0; i < result_length(cases); i++) {
        struct json_object *one = json_object_array_get_idx(cases, i);

        if (result_number(one, "threads") == threads && result_number(one, "gib") == gib)
            put_case(&table, one, threads, result_flag(json, "quick"));
    }
    if (table.rows > 1) {
        table_print_title(title, "", markdown, out);
        table_print(&table, markdown, out);
    } else {
        table_clear(&table);
    }
    free(title);
}

/* ---- memory ---- */

static void put_memory(struct table *table, struct json_object *one, bool quick)
{
    double gib = result_number(one, "gib");

    table_row(table);
    table_put(table, cmd_format("%.0f GiB: metadata, bytes a frame", gib));
    put_number(table, result_number(one, "bytes_per_frame"), 2);
    put_peers(table, result_get(one, "published_bytes_per_frame"), ALLOC_FULL_PEERS, 3);
    put_bar(table, result_number(one, "bytes_per_frame"), ALLOC_MOST_FRAME_BYTES, false);
    table_row(table);
    table_put(table, cmd_format("%.0f GiB: make the zone, us per GiB", gib));
    put_samples(table, result_get(one, "init_us_per_gib"), 2);
    put_peers(table, result_get(one, "published_init_us_per_gib"), ALLOC_FULL_PEERS, 1);
    put_bar(table, result_number(result_get(one, "init_us_per_gib"), "median"), ALLOC_MOST_INIT_US,
            quick);
    table_row(table);
    table_put(table, cmd_format("%.0f GiB: in memory never touched", gib));
    put_samples(table, result_get(one, "init_fresh_us_per_gib"), 2);
    put_peers(table, NULL, ALLOC_FULL_PEERS, 1);
    put_bar(table, (double)NAN, (double)NAN, quick);
}

static void print_memory(struct json_object *json, bool markdown, FILE *out)
{
    struct json_object *memory = result_get(json, "memory");
    struct table table = {.rows = 0};

    table_row(&table);
    table_put_text(&table, "one cache");
    table_put_text(&table, "ebb");
    put_peer_heads(&table, ALLOC_FULL_PEERS);
    table_put_text(&table, "at most");
    table_put_text(&table, "met");
    for (size_t i = 0; i < result_length(memory); i++)
        put_memory(&table, json_object_array_get_idx(memory, i), result_flag(json, "quick"));
    table_print_title("Metadata and initialisation", "", markdown, out);
    table_print(&table, markdown, out);
}

/* ---- whole blocks ---- */

static void put_whole(struct table *table, struct json_object *one)
{
    double threads = result_number(one, "threads");

    table_row(table);
    table_put(table, cmd_format("%.0f GiB, %s", result_number(one, "gib"),
                                threads > 1 ? "two threads" : "one thread"));
    put_samples(table, result_get(one, "mixed_percent"), 1);
    put_number(table, result_number(result_get(one, "published_mixed_percent"), alloc_peers[0].key),
               1);
    put_number(table, result_number(result_get(one, "published_mixed_percent"), alloc_peers[1].key),
               1);
    put_samples(table, result_get(one, "thinned_percent"), 1);
    put_number(table,
               result_number(result_get(one, "published_thinned_percent"), alloc_peers[0].key), 1);
    put_number(table,
               result_number(result_get(one, "published_thinned_percent"), alloc_peers[1].key), 1);
}

static void print_wholes(struct json_object *json, bool markdown, FILE *out)
{
    static const char *const heads[] = {"of free frames, %", "after d",     "LLFree main", "ae",
                                        "80 % freed",        "LLFree main", "ae"};
    struct json_object *wholes = result_get(json, "whole_blocks");
    struct table table = {.rows = 0};

    table_row(&table);
    for (unsigned i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        table_put_text(&table, heads[i]);
    for (size_t i = 0; i < result_length(wholes); i++)
        put_whole(&table, json_object_array_get_idx(wholes, i));
    table_print_title("Free memory in whole free blocks of 2 MiB",
                      "after d, caches emptied; and after 80 % of what d left in use was freed, at "
                      "random",
                      markdown, out);
    table_print(&table, markdown, out);
}

/* ---- the verdict ---- */

static void print_failures(struct json_object *json, FILE *out)
{
    struct json_object *failures = result_get(json, "failures");

    fprintf(
        out,
        "Of %.0f million operations %.0f failed for want of a free block, %.0f although one was "
        "free, %.0f while the other thread freed one (and succeeded when tried again).\n\n",
        result_number(failures, "operations") / 1e6, result_number(failures, "none_free"),
        result_number(failures, "refused"), result_number(failures, "raced"));
}

static const char *met(struct json_object *one, bool quick)
{
    const char *unit = text_of(one, "unit");

    if (isnan(result_number(one, "value")))
        return "NOT MEASURED";
    if (quick && strcmp(unit, "bytes") != 0 && *text_of(one, "bar"))
        return "a QUICK run cannot say";
    return result_flag(one, "met") ? "met" : "NOT MET";
}

static void print_verdict(struct json_object *json, bool markdown, FILE *out)
{
    struct json_object *verdict = result_get(json, "verdict");

    table_print_title("What was to be reached", "", markdown, out);
    for (size_t i = 0; i < result_length(verdict); i++) {
        struct json_object *one = json_object_array_get_idx(verdict, i);
        const char *bar = text_of(one, "bar"), *unit = text_of(one, "unit");

        fprintf(out, "%s%s%s%s: %.2f%s%s, at most %.4g: %s\n", markdown ? "- " : "", bar,
                *bar ? " " : "", text_of(one, "what"), result_number(one, "value"),
                *unit ? " " : "", unit, result_number(one, "most"),
                met(one, result_flag(json, "quick")));
    }
}

/* ---- the whole ---- */

bool alloc_print(struct json_object *json, bool markdown, FILE *out)
{
    print_head(json, out);
    print_quiet(json, out);
    print_calibration(json, out);
    for (unsigned threads = 1; threads <= ALLOC_THREADS; threads++) {
        for (unsigned size = 0; size < ALLOC_SIZES; size++)
            print_cases(json, threads, alloc_gib[size], markdown, out);
    }
    print_memory(json, markdown, out);
    print_wholes(json, markdown, out);
    print_failures(json, out);
    print_verdict(json, markdown, out);
    return !ferror(out);
}

bool alloc_sound(struct json_object *json)
{
    double refused = result_number(result_get(json, "failures"), "refused");

    if (!(refused > 0))
        return true;
    cmd_error("%.0f allocations were refused although a block was free", refused);
    return false;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "metrics.h"
#include "commands.h"

#include <ebb/types.h>

#include <event2/buffer.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum unit { NONE, BYTES, NANOSECONDS /* told in seconds */ };

/* A family with one sample for each VM, taken from a member of its state. */
static const struct family {
    const char *name; /* less "ebb_" and "_total", with its unit */
    const char *help;
    bool counter;
    enum unit unit;
    const char *group; /* a member of the state; NULL: the state itself */
    const char *member;
} families[] = {
#define COUNTER(name, unit, group, member, help) \
    {                                            \
        name, help, true, unit, group, #member   \
    }
#define GAUGE(name, unit, group, member, help)  \
    {                                           \
        name, help, false, unit, group, #member \
    }
    GAUGE("assigned_bytes", BYTES, "memory", assigned_bytes,
          "Guest memory that the front-end shares."),
    GAUGE("resident_bytes", BYTES, "memory", resident_bytes,
          "What the files behind guest memory take."),
    GAUGE("balloon_target_bytes", BYTES, "balloon", target_bytes, "What the balloon shall take."),
    GAUGE("balloon_actual_bytes", BYTES, "balloon", actual_bytes,
          "What the guest says that it has."),
    GAUGE("rate_limit_bytes", BYTES, NULL, rate,
          "Bytes a second that are discarded at most. 0: any."),
    GAUGE("gathered_bytes", BYTES, "discard", gathered_bytes,
          "Memory of the balloon that waits for the rest of its backing pages."),
    COUNTER("connections", NONE, "front_ends", connections, "Front-ends that were served."),
    COUNTER("connections_ended", NONE, "front_ends", ended,
            "Front-ends that were disconnected for what they did."),
    COUNTER("connections_turned_away", NONE, "front_ends", turned_away,
            "Front-ends that were not served."),
    COUNTER("kicks", NONE, NULL, kicks, "Notifications by the guest."),
    COUNTER("reported_bytes", BYTES, NULL, reported_bytes, "Free pages that the guest reported."),
    COUNTER("hinted_bytes", BYTES, NULL, hinted_bytes, "Free pages that the guest hinted."),
    COUNTER("inflated_bytes", BYTES, NULL, inflated_bytes, "Pages put into the balloon."),
    COUNTER("deflated_bytes", BYTES, NULL, deflated_bytes, "Pages taken from the balloon."),
    COUNTER("poison_skipped_bytes", BYTES, NULL, poison_skipped_bytes,
            "Reported, and left since the guest wants its poison kept."),
    COUNTER("discard_batches", NONE, "discard", batches, "Batches done."),
    COUNTER("discard_ranges", NONE, "discard", ranges, "Ranges in these."),
    COUNTER("discard_calls", NONE, "discard", calls, "System calls that discard."),
    COUNTER("discard_asked_bytes", BYTES, "discard", asked_bytes,
            "Memory that was to be discarded."),
    COUNTER("discarded_bytes", BYTES, "discard", discarded_bytes, "Memory that was."),
    COUNTER("discard_checked_bytes", BYTES, "discard", checked_bytes,
            "Discarded memory that was looked at afterwards."),
    COUNTER("discard_wait_seconds", NANOSECONDS, "discard", wait_ns,
            "Time that batches waited for a thread."),
    COUNTER("discard_busy_seconds", NANOSECONDS, "discard", busy_ns,
            "Time that threads discarded."),
};

/* OpenMetrics 1.0, and the text format 0.0.4 of Prometheus, which it came from. */
enum metrics_format { METRICS_OPENMETRICS, METRICS_PROMETHEUS, METRICS_FORMATS };

/* The VMs' states at one moment. */
struct scrape {
    struct json_object *states;
    unsigned n;
    enum metrics_format format;
    struct evbuffer *to;
};

static struct json_object *state_of(const struct scrape *scrape, unsigned i)
{
    return json_object_array_get_idx(scrape->states, i);
}

static const char *name_of(const struct scrape *scrape, unsigned i)
{
    return json_object_get_string(json_object_object_get(state_of(scrape, i), "name"));
}

/* Of a back end's answer, of which nothing is taken for granted: NULL, if it is no object. */
static struct json_object *part_of(struct json_object *object, const char *member)
{
    struct json_object *part = json_object_object_get(object, member);

    return json_object_is_type(part, json_type_object) ? part : NULL;
}

/* Can it be the value of a label? */
static bool is_plain(const char *name)
{
    return name[strspn(name, "abcdefghijklmnopqrstuvwxyz_")] == '\0';
}

/* 0 where there is none. */
static uint64_t number(struct json_object *object, const char *member)
{
    return json_object_get_uint64(json_object_object_get(object, member));
}

/* In Prometheus' text a counter is called with its suffix, and there is no info. */
static void head(struct scrape *scrape, const char *name, const char *type, const char *unit,
                 const char *help)
{
    const char *suffix = "";

    if (scrape->format == METRICS_PROMETHEUS && strcmp(type, "counter") == 0)
        suffix = "_total";
    if (scrape->format == METRICS_PROMETHEUS && strcmp(type, "info") == 0) {
        suffix = "_info";
        type = "gauge";
    }
    evbuffer_add_printf(scrape->to, "# TYPE ebb_%s%s %s\n", name, suffix, type);
    if (unit && scrape->format == METRICS_OPENMETRICS)
        evbuffer_add_printf(scrape->to, "# UNIT ebb_%s %s\n", name, unit);
    evbuffer_add_printf(scrape->to, "# HELP ebb_%s%s %s\n", name, suffix, help);
}

static void seconds(struct scrape *scrape, uint64_t ns)
{
    evbuffer_add_printf(scrape->to, " %" PRIu64 ".%09" PRIu64 "\n", ns / 1000000000,
                        ns % 1000000000);
}

static void add_family(struct scrape *scrape, const struct family *family)
{
    static const char *const units[] = {
        [NONE] = NULL, [BYTES] = "bytes", [NANOSECONDS] = "seconds"};

    head(scrape, family->name, family->counter ? "counter" : "gauge", units[family->unit],
         family->help);
    for (unsigned i = 0; i < scrape->n; i++) {
        struct json_object *state = state_of(scrape, i);
        const uint64_t value =
            number(family->group ? part_of(state, family->group) : state, family->member);

        evbuffer_add_printf(scrape->to, "ebb_%s%s{vm=\"%s\"}", family->name,
                            family->counter ? "_total" : "", name_of(scrape, i));
        if (family->unit == NANOSECONDS)
            seconds(scrape, value);
        else
            evbuffer_add_printf(scrape->to, " %" PRIu64 "\n", value);
    }
}

static void add_flag(struct scrape *scrape, const char *name, const char *help,
                     bool (*flag)(struct json_object *state))
{
    head(scrape, name, "gauge", NULL, help);
    for (unsigned i = 0; i < scrape->n; i++)
        evbuffer_add_printf(scrape->to, "ebb_%s{vm=\"%s\"} %d\n", name, name_of(scrape, i),
                            flag(state_of(scrape, i)));
}

static bool flag_of(struct json_object *object, const char *member)
{
    return json_object_get_boolean(json_object_object_get(object, member));
}

static bool is_connected(struct json_object *state)
{
    return flag_of(state, "connected");
}

static bool is_inhibited(struct json_object *state)
{
    return flag_of(state, "inhibited");
}

static bool needs_reset(struct json_object *state)
{
    return flag_of(json_object_object_get(state, "balloon"), "needs_reset");
}

static bool answers(struct json_object *state)
{
    return flag_of(json_object_object_get(state, "back_end"), "answers");
}

static bool is_lost(struct json_object *state)
{
    return flag_of(json_object_object_get(state, "back_end"), "lost");
}

static void add_replaced(struct scrape *scrape)
{
    head(scrape, "back_ends_replaced", "counter", NULL, "Back ends that died, or were killed.");
    for (unsigned i = 0; i < scrape->n; i++)
        evbuffer_add_printf(
            scrape->to, "ebb_back_ends_replaced_total{vm=\"%s\"} %" PRIu64 "\n", name_of(scrape, i),
            number(json_object_object_get(state_of(scrape, i), "back_end"), "replaced"));
}

/* By cause. */
static void add_causes(struct scrape *scrape)
{
    head(scrape, "not_discarded_bytes", "counter", "bytes",
         "Memory that was to be discarded and was not, or is still there.");
    for (unsigned i = 0; i < scrape->n; i++) {
        struct json_object *causes = part_of(part_of(state_of(scrape, i), "discard"), "not");

        if (!causes)
            continue;
        json_object_object_foreach(causes, cause, not ) if (is_plain(cause)) evbuffer_add_printf(
            scrape->to, "ebb_not_discarded_bytes_total{vm=\"%s\",cause=\"%s\"} %" PRIu64 "\n",
            name_of(scrape, i), cause, number(not, "bytes"));
    }
    head(scrape, "guest_faults", "counter", NULL, "What the guest did that it must not.");
    for (unsigned i = 0; i < scrape->n; i++) {
        struct json_object *faults = part_of(state_of(scrape, i), "faults");

        if (!faults)
            continue;
        json_object_object_foreach(faults, cause, count) if (is_plain(cause)) evbuffer_add_printf(
            scrape->to, "ebb_guest_faults_total{vm=\"%s\",cause=\"%s\"} %" PRIu64 "\n",
            name_of(scrape, i), cause, json_object_get_uint64(count));
    }
}

/* What guests say of themselves. A guest that never did has no samples. */
static void add_guests(struct scrape *scrape)
{
    head(scrape, "guest_statistic", "gauge", NULL, "What the guest said last.");
    for (unsigned i = 0; i < scrape->n; i++) {
        struct json_object *guest = part_of(state_of(scrape, i), "guest");

        if (!guest)
            continue;
        json_object_object_foreach(guest, name, value)
        {
            if (strcmp(name, "age_ns") != 0 && is_plain(name))
                evbuffer_add_printf(scrape->to,
                                    "ebb_guest_statistic{vm=\"%s\",name=\"%s\"} %" PRIu64 "\n",
                                    name_of(scrape, i), name, json_object_get_uint64(value));
        }
    }
    head(scrape, "guest_statistic_age_seconds", "gauge", "seconds", "How long ago that was.");
    for (unsigned i = 0; i < scrape->n; i++) {
        struct json_object *guest = part_of(state_of(scrape, i), "guest");

        if (!guest)
            continue;
        evbuffer_add_printf(scrape->to, "ebb_guest_statistic_age_seconds{vm=\"%s\"}",
                            name_of(scrape, i));
        seconds(scrape, number(guest, "age_ns"));
    }
}

/* The last bucket has no upper bound. */
static void add_buckets(struct scrape *scrape, unsigned i)
{
    const char *name = "ebb_discard_latency_seconds", *vm = name_of(scrape, i);
    struct json_object *discard = part_of(state_of(scrape, i), "discard");
    struct json_object *latency = json_object_object_get(discard, "latency");
    const size_t n =
        json_object_is_type(latency, json_type_array) ? json_object_array_length(latency) : 0;
    uint64_t sum = 0;

    for (size_t b = 0; b < n; b++) {
        sum += json_object_get_uint64(json_object_array_get_idx(latency, b));
        if (b + 1 < n && b < 32)
            evbuffer_add_printf(scrape->to, "%s_bucket{vm=\"%s\",le=\"%.6f\"} %" PRIu64 "\n", name,
                                vm, (double)(1u << b) / 1e6, sum);
    }
    evbuffer_add_printf(scrape->to, "%s_bucket{vm=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, vm,
                        sum);
    evbuffer_add_printf(scrape->to, "%s_count{vm=\"%s\"} %" PRIu64 "\n", name, vm, sum);
    evbuffer_add_printf(scrape->to, "%s_sum{vm=\"%s\"}", name, vm);
    seconds(scrape, number(discard, "wait_ns") + number(discard, "busy_ns"));
}

static void add_process(struct scrape *scrape)
{
    struct rusage usage;
    uint64_t us;

    head(scrape, "build", "info", NULL, "The version of ebb.");
    evbuffer_add_printf(scrape->to, "ebb_build_info{version=\"" EBB_VERSION "\"} 1\n");
    head(scrape, "vms", "gauge", NULL, "VMs that are served or listened for.");
    evbuffer_add_printf(scrape->to, "ebb_vms %u\n", scrape->n);
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return;
    us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
         (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    head(scrape, "cpu_seconds", "counter", "seconds", "CPU time of ebbd itself, user and system.");
    evbuffer_add_printf(scrape->to, "ebb_cpu_seconds_total");
    seconds(scrape, us * 1000);
}

static int write_metrics(struct json_object *states, enum metrics_format format,
                         struct evbuffer *to)
{
    struct scrape scrape = {.states = states,
                            .n = (unsigned)json_object_array_length(states),
                            .format = format,
                            .to = to};

    add_process(&scrape);
    add_flag(&scrape, "connected", "A front-end is connected.", is_connected);
    add_flag(&scrape, "inhibited", "Discarding is inhibited.", is_inhibited);
    add_flag(&scrape, "needs_reset",
             "The guest broke the protocol and is not served until it "
             "resets its device.",
             needs_reset);
    add_flag(&scrape, "answers", "The back end answers. If not, this is what it said last.",
             answers);
    add_flag(&scrape, "balloon_lost",
             "A front-end was connected when the back end ended, and none is again.", is_lost);
    add_replaced(&scrape);
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        add_family(&scrape, &families[i]);
    add_causes(&scrape);
    add_guests(&scrape);
    head(&scrape, "discard_latency_seconds", "histogram", "seconds",
         "Batches by the time from being handed over to being done.");
    for (unsigned i = 0; i < scrape.n; i++)
        add_buckets(&scrape, i);
    return format == METRICS_OPENMETRICS && evbuffer_add_printf(to, "# EOF\n") < 0 ? -1 : 0;
}

/* ---- HTTP, as much as a scrape takes: one request, one answer ---- */

#define HEADERS_LIMIT 100u

struct request {
    struct ebbd *ebbd;
    struct client *client;
    struct job *job; /* the back ends are asked */
    unsigned lines;
    enum { NONE_YET, BAD, GET, HEAD, ELSEWHERE, METHOD } what;
    struct {
        unsigned exact; /* how closely that was said, see read_range() */
        double quality; /* 0: not wanted, or nothing was said */
    } accept[METRICS_FORMATS];
};

static void reply(struct request *request, const char *status, const char *type,
                  struct evbuffer *body)
{
    size_t len = evbuffer_get_length(body);
    unsigned char *text = evbuffer_pullup(body, -1);
    char head_lines[256];
    int n = snprintf(head_lines, sizeof(head_lines),
                     "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                     "Vary: Accept\r\nConnection: close\r\n\r\n",
                     status, type, len);

    if (client_send(request->client, head_lines, (size_t)n) && request->what != HEAD && text)
        client_send(request->client, text, len);
    client_close(request->client);
}

static void answer_with(struct request *request)
{
    static const char plain[] = "text/plain; charset=utf-8";
    static const char *const types[METRICS_FORMATS] = {
        [METRICS_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
        [METRICS_PROMETHEUS] = "text/plain; version=0.0.4; charset=utf-8"};
    /* One that takes neither gets the first all the same (RFC 9110, 12.5.1, allows it). */
    const enum metrics_format format =
        request->accept[METRICS_PROMETHEUS].quality > request->accept[METRICS_OPENMETRICS].quality
            ? METRICS_PROMETHEUS
            : METRICS_OPENMETRICS;
    struct evbuffer *body = evbuffer_new();
    struct json_object *states = request->job ? commands_states(request->ebbd, request->job) : NULL;

    if (!body) {
        client_close(request->client);
        return;
    }
    if (request->what == BAD) {
        evbuffer_add_printf(body, "This is no HTTP request.\n");
        reply(request, "400 Bad Request", plain, body);
    } else if (request->what == METHOD) {
        evbuffer_add_printf(body, "Only GET and HEAD.\n");
        reply(request, "405 Method Not Allowed\r\nAllow: GET, HEAD", plain, body);
    } else if (request->what == ELSEWHERE) {
        evbuffer_add_printf(body, "The metrics are at /metrics.\n");
        reply(request, "404 Not Found", plain, body);
    } else if (states && write_metrics(states, format, body) == 0) {
        reply(request, "200 OK", types[format], body);
    } else {
        reply(request, "503 Service Unavailable", plain, body);
    }
    evbuffer_free(body);
    json_object_put(states);
}

static void on_states(void *ctx, struct job *job)
{
    (void)job;
    answer_with(ctx);
}

static void answer(struct request *request)
{
    if (request->what == GET || request->what == HEAD)
        request->job = commands_status_job(request->ebbd, NULL, on_states, request);
    if (request->job)
        client_pause(request->client, true);
    else
        answer_with(request);
}

/* The path of a request's target, which may be "http://HOST/PATH" (RFC 9112, 3.2.2). */
static const char *path_of(char *target)
{
    static const char *const schemes[] = {"http://", "https://"};

    target[strcspn(target, "?")] = '\0';
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t len = strlen(schemes[i]);

        if (strncasecmp(target, schemes[i], len) == 0 && target[len] != '/')
            return target + len + strcspn(target + len, "/");
    }
    return target;
}

/* "GET /metrics HTTP/1.1" */
static void read_request_line(struct request *request, char *line)
{
    char *rest = line, *method = strsep(&rest, " "), *target = strsep(&rest, " ");

    request->what = BAD;
    if (!target || !rest || strncmp(rest, "HTTP/1.", 7) != 0)
        return;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        request->what = METHOD;
        return;
    }
    if (strcmp(path_of(target), "/metrics") != 0)
        request->what = ELSEWHERE;
    else
        request->what = *method == 'G' ? GET : HEAD;
}

/* 0.5 of "version=0.0.4; q=0.5"; 1 without. */
static double quality_of(char *parameters)
{
    char *parameter;
    double quality;

    while ((parameter = strsep(&parameters, ";"))) {
        parameter += strspn(parameter, " \t");
        if (strncasecmp(parameter, "q=", 2) != 0)
            continue;
        quality = strtod(parameter + 2, NULL);
        return quality >= 0 && quality <= 1 ? quality : 1;
    }
    return 1;
}

/* "text/plain;q=0.5". What is said more exactly counts (RFC 9110, 12.5.1). */
static void read_range(struct request *request, char *range)
{
    static const char *const names[METRICS_FORMATS][3] = {
        [METRICS_OPENMETRICS] = {"*/*", "application/*", "application/openmetrics-text"},
        [METRICS_PROMETHEUS] = {"*/*", "text/*", "text/plain"}};
    char *parameters = range;
    double quality;

    (void)strsep(&parameters, ";");
    quality = quality_of(parameters);
    range += strspn(range, " \t");
    range[strcspn(range, " \t")] = '\0';
    for (unsigned format = 0; format < METRICS_FORMATS; format++) {
        for (unsigned i = request->accept[format].exact; i < 3; i++) {
            if (strcasecmp(range, names[format][i]) != 0)
                continue;
            if (i > request->accept[format].exact || quality > request->accept[format].quality)
                request->accept[format].quality = quality;
            request->accept[format].exact = i;
        }
    }
}

static void read_header(struct request *request, char *line)
{
    char *range;

    if (strncasecmp(line, "Accept:", 7) != 0)
        return;
    line += 7;
    while ((range = strsep(&line, ",")))
        read_range(request, range);
}

static void line(void *state, char *text, size_t len)
{
    struct request *request = state;

    if (++request->lines > HEADERS_LIMIT) {
        request->what = BAD;
    } else if (request->what == NONE_YET) {
        if (len > 0) /* empty lines before it are ignored (RFC 9112, 2.2) */
            read_request_line(request, text);
        if (request->what != BAD)
            return;
    } else if (len > 0) {
        read_header(request, text);
        return;
    }
    answer(request);
}

static void *come(struct client *client, void *ctx)
{
    struct request *request = calloc(1, sizeof(*request));

    if (request)
        *request = (struct request){.ebbd = ctx, .client = client};
    return request;
}

static void gone(void *state)
{
    struct request *request = state;

    job_free(request->job);
    free(request);
}

static void too_long(void *state)
{
    struct request *request = state;

    request->what = BAD;
    answer(request);
}

struct server_config metrics_config(struct ebbd *ebbd)
{
    return (struct server_config){
        .line_limit = 8192,
        .clients = 16,
        .request_s = 10,
        .answer_s = 60,
        .full = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n",
        .ctx = ebbd,
        .come = come,
        .line = line,
        .too_long = too_long,
        .gone = gone,
    };
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The live chart, the plain lines. (The summary is in summary.c.) */
#include "view.h"
#include "cmd.h"

#include <inttypes.h>
#include <langinfo.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CHART_ROWS   12u
#define CHART_COLS   160u
#define FRAME_MS     100u
#define PLAIN_MS     1000u
#define SLOW_BOOT_MS 900u /* before that, a guest that says nothing is no news */
#define BAR          40u
#define BAR_BEFORE   50u /* columns of a plain line besides its bar */
#define AXIS         8u  /* columns left of the chart */
#define LEAST_COLS   54u /* the line of numbers */
#define LEAST_ROWS   (CHART_ROWS + 5)
#define FRAME_BYTES  65536u

static uint64_t mib(uint64_t kib)
{
    return (kib + 512) / 1024;
}

/* ---- a frame is put together in memory and written at once, so that it does not flicker ---- */

enum color { PLAIN, GUEST, HOST, DIM };

struct frame {
    char text[FRAME_BYTES];
    size_t len;
    unsigned lines;
    bool colors;
    enum color color;
};

static void put(struct frame *frame, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct frame *frame, const char *format, ...)
{
    size_t room = sizeof(frame->text) - frame->len;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(frame->text + frame->len, room, format, args);
    va_end(args);
    if (n > 0)
        frame->len += (size_t)n < room ? (size_t)n : room - 1;
}

static void set_color(struct frame *frame, enum color color)
{
    static const char *const codes[] = {"\033[0m", "\033[0;33m", "\033[0;34m", "\033[0;2m"};

    if (frame->colors && frame->color != color)
        put(frame, "%s", codes[color]);
    frame->color = color;
}

static void end_line(struct frame *frame)
{
    set_color(frame, PLAIN);
    put(frame, "\033[K\n");
    frame->lines++;
}

static void write_out(const struct frame *frame)
{
    size_t done = 0;

    while (done < frame->len) {
        ssize_t n = write(STDOUT_FILENO, frame->text + done, frame->len - done);
        if (n <= 0)
            return;
        done += (size_t)n;
    }
}

/* ---- the chart ---- */

struct column {
    bool seen;
    uint64_t guest_kib, host_kib;
};

/* Seconds that the chart is wide: enough for all, in steps, so that it rarely moves. */
static double chart_span(double elapsed)
{
    static const double spans[] = {5, 10, 20, 30, 60, 120, 300, 600};
    size_t i;

    for (i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
        if (elapsed <= spans[i])
            return spans[i];
    }
    return (double)((uint64_t)(elapsed / 600) + 1) * 600;
}

/* The last sample of each column's time; a column without one repeats its neighbour. */
static void fill_columns(const struct record *record, double span, struct column *columns,
                         unsigned n)
{
    unsigned last = 0;

    memset(columns, 0, n * sizeof(*columns));
    for (size_t i = 0; i < record->n_samples; i++) {
        const struct record_sample *sample = &record->samples[i];
        double at = (double)(sample->ns - record->start_ns) / 1e9 / span * n;
        unsigned column = at < n ? (unsigned)at : n - 1;

        for (; last < column; last++) {
            if (columns[last].seen && !columns[last + 1].seen)
                columns[last + 1] = columns[last];
        }
        columns[column] = (struct column){true, sample->guest_kib, sample->host_kib};
        last = column;
    }
}

/* One character: the guest's line over the host's area. Heights in eighths of a row. */
static void put_cell(const struct view *view, struct frame *frame, const struct column *column,
                     uint64_t full_kib, unsigned row)
{
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    uint64_t eighths = CHART_ROWS * 8, low = (uint64_t)row * 8, host, guest;

    if (!column->seen) {
        put(frame, " ");
        return;
    }
    host = (column->host_kib * eighths + full_kib / 2) / full_kib;
    guest = column->guest_kib * eighths / full_kib;
    if (guest / 8 == row || (guest >= eighths && row == CHART_ROWS - 1)) {
        set_color(frame, GUEST);
        put(frame, "%s", view->utf8 ? "━" : "=");
        return;
    }
    host = host <= low ? 0 : host - low > 8 ? 8 : host - low;
    set_color(frame, HOST);
    put(frame, "%s", view->utf8 ? blocks[host] : host >= 4 ? "#" : " ");
}

static void put_chart(const struct view *view, struct frame *frame, double span)
{
    const struct run *run = view->run;
    struct column columns[CHART_COLS];
    unsigned n = view->columns - AXIS - 2 < CHART_COLS ? view->columns - AXIS - 2 : CHART_COLS;
    uint64_t full_kib = run->options->memory / 1024;

    fill_columns(&run->record, span, columns, n);
    for (unsigned row = CHART_ROWS; row-- > 0;) {
        if (row == CHART_ROWS - 1 || row == CHART_ROWS / 2 - 1)
            put(frame, "%*" PRIu64, AXIS - 2, full_kib / 1024 / (row == CHART_ROWS - 1 ? 1 : 2));
        else
            put(frame, "%*s", AXIS - 2, row == 0 ? "0" : row == CHART_ROWS - 2 ? "MiB" : "");
        put(frame, " %s", view->utf8 ? "│" : "|");
        for (unsigned i = 0; i < n; i++)
            put_cell(view, frame, &columns[i], full_kib, row);
        end_line(frame);
    }
    put(frame, "%*s0%*.0f s", AXIS, "", n - 3, span);
    end_line(frame);
}

bool view_writable(void)
{
    struct pollfd writable = {.fd = STDOUT_FILENO, .events = POLLOUT};

    return poll(&writable, 1, 0) == 1 && (writable.revents & (POLLOUT | POLLERR));
}

static void draw(struct view *view, uint64_t now)
{
    static struct frame frame;
    struct run *run = view->run;
    const struct run_options *options = run->options;
    struct record *record = &run->record;
    uint64_t host_kib = 0;
    double elapsed = (double)(now - record->start_ns) / 1e9;
    unsigned old = view->drawn;

    if (!view_writable())
        return;
    frame.len = 0;
    frame.lines = 0;
    frame.colors = view->color;
    frame.color = PLAIN;
    pthread_mutex_lock(&record->lock);
    if (record->n_samples > 0)
        host_kib = record->samples[record->n_samples - 1].host_kib;
    if (old > 0)
        put(&frame, "\033[%uA\r", old);
    put(&frame, "\033[?7l"); /* cut long lines, do not wrap them */
    put(&frame, "ebb run %6.1f s  %s, %s, %s, %u CPU%s, reporting %s", elapsed,
        run_machine_names[options->machine], run_accel_names[run->accel],
        run_backing_names[options->backing], options->cpus, options->cpus == 1 ? "" : "s",
        options->reporting ? "on" : "off");
    end_line(&frame);
    put_chart(view, &frame, chart_span(elapsed));
    set_color(&frame, GUEST);
    put(&frame, "guest in use %6" PRIu64 " MiB   ", mib(record->guest_kib));
    set_color(&frame, HOST);
    put(&frame, "held by the host %6" PRIu64 " MiB", mib(host_kib));
    end_line(&frame);
    set_color(&frame, DIM);
    put(&frame, "step: %s", record->ended ? "done" : record->step[0] ? record->step : "starting");
    end_line(&frame);
    put(&frame, "\033[?7h");
    pthread_mutex_unlock(&record->lock);
    view->drawn = frame.lines;
    write_out(&frame);
}

/* ---- plain lines ---- */

static void stamp(const struct view *view, uint64_t ns)
{
    printf("%8.3f s  ", (double)(ns - view->run->record.start_ns) / 1e9);
}

/* What a terminal has room for; a file has room for all. */
static unsigned bar_width(const struct view *view)
{
    if (view->columns == 0 || view->columns >= BAR_BEFORE + BAR)
        return BAR;
    return view->columns > BAR_BEFORE ? view->columns - BAR_BEFORE : 0;
}

static void plain_state(struct view *view, uint64_t now)
{
    struct run *run = view->run;
    struct record *record = &run->record;
    uint64_t host_kib = 0, guest_kib, full_kib = run->options->memory / 1024;
    unsigned width = bar_width(view);
    char bar[BAR + 1];
    bool any;

    if (!record->booted && now - record->start_ns < SLOW_BOOT_MS * CMD_MS)
        return;
    if (!record->booted) {
        stamp(view, now);
        printf("nothing heard from the guest yet\n");
        return;
    }
    pthread_mutex_lock(&record->lock);
    any = record->n_samples > 0;
    if (any)
        host_kib = record->samples[record->n_samples - 1].host_kib;
    guest_kib = record->guest_kib;
    pthread_mutex_unlock(&record->lock);
    if (!any)
        return;
    for (unsigned i = 0; i < width; i++) {
        uint64_t at = full_kib * (2 * i + 1) / (2 * width);
        bar[i] = guest_kib > at ? '#' : host_kib > at ? '-' : '.';
    }
    bar[width] = '\0';
    stamp(view, now);
    printf("guest %6" PRIu64 " MiB  host %6" PRIu64 " MiB", mib(guest_kib), mib(host_kib));
    if (width > 0)
        printf("  [%s]", bar);
    putchar('\n');
}

static void plain_event(struct view *view, uint64_t ns, const struct telemetry_event *event)
{
    switch (event->kind) {
    case TELEMETRY_BOOT:
        stamp(view, ns);
        printf("the guest is up: %" PRIu64 " CPU%s, %" PRIu64 " MiB, reporting %s\n", event->cpus,
               event->cpus == 1 ? "" : "s", event->managed_kib / 1024,
               event->reporting ? "on" : "off");
        break;
    case TELEMETRY_STEP:
        stamp(view, ns);
        printf("step: %s\n", event->text);
        break;
    case TELEMETRY_HOLD:
        stamp(view, ns);
        printf("the workload holds %" PRIu64 " MiB\n", mib(event->kib));
        view->next_ns = ns + 20 * CMD_MS; /* when a sample of it is there */
        break;
    case TELEMETRY_RELEASE:
        stamp(view, ns);
        printf("the workload has freed %" PRIu64 " MiB\n", mib(event->kib));
        view->next_ns = ns + 100 * CMD_MS; /* the interesting time */
        break;
    case TELEMETRY_END:
        if (event->status == 0)
            plain_state(view, ns);
        stamp(view, ns);
        printf(event->status ? "the guest gives up\n" : "done\n");
        view->next_ns = UINT64_MAX;
        break;
    case TELEMETRY_HEADER:
    case TELEMETRY_BASE:
    case TELEMETRY_USE:
    case TELEMETRY_FAULT:
    case TELEMETRY_RESULT:
    case TELEMETRY_ENGINE:
        break;
    }
}

/* ---- */

void view_init(struct view *view, struct run *run)
{
    const struct run_options *options = run->options;
    const char *term = getenv("TERM");
    bool dumb = !term || strcmp(term, "dumb") == 0;

    *view = (struct view){.run = run};
    view->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    view->color = !getenv("NO_COLOR");
    view_resize(view);
    if (options->quiet || options->interactive)
        view->mode = VIEW_QUIET;
    else if (isatty(STDOUT_FILENO) && !dumb && !options->console && view->columns >= LEAST_COLS &&
             view->rows >= LEAST_ROWS)
        view->mode = VIEW_LIVE;
    else
        view->mode = VIEW_PLAIN;
}

void view_resize(struct view *view)
{
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        view->columns = size.ws_col;
        view->rows = size.ws_row;
    }
    /* Too small for a frame now: it would scroll. */
    if (view->mode == VIEW_LIVE && (view->columns < LEAST_COLS || view->rows < LEAST_ROWS))
        view->mode = VIEW_PLAIN;
}

void view_event(struct view *view, uint64_t ns, const struct telemetry_event *event)
{
    if (view->mode != VIEW_PLAIN || !view_writable())
        return;
    plain_event(view, ns, event);
    fflush(stdout);
}

uint64_t view_tick(struct view *view, uint64_t now)
{
    if (view->mode == VIEW_QUIET)
        return UINT64_MAX;
    if (now < view->next_ns)
        return view->next_ns;
    if (view->mode == VIEW_LIVE) {
        draw(view, now);
        view->next_ns = now + FRAME_MS * CMD_MS;
    } else {
        if (view_writable())
            plain_state(view, now);
        fflush(stdout);
        view->next_ns = now + PLAIN_MS * CMD_MS;
    }
    return view->next_ns;
}

void view_end(struct view *view)
{
    if (view->mode == VIEW_LIVE)
        draw(view, cmd_now_ns());
}

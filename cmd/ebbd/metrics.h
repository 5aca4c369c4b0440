/* SPDX-License-Identifier: BSD-2-Clause */
/* Metrics over HTTP (SPEC.md, "Metrics of ebbd"). */
#ifndef EBBD_METRICS_H
#define EBBD_METRICS_H

#include "ebbd.h"
#include "server.h"

#include <event2/buffer.h>

/* For server_new(), with the daemon as ctx. */
struct server_config metrics_config(struct ebbd *daemon);

/* OpenMetrics 1.0, and the text format 0.0.4 of Prometheus, which it came from. */
enum metrics_format { METRICS_OPENMETRICS, METRICS_PROMETHEUS, METRICS_FORMATS };

/* The text of all metrics. 0, or -1 without memory. */
int metrics_text(const struct ebbd *daemon, enum metrics_format format, struct evbuffer *to);

#endif

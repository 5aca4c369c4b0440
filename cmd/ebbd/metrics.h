/* SPDX-License-Identifier: BSD-2-Clause */
/* OpenMetrics over HTTP (SPEC.md, "Metrics of ebbd"). */
#ifndef EBBD_METRICS_H
#define EBBD_METRICS_H

#include "ebbd.h"
#include "server.h"

#include <event2/buffer.h>

/* For server_new(), with the daemon as ctx. */
struct server_config metrics_config(struct ebbd *daemon);

/* The text of all metrics. 0, or -1 without memory. */
int metrics_text(const struct ebbd *daemon, struct evbuffer *to);

#endif

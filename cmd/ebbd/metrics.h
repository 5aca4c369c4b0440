/* SPDX-License-Identifier: BSD-2-Clause */
/* Metrics over HTTP (SPEC.md, "Metrics of ebbd"). */
#ifndef EBBD_METRICS_H
#define EBBD_METRICS_H

#include "../common/server.h"
#include "ebbd.h"

/* For server_new(). */
struct server_config metrics_config(struct ebbd *ebbd);

#endif

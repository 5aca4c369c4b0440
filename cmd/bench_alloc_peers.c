/* SPDX-License-Identifier: BSD-2-Clause */
/* LLFree-C's figures for the same workloads, measured elsewhere, and what ebb is to reach. */
#include "bench_alloc.h"

#include <math.h>

const char *const alloc_peers_note =
    "LLFree-C was not run here: its figures were measured elsewhere, by the same workloads, on a "
    "machine of this kind: 2 virtual CPUs of an AMD EPYC (family 25 model 17, 32 MiB L3), Linux "
    "6.18, medians of at least 5 quiet runs, an uncontended lock cmpxchg 2.25-2.3 ns, the loop of "
    "d 3.0-3.4 ns. main: commit 970bb3d, clang 14 -O2 -march=native -DNDEBUG. ae: branch "
    "artifact-eval, commit 9f10f94, clang 14 -O3 -march=native -DNDEBUG. LTO: both with clang 16 "
    "-O3 -flto -DNDEBUG.";

const struct alloc_peer alloc_peers[ALLOC_PEERS] = {
    {.name = "main",
     .key = "main",
     .what = "LLFree-C main 970bb3d, clang 14 -O2",
     .ns = {{[ALLOC_A] = {55.6, 55.8, 56.0},
             [ALLOC_A2] = {55.5, 55.6, 56.3},
             [ALLOC_B1_ALLOC] = {35.2, 35.1, 35.4},
             [ALLOC_B1_FREE] = {23.1, 23.1, 23.1},
             [ALLOC_B2_ALLOC] = {35.2, 35.1, 35.5},
             [ALLOC_B2_FREE] = {23.1, 23.3, 23.4},
             [ALLOC_C1] = {50.7, 50.6, 51.0},
             [ALLOC_C2_ALLOC] = {38.5, 43.4, 63.8},
             [ALLOC_C2_FREE] = {22.0, 22.0, 21.9},
             [ALLOC_D] = {39.0, 46.8, 77.8}},
            {[ALLOC_A] = {55.8, 55.7, 56.0},
             [ALLOC_A2] = {55.8, 55.7, 56.1},
             [ALLOC_B1_ALLOC] = {35.8, 35.3, 35.9},
             [ALLOC_B1_FREE] = {85.1, 79.3, 36.3},
             [ALLOC_B2_ALLOC] = {35.9, 35.4, 35.7},
             [ALLOC_B2_FREE] = {84.6, 76.8, 31.3},
             [ALLOC_B3_FREE] = {82.7, 81.8, 76.0},
             [ALLOC_C1] = {51.0, 50.7, 50.9},
             [ALLOC_C2_ALLOC] = {74, 97, 133},
             [ALLOC_C2_FREE] = {59, 64, 85},
             [ALLOC_D] = {100, 104, 155}}},
     .whole_mixed = {15.2, 29.1, 41.5},
     .whole_thinned = {30.2, 35.9, 43.1},
     .init_us = {2.0, 2.2, 2.2},
     .bytes_per_frame = {0.1436, 0.1421, 0.1417}},
    {.name = "ae",
     .key = "artifact_eval",
     .what = "LLFree-C artifact-eval 9f10f94, clang 14 -O3",
     .ns = {{[ALLOC_A] = {31.3, 34.2, 31.2},
             [ALLOC_A2] = {30.2, 30.4, 30.8},
             [ALLOC_B1_ALLOC] = {19.4, 19.7, 20.1},
             [ALLOC_B1_FREE] = {12.1, 12.2, 12.5},
             [ALLOC_B2_FREE] = {12.2, 12.4, 13.1},
             [ALLOC_C1] = {23.9, 26.2, 24.0},
             [ALLOC_C2_ALLOC] = {67.9, 186, 181},
             [ALLOC_C2_FREE] = {9.2, 9.3, 9.3},
             [ALLOC_D] = {33.3, 41.4, 45.5}},
            {[ALLOC_A] = {31.2, 33.8, 31.6},
             [ALLOC_A2] = {90.8, 30.3, 30.2},
             [ALLOC_B1_ALLOC] = {19.6, 19.6, 19.8},
             [ALLOC_B1_FREE] = {72.7, 26.3, 18.4},
             [ALLOC_B2_FREE] = {73.1, 27.7, 21.7},
             [ALLOC_B3_FREE] = {72.9, 27.2, 13.6},
             [ALLOC_C1] = {23.8, 24.7, 23.9},
             [ALLOC_C2_ALLOC] = {147, 116, 180},
             [ALLOC_C2_FREE] = {70, 20.9, 18.3},
             [ALLOC_D] = {116, 48.5, 98.8}}},
     .whole_mixed = {21.9, 36.1, 33.6},
     .whole_thinned = {31.3, 36.4, 37.1},
     .bytes_per_frame = {0.1416, 0.1412, 0.1411}},
    {.name = "main LTO",
     .key = "main_lto",
     .what = "LLFree-C main 970bb3d, clang 16 -O3 -flto",
     .ns = {{[ALLOC_A] = {51.1, 51.0, 51.3},
             [ALLOC_B1_ALLOC] = {32.9, 32.6, 32.9},
             [ALLOC_B1_FREE] = {19.9, 20.3, 20.5},
             [ALLOC_C1] = {49.0, 49.0, 49.3},
             [ALLOC_C2_ALLOC] = {37.2, 41.1, 56.6},
             [ALLOC_D] = {32.9, 39.4, 63.5}}}},
    {.name = "ae LTO",
     .key = "artifact_eval_lto",
     .what = "LLFree-C artifact-eval 9f10f94, clang 16 -O3 -flto",
     .ns = {{[ALLOC_A] = {23.2, 32.0, 23.3},
             [ALLOC_B1_ALLOC] = {16.3, 16.7, 16.4},
             [ALLOC_B1_FREE] = {7.4, 7.7, 8.8},
             [ALLOC_C1] = {16.7, 18.1, 17.3},
             [ALLOC_C2_ALLOC] = {54, 156, 154},
             [ALLOC_D] = {26.4, 32.2, 35.3}}}},
};

static double most_of_one(unsigned gib, enum alloc_measure measure)
{
    switch (measure) {
    case ALLOC_A:
        return 10;
    case ALLOC_B1_FREE:
    case ALLOC_B2_FREE:
        return 12;
    case ALLOC_C1:
        return 30;
    case ALLOC_D:
        return gib == 1 ? 30 : gib == 16 ? 45 : (double)NAN;
    default:
        return (double)NAN;
    }
}

double alloc_most_ns(unsigned threads, unsigned gib, enum alloc_measure measure)
{
    if (threads == 1)
        return most_of_one(gib, measure);
    return measure == ALLOC_B3_FREE ? 40 : (double)NAN;
}

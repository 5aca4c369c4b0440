/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Model of the protocol between frees, the runner of passes, the device and
 * (un)registering: src/report/engine.c and setup.c, over sources that are zones.
 * tests/model/run has spin look at every interleaving of it, in several
 * configurations, and then at every seeded defect.
 *
 * A step is one hold of a lock (an `atomic` below) or one atomic operation on
 * report->batch or report->running. Memory is sequentially consistent here: that
 * acquire and release suffice is for the thread sanitizer to say.
 *
 *   here                          in src
 *   ----                          ------
 *   phase, running, batch, due    the fields of struct ebb_report
 *   device, changing, in_pass       "
 *   first, zone, zone_open, ...   first, source, source_open, ...
 *   requested[], gated[], on[]    of a zone: source.requested, report_gated, and
 *                                 whether report_min_order is other than
 *                                 EBB__SCREEN_OFF
 *   unreported[], reported[],     blocks of a zone: on a free list without and with
 *   out[], held[]                 the mark, isolated, allocated
 *   FITS, OVER_THRESHOLD          ebb__something_fits() (zone/screen.c),
 *                                 over_threshold() (history/walk.c)
 *   report_wanted()               ebb__screen_slow(), ebb__wish(): the request is
 *                                 noted under the zone's lock
 *   report_request()              ebb_source_request(), with no lock held
 *   request(), report_now(),      the same in engine.c, with ebb_ or without
 *   another_pass(), begin_pass()
 *   ... end_pass(), back_off()
 *   kick()                        ebb__wake(); inline ebb__history_run_inline()
 *   take_request(), open_zone(),  open_source(); take_some(); close_source()
 *   fill_some(), close_zone()
 *   drain()                       ebb__finish_batch()
 *   drain_idle()                  ebb__drain_caches(zone, true, true) (zone/pcp.c)
 *   screens_on(), screens_off()   attach_sources(), detach_sources() (setup.c)
 *   enter() ... report_run()      the same, without ebb_
 *   cpu                           a CPU that frees and allocates: ebb_free() and its
 *                                 like, ending in ebb__pass_on_wish()
 *   worker                        who calls ebb_report_run(): when woken, and at the
 *                                 time that the last call returned
 *   caller                        somebody else who calls it, an idle loop say, and
 *                                 does not care for the time it returns
 *   submit() and dev              the device: completes inside submit, or later from a
 *                                 context of its own, refuses, or fails
 *   registrar, unregistrar        the callers of ebb_report_register(), _unregister()
 *   rest                          nobody: looks at what is left once nothing moves
 *
 * Abstracted:
 *   - Blocks are counted, not told apart; each zone has one reported order and one
 *     list, so trackers, directions, splits, merges and types are not here, nor is
 *     the room of a batch. A hold takes one block: a longer hold is among the
 *     interleavings too.
 *   - Time: `due` is NEVER, LATER or PAST. LATER may have come whenever somebody
 *     looks, and has come when the worker's timer fires. due_new: `due` was set after
 *     the runner read the clock, so the runner may see PAST as still to come. The
 *     length of delays and back-offs does not exist.
 *   - A CPU that spins (ebb_port_relax()) waits until what it looks at has changed.
 *     The loop around enter() in ebb_report_unregister() sees a gap between two
 *     runners sooner or later: stated by a progress label, not shown.
 *   - Statistics. A completion that nobody waits for is an error unless STRAYS > 0.
 *
 * Checked:
 *   assertions     one runner; a batch is filled, sent and drained only while no
 *                  device has one (I7); submit only between register and the return
 *                  of unregister; at that return no batch in flight, no block out, no
 *                  zone open; the batch's state changes only as its owner may; with
 *                  FREED: complete() does not touch the engine after its exchange, if
 *                  there is a worker (inline it does: it is the next runner)
 *   rest           when nothing moves and a device is registered: nothing running, no
 *                  block out, no zone that believes it has asked (it would never ask
 *                  again), no block left that fits and is not below the threshold
 *                  (I11), idle caches empty. Inline, a failed batch may leave blocks
 *   non-progress   no run is infinite, so every pass ends (I9): all counts are finite,
 *   cycles         so there is no cycle of states at all. With FOREVER (a device that
 *                  never recovers) each cycle goes through the beginning of a pass.
 *
 * Configuration (-D; defaults below): INLINED; NZ zones of BLOCKS blocks; CPUS CPUs
 * with OPS operations each; CAP blocks in a batch; THRESHOLD; LOW, the low watermark;
 * BUDGET; ERRS failures; FOREVER; STRAYS surplus completions; UNREGISTER; REGISTER
 * registrations; ALLOC: CPUs allocate too; CACHE: they free into caches too; SMALL:
 * frames that are free and too small to report; NOW; CALLS of caller; FREED.
 * Defects: every M_... below.
 */

#ifdef INLINED
#define IS_INLINED true
#define DELAY      PAST
#else
#define IS_INLINED false
#define DELAY      LATER
#endif
#ifndef NZ
#define NZ 1
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef CPUS
#define CPUS 2
#endif
#ifndef OPS
#define OPS 2
#endif
#ifndef CAP
#define CAP 2
#endif
#ifndef THRESHOLD
#define THRESHOLD 1
#endif
#ifndef LOW
#define LOW 0
#endif
#ifndef ERRS
#define ERRS 0
#endif
#ifndef STRAYS
#define STRAYS 0
#endif
#ifndef REGISTER
#define REGISTER 1
#endif
#ifndef SMALL
#define SMALL 0
#endif
#ifndef CALLS
#define CALLS 0
#endif
#ifndef FREE_AT_START /* blocks of each zone */
#define FREE_AT_START 1
#endif

/* report->phase */
#define IDLE      0
#define REQUESTED 1
#define ACTIVE    2

/* report->batch; a failed one holds a negative status, here always FAILED */
#define BATCH_NONE      0
#define BATCH_IN_FLIGHT 1
#define BATCH_DONE      2
#define BATCH_FAILED    3

/* report->running */
#define RUN_FREE   0
#define RUN_TAKEN  1
#define RUN_WANTED 2

/* report->due */
#define NEVER 0
#define LATER 1
#define PAST  2

#define NO_ZONE NZ

byte phase = IDLE;
byte batch = BATCH_NONE;
byte running = RUN_FREE;
byte due = NEVER;
bool due_new;
bool device;
bool changing;
bool in_pass;

byte first;
byte zone = NO_ZONE;
bool zone_open;
bool lists_left;
bool list_open;
byte list_blocks;
byte filled;

bool requested[NZ];
bool gated[NZ];
bool on[NZ];
byte unreported[NZ] = FREE_AT_START;
byte reported[NZ];
byte out[NZ];
byte held[NZ] = BLOCKS - FREE_AT_START;
byte small_free[NZ]; /* frames that count for the watermark only */
byte cached[NZ];
bool cache_used[NZ];

bool woken;
bool timer;

/* The device: what it has (0: nothing, else 1 + the registration it came with). */
byte pending;
byte errors = ERRS;

/* For the assertions alone. */
byte registration;
byte runners;
bool returned[3]; /* unregister of this registration has returned */
bool freed;       /* ... and the engine's memory is somebody else's */
bool failed;      /* a batch has failed: inline that is nobody's business until a free */

/* The batch and its blocks are the runner's, and no device has them. */
#if STRAYS > 0
#define NOT_WITH_DEVICE true
#else
#define NOT_WITH_DEVICE (pending == 0)
#endif

#define ATTACHED (device && !changing)

#define AVAILABLE(z)      (unreported[z] + reported[z] + small_free[z])
#define FITS(z)           (unreported[z] > 0 && AVAILABLE(z) > LOW)
#define OVER_THRESHOLD(z) (unreported[z] >= THRESHOLD)

#define LOCALS                                                                                     \
    bool wanted, wake, got, go, again;                                                             \
    byte z, st, next, cached_left

/* ---- the screener and the requests ---- */

inline set_gate(zn, value)
{
#ifndef M_NO_GATE
    gated[zn] = value
#else
    gated[zn] = false
#endif
}

/* Part of a hold of the zone's lock: blocks of the reported order, or small ones. */
inline report_wanted(zn, is_small)
{
    wanted = on[zn] && !requested[zn] && (gated[zn] -> FITS(zn) : !is_small && OVER_THRESHOLD(zn));
    if
    :: wanted -> requested[zn] = true
    :: else
    fi
}

/* Part of a hold of the engine's lock. */
inline request()
{
    wake = (phase == IDLE);
#ifdef M_LOST_WHILE_ACTIVE
    phase = (phase == ACTIVE -> ACTIVE : REQUESTED)
#else
    phase = REQUESTED
#endif
}

inline report_request()
{
    atomic {
        wake = false;
        if
        :: ATTACHED ->
            request();
            if
            :: wake -> due = DELAY; due_new = true
            :: else
            fi
        :: else
        fi
    };
    if
    :: wake -> wake = false; kick()
    :: else
    fi
}

inline kick()
{
#ifdef INLINED
    report_run()
#else
    woken = true
#endif
}

/* Inside submit, hence inside ebb_report_run(): inline, another call finds that out. */
inline kick_inside()
{
#ifdef INLINED
    atomic {
        enter_();
        assert(!got)
    }
#else
    woken = true
#endif
}

inline report_now()
{
    z = 0;
    do
    :: z < NZ ->
        atomic {
            if
            :: on[z] -> requested[z] = true
            :: else
            fi;
            z++
        }
    :: else -> break
    od;
    z = 0;
    atomic {
        wake = ATTACHED;
        if
        :: wake -> request(); wake = true; due = PAST; due_new = true
        :: else
        fi
    };
    if
    :: wake -> wake = false; kick()
    :: else
    fi
}

/* ---- the pass ---- */

inline begin_pass()
{
    due_new = false; /* ebb_port_now() */
    atomic {
        go = false;
        if
        :: ATTACHED && phase == REQUESTED && due != NEVER -> go = true
        :: ATTACHED && phase == REQUESTED && (due == LATER || due_new) -> skip
        :: !ATTACHED || phase != REQUESTED || due == NEVER -> skip
        fi;
        if
        :: go ->
            phase = ACTIVE;
            assert(!in_pass && !zone_open);
            in_pass = true;
            due = NEVER;
            zone = first
        :: else
        fi
    }
}

inline end_pass()
{
    atomic {
        in_pass = false;
        if
#ifdef M_END_PASS_FORGETS
        :: true -> phase = IDLE
#else
        :: phase == ACTIVE -> phase = IDLE
        :: phase != ACTIVE && due == NEVER -> due = DELAY; due_new = true
        :: phase != ACTIVE && due != NEVER -> skip
#endif
        fi
    }
}

inline another_pass()
{
    atomic {
        request();
        wake = false
    }
}

/* fill_some(): a hold of the zone's lock, with open_list() and take_from_list(). */
inline fill_some()
{
    atomic {
        assert(batch == BATCH_NONE && NOT_WITH_DEVICE);
        if
        :: !list_open ->
            list_open = true;
#ifdef BUDGET
            list_blocks = (unreported[zone] > BUDGET -> BUDGET : unreported[zone])
#else
            list_blocks = unreported[zone]
#endif
        :: else
        fi;
        if
        :: list_blocks > 0 && FITS(zone) ->
            unreported[zone]--;
            out[zone]++;
            list_blocks--;
            filled++
        :: else -> lists_left = false; list_open = false; list_blocks = 0
        fi
    }
}

inline take_request()
{
    atomic {
        go = requested[zone];
#ifndef M_TAKE_LATE
        requested[zone] = false
#endif
    }
}

inline drain_idle()
{
#ifdef CACHE
    atomic {
        cached_left = 0;
        if
        :: cache_used[zone] -> cached_left = cached[zone]
        :: else -> unreported[zone] = unreported[zone] + cached[zone]; cached[zone] = 0
        fi;
        cache_used[zone] = false
    }
#else
    skip
#endif
}

inline open_zone()
{
    take_request();
    if
    :: go ->
        drain_idle();
        atomic {
            wanted = false;
#ifdef CACHE
#ifndef M_CACHE_NO_LOOK
            if
            :: cached_left > 0 && on[zone] && THRESHOLD == 1 && !IS_INLINED ->
                requested[zone] = true;
                wanted = true
            :: else
            fi;
#endif
            cached_left = 0;
#endif
#ifdef M_LOW_IGNORED
            zone_open = unreported[zone] > 0;
#else
            zone_open = FITS(zone);
#endif
#ifdef M_GATE_LATE
            go = !zone_open && unreported[zone] > 0
        };
        atomic {
            set_gate(zone, go);
#else
            set_gate(zone, (!zone_open && unreported[zone] > 0));
#endif
            lists_left = true;
            list_open = false
        };
        if
        :: wanted -> wanted = false; another_pass()
        :: else
        fi
    :: else
    fi;
    go = false
}

inline close_zone()
{
    atomic {
        zone_open = false;
#ifdef M_CLOSE_NO_LOOK
        again = false;
#elif defined(M_LOW_IGNORED)
        again = (unreported[zone] > 0);
#else
        again = FITS(zone) && (!IS_INLINED || OVER_THRESHOLD(zone));
#endif
        if
        :: again -> requested[zone] = true
        :: else
        fi;
        set_gate(zone, (!FITS(zone) && unreported[zone] > 0))
    };
#ifdef M_TAKE_LATE
    if
    :: !again -> requested[zone] = false
    :: else
    fi;
#endif
    if
    :: again -> again = false; another_pass()
    :: else
    fi
}

inline next_zone()
{
    atomic {
        next = (zone + 1) % NZ;
        zone = (next == first -> NO_ZONE : next);
        next = 0
    }
}

/* go: there is a batch to send. Otherwise the pass has ended. */
inline fill()
{
    go = false;
    do
    :: zone == NO_ZONE -> end_pass(); break
    :: zone != NO_ZONE ->
        if
        :: !zone_open -> open_zone()
        :: else
        fi;
        if
        :: zone_open ->
            do
            :: filled < CAP && lists_left -> fill_some()
            :: else -> break
            od;
            if
            :: filled > 0 -> go = true; break
            :: else -> close_zone(); next_zone()
            fi
        :: else -> next_zone()
        fi
    od
}

/* ---- batches ---- */


inline fail()
{
    failed = true;
#ifndef FOREVER
    errors--
#endif
}

inline choose_status()
{
    if
    :: true -> st = BATCH_DONE
    :: errors > 0 -> st = BATCH_FAILED; fail()
    fi
}

/* The device's. st: refused, or what it has completed with before it returns. */
inline submit()
{
    assert(device && !returned[registration]);
    assert(filled > 0 && NOT_WITH_DEVICE);
    if
    :: true -> pending = 1 + registration /* dev has it */
    :: true -> choose_status(); got = true
    :: errors > 0 -> fail(); go = true
    fi
}

inline send()
{
    go = false; /* here: refused */
    got = false;
#ifndef M_STATE_AFTER_SUBMIT
    batch = BATCH_IN_FLIGHT;
#endif
    atomic {
        submit()
    };
    if
    :: got ->
        complete_exchange();
        if
        :: got -> kick_inside()
        :: else
        fi
    :: else
    fi;
#ifdef M_STATE_AFTER_SUBMIT
    batch = BATCH_IN_FLIGHT;
#endif
    if
    :: go -> batch = BATCH_FAILED
    :: else
    fi;
    atomic {
        st = 0;
        got = false;
        go = true
    }
}

inline complete_exchange()
{
#ifdef M_COMPLETE_PLAIN
    got = (batch == BATCH_IN_FLIGHT);
    if
    :: got -> batch = st
    :: else
    fi
#else
    atomic {
        got = (batch == BATCH_IN_FLIGHT);
        if
        :: got -> batch = st
        :: else -> assert(STRAYS > 0)
        fi;
        st = 0
    }
#endif
}

/* ebb_report_complete(), from a context of the device's own, with st. */
inline complete()
{
    assert(!freed || STRAYS > 0);
    complete_exchange();
    if
    :: got ->
        got = false;
#ifdef M_COMPLETE_TOUCHES
        assert(!freed);
#endif
        kick()
    :: else
    fi
}

/* The blocks of the batch go back. */
inline drain()
{
    assert(batch != BATCH_NONE && batch != BATCH_IN_FLIGHT && filled > 0 && NOT_WITH_DEVICE);
    atomic {
        if
        :: st == BATCH_DONE -> reported[zone] = reported[zone] + filled
        :: else -> unreported[zone] = unreported[zone] + filled
        fi;
        out[zone] = out[zone] - filled
    };
    atomic {
        filled = 0;
        batch = BATCH_NONE
    }
}

inline forget_requests()
{
    z = 0;
    do
    :: z < NZ ->
        atomic {
            requested[z] = false;
            z++
        }
    :: else -> break
    od;
    z = 0
}

inline back_off()
{
    atomic {
        zone_open = false;
#ifndef M_BACK_OFF_FORGETS
        requested[zone] = true;
#endif
        first = (zone + 1) % NZ
    };
#ifdef INLINED
#ifndef M_NO_FORGET
    forget_requests();
#endif
#else
    another_pass();
#endif
    end_pass()
}

inline settle()
{
    st = batch;
    if
    :: st == BATCH_NONE -> go = true
    :: st == BATCH_IN_FLIGHT -> go = false
    :: else ->
        drain();
        if
        :: st == BATCH_DONE -> go = true
        :: else -> back_off(); go = false
        fi
    fi;
    st = 0
}

/* ---- the runner ---- */

/* One exchange. */
inline enter_()
{
    got = (running == RUN_FREE);
#ifdef M_ENTER_SILENT
    running = (got -> RUN_TAKEN : running);
#else
    running = (got -> RUN_TAKEN : RUN_WANTED);
#endif
    if
    :: got -> runners++; assert(runners == 1)
    :: else
    fi
}

inline enter()
{
#ifdef M_ENTER_PLAIN
    got = (running == RUN_FREE);
    atomic {
        running = (got -> RUN_TAKEN : RUN_WANTED);
        if
        :: got -> runners++; assert(runners == 1)
        :: else
        fi
    }
#else
    atomic {
        enter_()
    }
#endif
}

inline leave_()
{
    runners--;
#ifdef M_LEAVE_BLIND
    again = false;
#else
    again = (running == RUN_WANTED);
#endif
    running = RUN_FREE
}

/* again: inline, this caller has to come back. */
inline leave()
{
    atomic {
        leave_()
    };
#ifndef INLINED
    if
    :: again -> again = false; woken = true
    :: else
    fi
#endif
}

inline may_go_on()
{
    go = ATTACHED
}

inline advance()
{
    go = in_pass;
    if
    :: !go ->
        begin_pass();
#ifdef FOREVER
progress_begun:
        skip
#endif
    :: else
    fi;
    do
    :: !go -> break
    :: go ->
        may_go_on();
        if
        :: go -> settle()
        :: else
        fi;
        if
        :: go -> fill()
        :: else
        fi;
        if
        :: go -> send()
        :: else
        fi
    od
}

/* wanted: there is a time to come back at. */
inline deadline()
{
    wanted = ATTACHED && !in_pass && phase == REQUESTED && due != NEVER
}

inline report_run()
{
    do
    :: true ->
        enter();
        if
        :: !got -> deadline(); break
        :: else
        fi;
        got = false;
        do
        :: true ->
            advance();
            deadline();
#ifdef INLINED
#ifndef M_NO_SECOND_LOOK
            if
            :: !wanted -> break
            :: else
            fi
#else
            break
#endif
#else
            break
#endif
        od;
        leave();
        if
        :: again -> again = false
        :: else -> break
        fi
    od
}

/* ---- set-up ---- */

inline screens_on()
{
    z = 0;
    do
    :: z < NZ ->
        atomic {
            on[z] = true;
            gated[z] = false;
#ifndef M_REGISTER_SILENT
            requested[z] = true;
#endif
            z++
        }
    :: else -> break
    od;
    z = 0
}

inline register()
{
    atomic {
        !device; /* -EBB_EBUSY until then */
        assert(filled == 0 && batch == BATCH_NONE && !in_pass);
        device = true;
        changing = true;
        first = 0;
        registration++
    };
#ifndef M_SCREENS_LATE
    screens_on();
#endif
    atomic {
        changing = false;
        due = DELAY;
        due_new = true;
        phase = REQUESTED
    };
    kick();
#ifdef M_SCREENS_LATE
    screens_on()
#endif
}

inline screens_off()
{
    z = 0;
    do
    :: z < NZ ->
        atomic {
            on[z] = false;
            gated[z] = false;
            requested[z] = false;
            z++
        }
    :: else -> break
    od;
    z = 0
}

inline unregister()
{
    atomic {
        ATTACHED; /* -EBB_ENODEV until then */
        changing = true
    };
#ifndef M_UNREGISTER_NO_ENTER
    /* enter_once() in a loop: it comes again by itself and tells nobody. */
    atomic { running == RUN_FREE -> running = RUN_TAKEN; runners++ };
#endif
    screens_off();
#ifndef M_UNREGISTER_NO_WAIT
    batch != BATCH_IN_FLIGHT; /* the device's poll() is one of its contexts */
#endif
    st = batch;
    if
    :: st != BATCH_NONE ->
#ifndef M_UNREGISTER_NO_DRAIN
        drain()
#else
        skip
#endif
    :: else
    fi;
    atomic {
        st = 0;
        zone_open = false /* stop_pass() */
    };
    atomic {
        assert(filled == 0 && batch == BATCH_NONE && NOT_WITH_DEVICE);
        in_pass = false;
        device = false;
        changing = false;
        next = registration;
        phase = IDLE;
        due = NEVER
    };
#ifndef M_UNREGISTER_NO_ENTER
    leave();
#ifdef INLINED
    if
    :: again ->
        again = false;
#ifndef M_UNREGISTER_DROPS_WANTED
        /* By now there may be another device. */
        report_run()
#endif
    :: else
    fi;
#endif
#endif
    atomic {
        assert(STRAYS > 0 || pending != 1 + next);
        returned[next] = true;
#ifdef FREED
        freed = true
#endif
    }
}

/* ---- who calls ---- */

/* One operation on zone z. */
inline operation()
{
    wanted = false;
    if
    :: held[z] > 0 ->
        held[z]--;
        unreported[z]++;
        report_wanted(z, false)
#ifdef CACHE
    :: held[z] > 0 ->
        held[z]--;
        cached[z]++;
        if
        :: !cache_used[z] ->
            cache_used[z] = true;
            /* first_use() (zone/pcp.c) */
            wanted = on[z] && !requested[z] && THRESHOLD == 1 && !IS_INLINED;
            if
            :: wanted -> requested[z] = true
            :: else
            fi
        :: else
        fi
#endif
#ifdef ALLOC
    :: unreported[z] > 0 -> unreported[z]--; held[z]++
    :: reported[z] > 0 -> reported[z]--; held[z]++
#endif
#if SMALL > 0
    :: small_free[z] < SMALL -> small_free[z]++; report_wanted(z, true)
#endif
    :: true -> skip
    fi
}

active [CPUS] proctype cpu()
{
    LOCALS;
    byte ops = OPS;

    do
    :: ops > 0 ->
        atomic {
            ops--;
#if NZ > 1
            if
            :: z = 0
            :: z = 1
            fi;
#endif
            operation();
            z = 0
        };
        if
        :: wanted -> wanted = false; report_request()
        :: else
        fi
    :: else -> break
    od;
#ifdef NOW
    report_now()
#endif
}

#ifndef INLINED
active proctype worker()
{
    LOCALS;

end_asleep:
    if
    :: atomic { woken -> woken = false; timer = false }
    :: atomic {
            /* While there is another runner it comes back at once: it spins. */
            timer && !woken && running != RUN_WANTED ->
            timer = false;
            due_new = false;
            due = (due == LATER -> PAST : due)
        }
    fi;
    report_run();
    atomic {
        timer = wanted;
        wanted = false
    };
    goto end_asleep
}
#endif

#if CALLS > 0
active proctype caller()
{
    LOCALS;
    byte calls = CALLS;

    do
    :: calls > 0 -> calls--; report_run(); wanted = false
    :: else -> break
    od
}
#endif

active proctype dev()
{
    LOCALS;
    byte strays = STRAYS;

end_nothing_to_do:
    do
    :: atomic { pending > 0 -> pending = 0; choose_status() };
        complete();
        wanted = false
#if STRAYS > 0
    :: atomic { strays > 0 -> strays--; choose_status() };
        complete();
        wanted = false
#endif
    od
}

active proctype registrar()
{
    LOCALS;
    byte times = REGISTER;

    do
    :: times > 0 -> times--; register()
    :: else -> break
    od
}

#ifdef UNREGISTER
active proctype unregistrar()
{
    LOCALS;

    unregister()
}
#endif

#ifndef LIVE
active proctype rest()
{
    byte z;

    timeout;
    atomic {
        assert(running == RUN_FREE && pending == 0 && !changing);
        assert(batch == BATCH_NONE && filled == 0 && !in_pass && !zone_open);
        assert(phase == IDLE && device == (REGISTER > 1 || !returned[1]));
        do
        :: z < NZ ->
            assert(out[z] == 0 && unreported[z] + reported[z] + held[z] + cached[z] == BLOCKS);
            assert(!requested[z]);
            assert(!device || (IS_INLINED && failed) || !FITS(z) || !OVER_THRESHOLD(z));
            assert(!device || IS_INLINED || THRESHOLD > 1 || cached[z] == 0);
            z++
        :: else -> break
        od
    }
}
#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ring between two threads that sleep when there is nothing to do, and the
 * balloon driver with its worker, its interrupts and its host each in a thread
 * of their own. A notification that gets lost hangs the test; the thread
 * sanitizer sees the rest.
 */
#include "device_model.h"

#include <ebb/balloon.h>
#include <ebb/port.h>

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

/* ---- a port of threads ---- */

void ebb_port_lock(struct ebb_lock *lock)
{
    while (__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE))
        sched_yield();
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    __atomic_store_n(&lock->word, 0, __ATOMIC_RELEASE);
}

uint64_t ebb_port_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void ebb_port_relax(void)
{
    sched_yield();
}

static uint32_t wakes; /* atomic */

void ebb_port_wake(void *worker)
{
    (void)worker;
    __atomic_fetch_add(&wakes, 1, __ATOMIC_RELAXED);
}

_Noreturn void ebb_port_panic(const char *why)
{
    (void)why;
    abort();
}

/* ---- an engine of one batch ---- */

static struct ebb_report report;
static struct ebb_report_device *registered;
static uint32_t in_flight;  /* atomic */
static uint32_t ok, failed; /* atomic: completions */
static uint32_t stray;      /* atomic */
static uint32_t submitted;  /* of the worker's thread */
static struct ebb_range batch[32];

int ebb_report_register(struct ebb_report *r, struct ebb_report_device *device)
{
    (void)r;
    __atomic_store_n(&registered, device, __ATOMIC_RELEASE);
    return 0;
}

int ebb_report_unregister(struct ebb_report *r)
{
    (void)r;
    while (__atomic_load_n(&in_flight, __ATOMIC_ACQUIRE)) {
        registered->ops->poll(registered);
        sched_yield();
    }
    return 0;
}

void ebb_report_complete(struct ebb_report *r, int status)
{
    (void)r;
    if (!__atomic_load_n(&in_flight, __ATOMIC_ACQUIRE)) {
        __atomic_fetch_add(&stray, 1, __ATOMIC_RELAXED);
        return;
    }
    __atomic_fetch_add(status ? &failed : &ok, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&in_flight, 0, __ATOMIC_RELEASE);
}

/* ---- the ring alone ---- */

#define RING_SIZE 16u
#define CHAINS    300000u

static _Alignas(4096) uint8_t memory[4096];
static struct ebb_ring_driver driver;
static struct ebb_ring_device device;
static struct ebb_ring_slot slots[RING_SIZE];
static sem_t doorbell, interrupt;
static uint32_t values[CHAINS]; /* tokens; what the device made of them */

static void *translate(void *ctx, uint64_t gpa, uint64_t len)
{
    (void)ctx;
    return gpa <= sizeof(memory) && len <= sizeof(memory) - gpa ? memory + gpa : NULL;
}

static void *device_thread(void *arg)
{
    struct ebb_ring_buf bufs[RING_SIZE];
    unsigned done = 0;
    uint16_t head;

    (void)arg;
    while (done < CHAINS) {
        int n = ebb_ring_device_take(&device, bufs, &head);

        if (n == 0) {
            ebb_ring_device_notifications(&device, true);
            n = ebb_ring_device_take(&device, bufs, &head);
            if (n == 0)
                sem_wait(&doorbell);
            ebb_ring_device_notifications(&device, false);
            if (n == 0)
                continue;
        }
        if (n < 0)
            abort();
        values[bufs[0].addr] += (uint32_t)n;
        ebb_ring_device_put(&device, head, 0);
        if (ebb_ring_device_wants_call(&device))
            sem_post(&interrupt);
        done++;
    }
    return NULL;
}

/* Collect one; false: none. */
static bool collect(void)
{
    void *token;
    uint32_t len;
    const int got = ebb_ring_driver_get(&driver, &token, &len);

    assert_true(got >= 0);
    if (got == 0)
        return false;
    /* The device saw as many descriptors as the chain had. */
    assert_int_equal(*(uint32_t *)token % 16, 1 + *(uint32_t *)token / 16);
    return true;
}

static void wait_for_interrupt(void)
{
    ebb_ring_driver_interrupts(&driver, true);
    if (ebb_ring_driver_pending(&driver) && !collect())
        sem_wait(&interrupt);
    ebb_ring_driver_interrupts(&driver, false);
}

static void ring_never_sleeps_on(void **state)
{
    const struct ebb_ring_layout layout = ebb_ring_layout(RING_SIZE);
    pthread_t thread;
    unsigned added = 0;

    (void)state;
    sem_init(&doorbell, 0, 0);
    sem_init(&interrupt, 0, 0);
    assert_int_equal(ebb_ring_driver_init(&driver, RING_SIZE, memory, slots), 0);
    assert_int_equal(ebb_ring_device_init(&device, RING_SIZE, layout.desc, layout.avail,
                                          layout.used, 0, translate, NULL),
                     0);
    assert_int_equal(pthread_create(&thread, NULL, device_thread, NULL), 0);
    while (added < CHAINS || ebb_ring_driver_pending(&driver)) {
        const unsigned n = 1 + added % 3;
        struct ebb_ring_buf bufs[3];

        for (unsigned i = 0; i < 3; i++)
            bufs[i] = (struct ebb_ring_buf){.addr = added, .len = 1};
        if (added < CHAINS) {
            /* Descriptors less one; the device adds what it saw to the low digit. */
            values[added] = 16 * (added % 3);
            if (ebb_ring_driver_add(&driver, bufs, n, &values[added]) == 0) {
                added++;
                if (ebb_ring_driver_kick(&driver))
                    sem_post(&doorbell);
                continue;
            }
        }
        if (!collect())
            wait_for_interrupt();
    }
    pthread_join(thread, NULL);
    assert_int_equal(driver.free_count, RING_SIZE);
    sem_destroy(&doorbell);
    sem_destroy(&interrupt);
}

/* ---- the driver ---- */

static struct model model;
static struct ebb_balloon balloon;
static pthread_mutex_t bus = PTHREAD_MUTEX_INITIALIZER; /* around the model */
static const struct ebb_transport_ops *real;
static uint32_t quit; /* atomic */

static uint8_t bus_get_status(struct ebb_transport *t)
{
    uint8_t status;

    pthread_mutex_lock(&bus);
    status = real->get_status(t);
    pthread_mutex_unlock(&bus);
    return status;
}

static void bus_set_status(struct ebb_transport *t, uint8_t status)
{
    pthread_mutex_lock(&bus);
    real->set_status(t, status);
    pthread_mutex_unlock(&bus);
}

static void bus_notify(struct ebb_transport *t, unsigned index)
{
    pthread_mutex_lock(&bus);
    real->notify(t, index);
    pthread_mutex_unlock(&bus);
}

static uint32_t bus_read(struct ebb_transport *t, unsigned offset)
{
    uint32_t value;

    pthread_mutex_lock(&bus);
    value = real->config_read32(t, offset);
    pthread_mutex_unlock(&bus);
    return value;
}

static void bus_write(struct ebb_transport *t, unsigned offset, uint32_t value)
{
    pthread_mutex_lock(&bus);
    real->config_write32(t, offset, value);
    pthread_mutex_unlock(&bus);
}

static unsigned bus_causes(struct ebb_transport *t)
{
    unsigned causes;

    pthread_mutex_lock(&bus);
    causes = real->irq_causes(t);
    pthread_mutex_unlock(&bus);
    return causes;
}

static bool quitting(void)
{
    return __atomic_load_n(&quit, __ATOMIC_ACQUIRE);
}

static void *host_thread(void *arg)
{
    (void)arg;
    for (unsigned i = 0; !quitting(); i++) {
        pthread_mutex_lock(&bus);
        (void)model_run(&model);
        if (i % 50 == 0)
            model_resize(&model, i % 500);
        pthread_mutex_unlock(&bus);
        sched_yield();
    }
    return NULL;
}

/* Interrupts come on two CPUs at once, wanted or not. */
static void *irq_thread(void *arg)
{
    (void)arg;
    while (!quitting()) {
        ebb_balloon_irq(&balloon);
        sched_yield();
    }
    return NULL;
}

static void *worker_thread(void *arg)
{
    struct ebb_report_device *dev = arg;

    for (unsigned i = 0; i < 32; i++)
        batch[i] = (struct ebb_range){.addr = i * 2 * MIB, .len = 2 * MIB};
    while (!quitting()) {
        (void)ebb_balloon_work(&balloon);
        if (!__atomic_load_n(&in_flight, __ATOMIC_ACQUIRE)) {
            __atomic_store_n(&in_flight, 1, __ATOMIC_RELEASE);
            submitted++;
            if (dev->ops->submit(dev, batch, 1 + submitted % 32) != 0) {
                __atomic_store_n(&in_flight, 0, __ATOMIC_RELEASE);
                submitted--;
            }
        }
        sched_yield();
    }
    return NULL;
}

static unsigned next_pfn;

static unsigned give(void *ctx, uint32_t *pfns, unsigned n)
{
    (void)ctx;
    for (unsigned i = 0; i < n; i++)
        pfns[i] = next_pfn++;
    return n;
}

static unsigned take(void *ctx, uint32_t *pfns, unsigned n)
{
    (void)ctx;
    for (unsigned i = 0; i < n; i++)
        pfns[i] = --next_pfn;
    return n;
}

static void taken(void *ctx, const uint32_t *pfns, unsigned n)
{
    (void)ctx;
    for (unsigned i = 0; i < n; i++)
        assert_true(pfns[i] < 500);
}

/* Give back a chain that there is not; wait until the driver has given up. */
static void host_lies(void)
{
    pthread_mutex_lock(&bus);
    ebb_ring_device_put(&model_queue(&model, EBB_BALLOON_REPORTING)->ring, 0xffff, 0);
    model.irq |= EBB_IRQ_QUEUE;
    pthread_mutex_unlock(&bus);
    while (bus_get_status(&model.transport) != 0)
        sched_yield();
}

/* What happens in the middle: the host breaks the protocol, or the guest stops
 * the driver (its worker having come to rest before). */
static void driver_in_threads(bool lie)
{
    static const struct ebb_balloon_ops ops = {.inflate = give, .deflate = take, .deflated = taken};
    struct ebb_transport_ops shared;
    struct ebb_balloon_config config = {.ops = &ops};
    pthread_t threads[4];

    memset(&balloon, 0, sizeof(balloon));
    quit = ok = failed = stray = submitted = in_flight = 0;
    next_pfn = 0;
    model_init(&model, EBB_F_PAGE_REPORTING);
    real = model.transport.ops;
    shared = *real;
    shared.get_status = bus_get_status;
    shared.set_status = bus_set_status;
    shared.notify = bus_notify;
    shared.config_read32 = bus_read;
    shared.config_write32 = bus_write;
    shared.irq_causes = bus_causes;
    model.transport.ops = &shared;
    config.transport = &model.transport;
    config.dma = model.ram;
    config.dma_addr = MODEL_RAM_BASE;
    assert_int_equal(ebb_balloon_start(&balloon, &config), 0);
    assert_int_equal(ebb_balloon_attach(&balloon, &report), 0);

    pthread_create(&threads[0], NULL, host_thread, NULL);
    pthread_create(&threads[1], NULL, irq_thread, NULL);
    pthread_create(&threads[2], NULL, irq_thread, NULL);
    pthread_create(&threads[3], NULL, worker_thread, &balloon.device);
    while (__atomic_load_n(&ok, __ATOMIC_RELAXED) < 2000)
        sched_yield();
    if (lie)
        host_lies();
    __atomic_store_n(&quit, 1, __ATOMIC_RELEASE);
    pthread_join(threads[3], NULL);
    assert_int_equal(ebb_balloon_stop(&balloon), 0); /* interrupts and host still go on */
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);

    assert_int_equal(ok + failed, submitted);
    assert_int_equal(stray, 0);
    assert_true(failed <= 1);
    assert_int_equal(balloon.counters.protocol_errors, lie);
    assert_int_equal(model.bad_requests, 0);
    /* A doorbell may still ring while another CPU gives the device up. */
    assert_true(lie || !model.early_notify);
    model_exit(&model);
}

static void works_in_threads(void **state)
{
    (void)state;
    driver_in_threads(false);
}

static void breaks_in_threads(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++)
        driver_in_threads(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_never_sleeps_on),
        cmocka_unit_test(works_in_threads),
        cmocka_unit_test(breaks_in_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "process.h"
#include "log.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <json.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* A program that starts without them would give their numbers to the next file it opens. */
static bool standard_fds_open(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd)
            return false;
    }
    return true;
}

/* Guest memory takes a descriptor for each region. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* None is blocked, none is ignored but those that say nothing to a daemon. */
static void set_signals(void)
{
    static const int usual[] = {SIGTERM, SIGINT, SIGBUS, SIGALRM, SIGCHLD};
    static const int unheard[] = {SIGPIPE, SIGHUP, SIGXFSZ};
    sigset_t none;

    for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
        signal(usual[i], SIG_DFL);
    for (size_t i = 0; i < sizeof(unheard) / sizeof(unheard[0]); i++)
        signal(unheard[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

bool process_begin(const char *program)
{
    log_begin(program);
    if (!standard_fds_open())
        return false;
    set_signals();
    raise_limits();
    return true;
}

void process_close_others(int keep)
{
    const unsigned first = STDERR_FILENO + 1;

    if (keep < (int)first) {
        close_range(first, UINT_MAX, 0);
        return;
    }
    if (keep > (int)first)
        close_range(first, (unsigned)keep - 1, 0);
    close_range((unsigned)keep + 1, UINT_MAX, 0);
}

static void on_library_message(int severity, const char *text)
{
    if (severity >= EVENT_LOG_WARN)
        log_line("libevent: %s", text);
}

struct event_base *process_event_base(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    event_set_log_callback(on_library_message);
    if (config && event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0 &&
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0)
        base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    return base;
}

void process_touch_libraries(void)
{
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "seed", json_object_new_int(1)); /* /dev/urandom */
    json_object_put(object);
    (void)strerror(EPERM);
}

bool process_user(const char *user)
{
    const struct passwd *entry = user ? getpwnam(user) : NULL;
    bool root = geteuid() == 0;
    int error;

    if (user && !entry) {
        log_line("there is no user %s", user);
        return false;
    }
    capng_clear(CAPNG_SELECT_ALL);
    if (user && entry->pw_uid != geteuid())
        error = capng_change_id((int)entry->pw_uid, (int)entry->pw_gid,
                                (capng_flags_t)(CAPNG_INIT_SUPP_GRP | CAPNG_CLEAR_BOUNDING));
    else /* without root's there is no way to change the bounding set, and nothing in it to use */
        error = capng_apply(root ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS);
    if (error) {
        log_line("cannot %s%s (error %d of libcap-ng)%s",
                 user ? "become the user " : "give up capabilities", user ? user : "", error,
                 root ? "" : "; it was not started as root");
        return false;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
        return true;
    log_line("cannot set no_new_privs, or become undumpable: %s", strerror(errno));
    return false;
}

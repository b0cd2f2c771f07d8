/* Fails calls on files of a marked folder: loaded before libc, told by shim_arm() which call of which kind is to fail.

   Calls on other files are libc's. A sync that is not to fail does nothing: no power is cut here, and so a case takes
   milliseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITE, SYNC, TRUNCATE, OPEN, UNLINK, READ, CLOSE, LOCK, STAT, MKDIR, N_KINDS };
enum { ONCE, FROM_THEN_ON };
enum { HALF = -1, HALF_THEN_FULL = -2 }; /* in place of an errno: half of a write or a read is done */
enum { LIBC = 0, FAIL, SHORT };

#define MOST_FILES 65536

static char is_marked[MOST_FILES];
static int armed = -1, fault, lasting;
static long nth, n_calls[N_KINDS], n_failed;

void shim_arm(int kind, long n, int error, int from_then_on) {
    armed = -1;
    memset(n_calls, 0, sizeof n_calls);
    n_failed = 0;
    nth = n;
    fault = error;
    lasting = from_then_on;
    armed = kind;
}

/* Tells how many calls failed. */
long shim_disarm(void) {
    armed = -1;
    return n_failed;
}

/* Tells how many calls of a kind there were since shim_arm(). */
long shim_calls(int kind) { return n_calls[kind]; }

static int marks(const char *path) {
    static const char *marker;
    if (!marker) marker = getenv("EMBSTORE_SHIM_MARKER");
    return marker && path && strstr(path, marker);
}

static int marked(int fd) { return fd >= 0 && fd < MOST_FILES && is_marked[fd]; }

static int fate(int kind) {
    if (armed < 0) return LIBC;
    long call = __atomic_add_fetch(&n_calls[kind], 1, __ATOMIC_SEQ_CST);
    if (kind != armed || call < nth || (call > nth && lasting == ONCE && fault != HALF_THEN_FULL)) return LIBC;
    __atomic_add_fetch(&n_failed, 1, __ATOMIC_SEQ_CST);
    if (fault == HALF || (fault == HALF_THEN_FULL && call == nth)) return SHORT;
    errno = fault == HALF_THEN_FULL ? ENOSPC : fault;
    return FAIL;
}

#define REAL(name, result, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define TRANSFER(name, kind, buffer) \
    ssize_t name(int fd, buffer data, size_t size) { \
        REAL(name, ssize_t, int, buffer, size_t); \
        int what = marked(fd) ? fate(kind) : LIBC; \
        return what == FAIL ? -1 : real(fd, data, what == SHORT && size > 1 ? size / 2 : size); \
    }

#define TRANSFER_AT(name, kind, buffer, offset) \
    ssize_t name(int fd, buffer data, size_t size, offset at) { \
        REAL(name, ssize_t, int, buffer, size_t, offset); \
        int what = marked(fd) ? fate(kind) : LIBC; \
        return what == FAIL ? -1 : real(fd, data, what == SHORT && size > 1 ? size / 2 : size, at); \
    }

TRANSFER(write, WRITE, const void *)
TRANSFER(read, READ, void *)
TRANSFER_AT(pwrite, WRITE, const void *, off_t)
TRANSFER_AT(pwrite64, WRITE, const void *, off64_t)
TRANSFER_AT(pread, READ, void *, off_t)
TRANSFER_AT(pread64, READ, void *, off64_t)

#define SYNCHRONISE(name) \
    int name(int fd) { \
        REAL(name, int, int); \
        if (!marked(fd)) return real(fd); \
        return fate(SYNC) == FAIL ? -1 : 0; \
    }

SYNCHRONISE(fsync)
SYNCHRONISE(fdatasync)

#define CUT(name, offset) \
    int name(int fd, offset size) { \
        REAL(name, int, int, offset); \
        return marked(fd) && fate(TRUNCATE) == FAIL ? -1 : real(fd, size); \
    }

CUT(ftruncate, off_t)
CUT(ftruncate64, off64_t)

/* Lines of who opened what of the marked folder: the library that asked, a tab, and the path. */
static char log_of_opens[1 << 20];
static size_t log_length;

const char *shim_opens(void) { return log_of_opens; }

static int opened(int fd, const char *path, int flags, void *caller) {
    if (fd >= 0 && fd < MOST_FILES) is_marked[fd] = marks(path) != 0;
    if (fd < 0 || !marks(path) || flags & O_EXCL) return fd; /* what it makes anew, nobody else has open */
    Dl_info who;
    const char *library = dladdr(caller, &who) && who.dli_fname ? who.dli_fname : "?";
    size_t length = strlen(library) + strlen(path) + 2;
    size_t at = __atomic_fetch_add(&log_length, length, __ATOMIC_SEQ_CST);
    if (at + length < sizeof log_of_opens) {
        char line[2 * PATH_MAX + 3];
        snprintf(line, sizeof line, "%s\t%s\n", library, path);
        memcpy(log_of_opens + at, line, length);
    }
    return fd;
}

static mode_t mode_of(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; }

#define OPEN_PATH(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name, int, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        return marks(path) && fate(OPEN) == FAIL ? -1 : \
            opened(real(path, flags, mode), path, flags, __builtin_return_address(0)); \
    }

#define OPEN_PATH_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name, int, int, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        return marks(path) && fate(OPEN) == FAIL ? -1 : \
            opened(real(folder, path, flags, mode), path, flags, __builtin_return_address(0)); \
    }

OPEN_PATH(open)
OPEN_PATH(open64)
OPEN_PATH_AT(openat)
OPEN_PATH_AT(openat64)

int close(int fd) {
    REAL(close, int, int);
    int fails = marked(fd) && fate(CLOSE) == FAIL, error = errno;
    if (fd >= 0 && fd < MOST_FILES) is_marked[fd] = 0;
    int closed = real(fd); /* Linux lets go of a file whose close fails */
    if (!fails) return closed;
    errno = error;
    return -1;
}

int unlink(const char *path) {
    REAL(unlink, int, const char *);
    return marks(path) && fate(UNLINK) == FAIL ? -1 : real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir, int, const char *, mode_t);
    return marks(path) && fate(MKDIR) == FAIL ? -1 : real(path, mode);
}

/* Locks that are given back count too. */
#define CONTROL(name) \
    int name(int fd, int command, ...) { \
        REAL(name, int, int, int, ...); \
        va_list more; \
        va_start(more, command); \
        void *argument = va_arg(more, void *); \
        va_end(more); \
        int locks = command == F_SETLK || command == F_SETLKW || command == F_GETLK; \
        return locks && marked(fd) && fate(LOCK) == FAIL ? -1 : real(fd, command, argument); \
    }

CONTROL(fcntl)
CONTROL(fcntl64)

#define LOOK(name, record) \
    int name(const char *path, struct record *found) { \
        REAL(name, int, const char *, struct record *); \
        return marks(path) && fate(STAT) == FAIL ? -1 : real(path, found); \
    }

#define LOOK_AT(name, record) \
    int name(int fd, struct record *found) { \
        REAL(name, int, int, struct record *); \
        return marked(fd) && fate(STAT) == FAIL ? -1 : real(fd, found); \
    }

LOOK(stat, stat)
LOOK(stat64, stat64)
LOOK(lstat, stat)
LOOK(lstat64, stat64)
LOOK_AT(fstat, stat)
LOOK_AT(fstat64, stat64)

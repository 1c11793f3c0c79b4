/* Records what a process does to the files below one directory, in order, with the data; and kills
 * it before its n-th change of them, if asked to.
 *
 *   TL_TRACE_DIR   the directory (absolute, resolved)
 *   TL_TRACE_FILE  where the record goes; nothing is recorded without it
 *   TL_KILL_AT     SIGKILL before the n-th changing call, counted from 1
 *   TL_COUNT       after each line "ack ..." of the process says on stderr: "ack changes n", n changing
 *                  calls so far
 *   TL_KILL_AFTER  a file name, a colon, and a number n: SIGKILL after the n-th rename to that name
 *   TL_FAIL        class:n:errno:how  the n-th call of a class fails with this number, for `how` = once
 *                  or ever; errno 0 makes a write a short one. Classes: write sync create rename unlink
 *                  read open (of what is there) length (ftruncate) stat (of a path or a file) list (of a
 *                  directory: its open, or an entry)
 *   TL_CLOCK       a seed: whoever reads the wall clock reads it up to ten years off, each time anew
 *
 * Each failure is told on stderr before the call returns, in one order with what the process itself
 * says there: "ack fault", class, call, errno, whether what a caller waits for stands on it ("live" or
 * "other"), path. Live are the witness, the rename of a manifest, and the log that is appended to. That
 * one is told by its fdatasync, which nobody else calls on a log; a log that is being prepared, and one
 * that is frozen, are not, and until the first append after a change of the manifest none is known.
 *
 * A record, all numbers u64 little-endian: op, handle, a, b, length of text, text. A handle is one
 * open of a file; it never comes back. Lines "ack ..." written to stderr are records too, so that
 * they stand in one order with the rest.
 *
 *   1 open    handle, a = 1 if it was cut to nothing, text = path  (creates what is not there)
 *   2 write   handle, a = offset, text = data
 *   3 sync    handle
 *   4 range   handle, a = offset, b = length             sync_file_range
 *   5 length  handle, a = new length
 *   6 rename  a = length of the first path, text = both paths
 *   7 unlink  text = path                                of a file or directory
 *   8 mkdir   text = path
 *   9 link    a = length of the first path, text = both paths
 *  10 ack     text = the line
 *  11 lost    handle, a = offset, b = length (0: all)   a sync that failed: what it was to write is
 *                                                       never written by a later one
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, SYNC, RANGE, LENGTH, RENAME, UNLINK, MKDIR, LINK, ACK, LOST };
#define FDS 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char dir[PATH_MAX];
static size_t dir_length;
static int out = -1;
static long kill_at;
static int count;
static long changes;
static char kill_after[NAME_MAX + 1];
static long renames_left;
static uint64_t next_handle = 1;
static uint64_t handles[FDS];
/* Of each handle, and of the log that is appended to. */
static char *paths[FDS];
static char live[PATH_MAX];

enum { NONE, F_WRITE, F_SYNC, F_CREATE, F_RENAME, F_UNLINK, F_READ, F_OPEN, F_LENGTH, F_STAT, F_LIST };
static const char *classes[] = {"",     "write", "sync",   "create", "rename", "unlink",
                                "read", "open",  "length", "stat",   "list"};
static int fail_class, fail_errno, fail_ever;
static long fail_at, fail_seen;
static uint64_t clock_seed;

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("TL_TRACE_DIR");
    if (!text) return;
    snprintf(dir, sizeof dir, "%s", text);
    dir_length = strlen(dir);
    if ((text = getenv("TL_KILL_AT"))) kill_at = atol(text);
    count = getenv("TL_COUNT") != NULL;
    if ((text = getenv("TL_KILL_AFTER"))) {
        snprintf(kill_after, sizeof kill_after, "%s", text);
        char *colon = strrchr(kill_after, ':');
        if (!colon) abort();
        *colon = 0;
        renames_left = atol(colon + 1);
    }
    if ((text = getenv("TL_FAIL"))) {
        char name[16], how[16];
        if (sscanf(text, "%15[^:]:%ld:%d:%15s", name, &fail_at, &fail_errno, how) != 4) abort();
        for (int i = 1; i <= F_LIST; i++)
            if (strcmp(name, classes[i]) == 0) fail_class = i;
        fail_ever = strcmp(how, "ever") == 0;
    }
    if ((text = getenv("TL_CLOCK"))) clock_seed = strtoull(text, NULL, 10);
    if ((text = getenv("TL_TRACE_FILE"))) {
        int fd = syscall(SYS_openat, AT_FDCWD, text, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
        out = fcntl(fd, F_DUPFD_CLOEXEC, 900);
        syscall(SYS_close, fd);
    }
    unsetenv("LD_PRELOAD");
}

static void all(const void *data, size_t length) {
    const char *at = data;
    while (length > 0) {
        long done = syscall(SYS_write, out, at, length);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) abort();
        at += done;
        length -= done;
    }
}

static void put(uint64_t op, uint64_t handle, uint64_t a, uint64_t b, const void *text, size_t length) {
    if (out < 0) return;
    uint64_t head[5] = {op, handle, a, b, length};
    int saved = errno;
    all(head, sizeof head);
    all(text, length);
    errno = saved;
}

/* Where a directory descriptor leads. */
static int place_of(int at, char *place) {
    char link[64];
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    long length = readlink(link, place, PATH_MAX - 1);
    place[length < 0 ? 0 : length] = 0;
    return length > 0;
}

/* The descriptor of a name like /proc/self/fd/7/db, and what stands behind it; -1 if it is none. */
static int descriptor(const char *name, const char **rest) {
    char own[32];
    snprintf(own, sizeof own, "/proc/%ld/fd/", (long)getpid());
    const char *kinds[] = {"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/", own};
    for (int i = 0; i < 4; i++) {
        size_t length = strlen(kinds[i]);
        if (strncmp(name, kinds[i], length) != 0) continue;
        char *end;
        long fd = strtol(name + length, &end, 10);
        if (end == name + length || (*end != '/' && *end != 0)) return -1;
        *rest = end;
        return fd;
    }
    return -1;
}

/* Takes `.`, `..` and empty parts out of an absolute path. What a descriptor leads to has no links in
 * it, nor has anything below our directory. */
static void tidy(char *path) {
    char *to = path;
    const char *from = path;
    while (*from) {
        while (*from == '/') from++;
        size_t length = strcspn(from, "/");
        if (length == 2 && from[0] == '.' && from[1] == '.') {
            while (to > path && *--to != '/') {}
        } else if (length > 0 && !(length == 1 && from[0] == '.')) {
            *to++ = '/';
            memmove(to, from, length);
            to += length;
        }
        from += length;
    }
    *to = 0;
}

/* The absolute path of a name relative to a directory descriptor, if it is below ours. */
static int below(int at, const char *name, char *path) {
    if (dir_length == 0 || !name) return 0;
    char base[PATH_MAX] = "";
    const char *rest = name;
    int fd = descriptor(name, &rest);
    if (fd >= 0 ? !place_of(fd, base) : name[0] != '/' && !place_of(at, base)) return 0;
    if (snprintf(path, PATH_MAX, "%s/%s", base, rest) >= PATH_MAX) return 0;
    tidy(path);
    return strncmp(path, dir, dir_length) == 0 && (path[dir_length] == '/' || path[dir_length] == 0);
}

static void change(void) {
    if (++changes == kill_at) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
}

static int ends_in(const char *path, const char *end) {
    size_t length = strlen(path), part = strlen(end);
    return length >= part && strcmp(path + length - part, end) == 0;
}

/* Whether this call on this path has to fail; says so if it does. Under the lock. */
static int fails(int class, const char *call, const char *path) {
    if (class != fail_class) return 0;
    long seen = ++fail_seen;
    if (seen != fail_at && !(fail_ever && seen > fail_at)) return 0;
    /* What is appended to a log are zeros ahead of the store. */
    int stands = strcmp(call, "rename") == 0   ? ends_in(path, "/manifest")
                 : strcmp(call, "append") == 0 ? 0
                                               : strcmp(path, live) == 0 || ends_in(path, "/witness");
    const char *name = path[dir_length] ? path + dir_length + 1 : ".";
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "ack fault %s %s %d %s %s\n", classes[class], call,
                          fail_errno, stands ? "live" : "other", name);
    syscall(SYS_write, 2, line, length);
    put(ACK, 0, 0, 0, line, length);
    errno = fail_errno;
    return 1;
}

static uint64_t handle_of(int fd) { return fd >= 0 && fd < FDS ? handles[fd] : 0; }

static int opened(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (!below(at, name, path)) return syscall(SYS_openat, at, name, flags, mode);
    pthread_mutex_lock(&lock);
    if (flags & (O_CREAT | O_TRUNC)) change();
    int failed = flags & O_CREAT ? fails(F_CREATE, "create", path) : fails(F_OPEN, "open", path);
    int fd = failed ? -1 : syscall(SYS_openat, at, name, flags, mode);
    if (fd >= 0 && fd < FDS) {
        handles[fd] = next_handle++;
        free(paths[fd]);
        paths[fd] = strdup(path);
        put(OPEN, handles[fd], (flags & O_TRUNC) != 0, 0, path, strlen(path));
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPENING(name)                                                   \
    int name(const char *path, int flags, ...) {                        \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                   \
        return opened(AT_FDCWD, path, flags, mode);                     \
    }
OPENING(open)
OPENING(open64)

#define OPENING_AT(name)                                                \
    int name(int at, const char *path, int flags, ...) {                \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest);                                                   \
        return opened(at, path, flags, mode);                           \
    }
OPENING_AT(openat)
OPENING_AT(openat64)

int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) handles[fd] = 0;
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

/* Whether a look at this path has to fail. */
static int fails_at(int class, const char *call, int at, const char *name) {
    char path[PATH_MAX];
    if (fail_class != class || !below(at, name, path)) return 0;
    pthread_mutex_lock(&lock);
    int failed = fails(class, call, path);
    pthread_mutex_unlock(&lock);
    return failed;
}

static int fails_of(int class, const char *call, int fd) {
    char path[PATH_MAX];
    return fail_class == class && place_of(fd, path) && fails_at(class, call, AT_FDCWD, path);
}

int statx(int at, const char *declared, int flags, unsigned mask, struct statx *found) {
    /* Declared to be there, but whoever asks whether there is such a call gives none. */
    const char *volatile name = declared;
    int failed = !name ? 0 : *name ? fails_at(F_STAT, "stat", at, name) : fails_of(F_STAT, "stat", at);
    return failed ? -1 : syscall(SYS_statx, at, name, flags, mask, found);
}

int fstatat64(int at, const char *name, struct stat64 *found, int flags) {
    int failed = *name ? fails_at(F_STAT, "stat", at, name) : fails_of(F_STAT, "stat", at);
    return failed ? -1 : syscall(SYS_newfstatat, at, name, found, flags);
}
int stat64(const char *name, struct stat64 *found) { return fstatat64(AT_FDCWD, name, found, 0); }
int lstat64(const char *name, struct stat64 *found) { return fstatat64(AT_FDCWD, name, found, AT_SYMLINK_NOFOLLOW); }
int fstat64(int fd, struct stat64 *found) { return fstatat64(fd, "", found, AT_EMPTY_PATH); }

DIR *opendir(const char *name) {
    static DIR *(*real)(const char *);
    if (!real) real = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    return fails_at(F_LIST, "opendir", AT_FDCWD, name) ? NULL : real(name);
}

struct dirent64 *readdir64(DIR *list) {
    static struct dirent64 *(*real)(DIR *);
    if (!real) real = (struct dirent64 * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir64");
    return fails_of(F_LIST, "readdir", dirfd(list)) ? NULL : real(list);
}

/* It closes the descriptor out of our sight, which another file may have next. */
int closedir(DIR *list) {
    static int (*real)(DIR *);
    if (!real) real = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    int fd = dirfd(list);
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) handles[fd] = 0;
    int result = real(list);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t length) {
    int ack = fd == 2 && length > 4 && memcmp(data, "ack ", 4) == 0;
    if (!ack && !handle_of(fd)) return syscall(SYS_write, fd, data, length);
    pthread_mutex_lock(&lock);
    if (!ack) change();
    int appends = !ack && fcntl(fd, F_GETFL) & O_APPEND;
    int failed = !ack && fails(F_WRITE, appends ? "append" : "write", paths[fd]);
    if (failed && fail_errno == 0) length -= length / 2;
    ssize_t done = failed && fail_errno ? -1 : syscall(SYS_write, fd, data, length);
    /* Only then, where it has gone if it was appended. */
    uint64_t offset = ack || done < 0 ? 0 : syscall(SYS_lseek, fd, 0, SEEK_CUR) - done;
    if (done > 0 && ack) put(ACK, 0, 0, 0, data, length);
    if (ack && count) {
        char line[64];
        syscall(SYS_write, 2, line, snprintf(line, sizeof line, "ack changes %ld\n", changes));
    }
    if (done > 0 && !ack) put(WRITE, handles[fd], offset, 0, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    if (!handle_of(fd)) return syscall(SYS_pwrite64, fd, data, length, offset);
    pthread_mutex_lock(&lock);
    change();
    int failed = fails(F_WRITE, "pwrite", paths[fd]);
    if (failed && fail_errno == 0) length -= length / 2;
    ssize_t done = failed && fail_errno ? -1 : syscall(SYS_pwrite64, fd, data, length, offset);
    if (done > 0) put(WRITE, handles[fd], offset, 0, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return pwrite(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!handle_of(fd)) return syscall(SYS_writev, fd, parts, count);
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = pwrite(fd, parts[i].iov_base, parts[i].iov_len, offset + total);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev(fd, parts, count, offset); }

static ssize_t reads(int fd, void *data, size_t length, off_t offset, int positioned) {
    int failed = 0;
    if (fail_class == F_READ && handle_of(fd)) {
        pthread_mutex_lock(&lock);
        failed = fails(F_READ, "read", paths[fd]);
        pthread_mutex_unlock(&lock);
    }
    if (failed) return -1;
    return positioned ? syscall(SYS_pread64, fd, data, length, offset) : syscall(SYS_read, fd, data, length);
}
ssize_t read(int fd, void *data, size_t length) { return reads(fd, data, length, 0, 0); }
ssize_t pread(int fd, void *data, size_t length, off_t offset) { return reads(fd, data, length, offset, 1); }
ssize_t pread64(int fd, void *data, size_t length, off_t offset) { return reads(fd, data, length, offset, 1); }

static int synced(long call, const char *name, int fd) {
    if (!handle_of(fd)) return syscall(call, fd);
    pthread_mutex_lock(&lock);
    change();
    if (call == SYS_fdatasync && ends_in(paths[fd], "/db")) strcpy(live, paths[fd]);
    int result = fails(F_SYNC, name, paths[fd]) ? -1 : syscall(call, fd);
    put(result == 0 ? SYNC : LOST, handles[fd], 0, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int fd) { return synced(SYS_fsync, "fsync", fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, "fdatasync", fd); }

int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
    if (!handle_of(fd)) return syscall(SYS_sync_file_range, fd, offset, length, flags);
    pthread_mutex_lock(&lock);
    change();
    int result = fails(F_SYNC, "range", paths[fd]) ? -1 : syscall(SYS_sync_file_range, fd, offset, length, flags);
    put(result == 0 ? RANGE : LOST, handles[fd], offset, length, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) {
    if (!handle_of(fd)) return syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    change();
    int result = fails(F_LENGTH, "length", paths[fd]) ? -1 : syscall(SYS_ftruncate, fd, length);
    if (result == 0) put(LENGTH, handles[fd], length, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

/* Only growing is known here; what else there is would be missed, so it is not allowed. */
int fallocate(int fd, int mode, off_t offset, off_t length) {
    if (!handle_of(fd)) return syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode != 0) { errno = EOPNOTSUPP; return -1; }
    struct stat found;
    if (syscall(SYS_fstat, fd, &found) == 0 && found.st_size < offset + length) return ftruncate(fd, offset + length);
    return 0;
}
int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }

static void put_two(uint64_t op, const char *from, const char *to) {
    char both[2 * PATH_MAX];
    size_t first = strlen(from), second = strlen(to);
    memcpy(both, from, first);
    memcpy(both + first, to, second);
    put(op, 0, first, 0, both, first + second);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    char a[PATH_MAX], b[PATH_MAX];
    if (!below(from_at, from, a) || !below(to_at, to, b)) return syscall(SYS_renameat2, from_at, from, to_at, to, 0);
    pthread_mutex_lock(&lock);
    change();
    int result = fails(F_RENAME, "rename", b) ? -1 : syscall(SYS_renameat2, from_at, from, to_at, to, 0);
    if (result == 0) put_two(RENAME, a, b);
    /* Another log may be appended to from now on. */
    if (result == 0 && ends_in(b, "/manifest")) live[0] = 0;
    const char *last = strrchr(b, '/');
    if (result == 0 && kill_after[0] && last && strcmp(last + 1, kill_after) == 0 && --renames_left == 0)
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    pthread_mutex_unlock(&lock);
    return result;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    if (!below(from_at, from, a) || !below(to_at, to, b)) return syscall(SYS_linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    change();
    int result = fails(F_RENAME, "link", b) ? -1 : syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (result == 0) put_two(LINK, a, b);
    pthread_mutex_unlock(&lock);
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    if (!below(at, name, path)) return syscall(SYS_unlinkat, at, name, flags);
    pthread_mutex_lock(&lock);
    change();
    int result = fails(F_UNLINK, "unlink", path) ? -1 : syscall(SYS_unlinkat, at, name, flags);
    if (result == 0) put(UNLINK, 0, 0, 0, path, strlen(path));
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!below(at, name, path)) return syscall(SYS_mkdirat, at, name, mode);
    pthread_mutex_lock(&lock);
    change();
    int result = fails(F_CREATE, "mkdir", path) ? -1 : syscall(SYS_mkdirat, at, name, mode);
    if (result == 0) put(MKDIR, 0, 0, 0, path, strlen(path));
    pthread_mutex_unlock(&lock);
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!clock_seed || clock != CLOCK_REALTIME || result != 0) return result;
    uint64_t seen = __atomic_add_fetch(&clock_seed, 0x9e3779b97f4a7c15ull, __ATOMIC_RELAXED);
    seen = (seen ^ (seen >> 30)) * 0xbf58476d1ce4e5b9ull;
    seen ^= seen >> 27;
    const long ten_years = 10L * 365 * 86400;
    now->tv_sec += (long)(seen % (2 * ten_years)) - ten_years;
    return 0;
}

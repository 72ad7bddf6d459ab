/* Makes file operations fail, or kills the process at them. Loaded into a command with LD_PRELOAD.
 *
 * It counts the calls that change files below FAULT_ROOT: in one counter for a command and its children. At the call
 * with the planned number it does what the plan says. The plan is in the environment (for a new program) or is set by
 * `fault_arm` (in a forked one).
 *
 *   before, after, half   kills before the call, after it, or after writing half of its bytes
 *   drop                  kills before the call and takes back what was not synced, as a power cut would: the bytes
 *                         written since the last fsync of a file, and the renames since the last fsync of their folder.
 *                         What other processes have written, and removed files, are not taken back.
 *   fail                  the call fails with an errno; with `on` all later calls fail as well
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, BEFORE, AFTER, HALF, DROP, FAIL, FAIL_ON };
#define MAX_TRACKED 4096

static char root[PATH_MAX];
static volatile int64_t *counter;
static int64_t planned;
static enum kind kind;
static int code;
static int log_descriptor = -1;
static int inside; /* the library's own calls are not counted */

/* What a power cut would take back, newest last. */
struct change { int descriptor; off_t size, offset; size_t length; char *bytes; char *from, *to, *kept; ino_t inode; };
static struct change changes[MAX_TRACKED];
static int num_changes;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void fault_arm(const char *where, const char *counter_path, int64_t number, int what, int error, const char *log_path) {
    inside = 1;
    snprintf(root, sizeof root, "%s", where);
    int descriptor = REAL(open)(counter_path, O_RDWR);
    counter = descriptor < 0 ? NULL : mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    planned = number;
    kind = (enum kind)what;
    code = error;
    if (log_path && *log_path) log_descriptor = REAL(open)(log_path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    inside = 0;
}

__attribute__((constructor)) static void from_environment(void) {
    const char *where = getenv("FAULT_ROOT"), *path = getenv("FAULT_COUNTER"), *plan = getenv("FAULT_PLAN");
    long long number = 0;
    int what = 0, error = 0;
    if (where && path && plan && sscanf(plan, "%lld %d %d", &number, &what, &error) == 3)
        fault_arm(where, path, number, what, error, getenv("FAULT_LOG"));
}

static int below_root(const char *path) {
    size_t length = strlen(root);
    return length && path && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* The absolute path of a file name, without resolving links. */
static void absolute(char *target, int folder, const char *name) {
    char base[PATH_MAX] = "";
    if (name && name[0] == '/') { snprintf(target, PATH_MAX, "%s", name); return; }
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; }
    else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t size = readlink(link, base, sizeof base - 1);
        base[size < 0 ? 0 : size] = 0;
    }
    snprintf(target, PATH_MAX, "%.2000s/%.2000s", base, name ? name : "");
}

static int path_of(int descriptor, char *target) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, target, PATH_MAX - 1);
    target[size < 0 ? 0 : size] = 0;
    return below_root(target);
}

static void end_now(void) {
    kill(0, SIGKILL); /* the whole group: the command and its children */
    for (;;) pause();
}

static void power_cut(void) {
    for (int i = num_changes - 1; i >= 0; i--) {
        struct change *each = &changes[i];
        if (each->to) {
            REAL(rename)(each->to, each->from);
            if (each->kept) REAL(rename)(each->kept, each->to);
        } else {
            if (each->length && REAL(pwrite)(each->descriptor, each->bytes, each->length, each->offset) < 0) continue;
            if (REAL(ftruncate)(each->descriptor, each->size)) continue;
        }
    }
}

/* Counts a call. Returns 1 if it must fail, with errno set; 2 if the call must be done by half and then kill. */
static int counted(const char *call, const char *path) {
    if (inside || !counter || !below_root(path)) return 0;
    int saved = errno;
    int64_t number = __sync_add_and_fetch(counter, 1);
    if (log_descriptor >= 0) {
        char line[PATH_MAX + 64];
        int size = snprintf(line, sizeof line, "%lld %s %s\n", (long long)number, call, path + strlen(root));
        if (REAL(write)(log_descriptor, line, (size_t)size) < 0) errno = saved;
    }
    errno = saved;
    if (kind == FAIL_ON ? number < planned : number != planned) return 0;
    if (kind == FAIL || kind == FAIL_ON) { errno = code; return 1; }
    inside = 1;
    if (kind == DROP) power_cut();
    if (kind == BEFORE || kind == DROP) end_now();
    inside = 0;
    return kind == AFTER || kind == HALF ? 2 : 0;
}

static void forget(int keep) {
    struct change *each = &changes[keep];
    free(each->bytes); free(each->from); free(each->to);
    if (each->kept) { REAL(unlink)(each->kept); free(each->kept); }
    if (!each->to && each->descriptor > 0) REAL(close)(each->descriptor);
    memmove(each, each + 1, (size_t)(--num_changes - keep) * sizeof *each);
}

static void remember_write(int descriptor, off_t offset, size_t length) {
    struct stat facts;
    if (kind != DROP || inside || num_changes == MAX_TRACKED || fstat(descriptor, &facts)) return;
    inside = 1;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    struct change each = {.descriptor = REAL(open)(link, O_RDWR), .size = facts.st_size, .offset = offset, .inode = facts.st_ino};
    if (each.descriptor >= 0) {
        if (offset < facts.st_size) {
            each.length = (size_t)(facts.st_size - offset) < length ? (size_t)(facts.st_size - offset) : length;
            each.bytes = malloc(each.length);
            ssize_t got = each.bytes ? pread(each.descriptor, each.bytes, each.length, offset) : 0;
            each.length = got > 0 ? (size_t)got : 0;
        }
        changes[num_changes++] = each;
    }
    inside = 0;
}

static void synced(int descriptor) {
    struct stat facts;
    char path[PATH_MAX];
    if (fstat(descriptor, &facts)) return;
    path_of(descriptor, path);
    inside = 1;
    for (int i = num_changes - 1; i >= 0; i--) {
        struct change *each = &changes[i];
        const char *slash = each->to ? strrchr(each->to, '/') : NULL;
        size_t length = slash ? (size_t)(slash - each->to) : 0;
        if (each->to ? !strncmp(each->to, path, length) && !path[length] : each->inode == facts.st_ino) forget(i);
    }
    inside = 0;
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
    char path[PATH_MAX];
    int what = counter && !inside && path_of(descriptor, path) ? counted("write", path) : 0;
    if (what == 1) return -1;
    if (counter && !inside && kind == DROP && path_of(descriptor, path)) {
        int append = fcntl(descriptor, F_GETFL) & O_APPEND;
        remember_write(descriptor, append ? LLONG_MAX : lseek(descriptor, 0, SEEK_CUR), size);
    }
    ssize_t done = REAL(write)(descriptor, bytes, what == 2 && kind == HALF ? size / 2 : size);
    if (what == 2) end_now();
    return done;
}

static ssize_t positioned(ssize_t (*real)(int, const void *, size_t, off_t), int descriptor, const void *bytes, size_t size, off_t offset) {
    char path[PATH_MAX];
    int what = counter && !inside && path_of(descriptor, path) ? counted("pwrite", path) : 0;
    if (what == 1) return -1;
    if (counter && !inside && kind == DROP && path_of(descriptor, path)) remember_write(descriptor, offset, size);
    ssize_t done = real(descriptor, bytes, what == 2 && kind == HALF ? size / 2 : size, offset);
    if (what == 2) end_now();
    return done;
}
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { return positioned(REAL(pwrite), d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) { return positioned(REAL(pwrite), d, b, n, o); }

#define AROUND(call, path, result, ...)                    \
    int what = counted(call, path);                        \
    if (what == 1) return -1;                              \
    int done = result;                                     \
    if (what == 2) end_now();                              \
    __VA_ARGS__;                                           \
    return done;

int fsync(int d) { char p[PATH_MAX]; if (!counter || inside || !path_of(d, p)) return REAL(fsync)(d); AROUND("fsync", p, REAL(fsync)(d), synced(d)) }
int fdatasync(int d) { char p[PATH_MAX]; if (!counter || inside || !path_of(d, p)) return REAL(fdatasync)(d); AROUND("fdatasync", p, REAL(fdatasync)(d), synced(d)) }
int ftruncate(int d, off_t n) { char p[PATH_MAX]; if (!counter || inside || !path_of(d, p)) return REAL(ftruncate)(d, n); AROUND("ftruncate", p, REAL(ftruncate)(d, n), (void)0) }
int ftruncate64(int d, off64_t n) { return ftruncate(d, n); }

static int opened(const char *call, int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if (counter && !inside && (flags & (O_CREAT | O_TRUNC))) {
        absolute(path, folder, name);
        int what = counted(call, path);
        if (what == 1) return -1;
        int done = REAL(openat)(folder, name, flags, mode);
        if (what == 2) end_now();
        return done;
    }
    return REAL(openat)(folder, name, flags, mode);
}
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *name, int flags, ...) { MODE(flags) return opened("open", AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened("open", AT_FDCWD, name, flags, mode); }
int openat(int f, const char *name, int flags, ...) { MODE(flags) return opened("open", f, name, flags, mode); }
int openat64(int f, const char *name, int flags, ...) { MODE(flags) return opened("open", f, name, flags, mode); }

static int renamed(int from_folder, const char *from, int to_folder, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    absolute(old, from_folder, from);
    absolute(new, to_folder, to);
    if (!counter || inside || !below_root(new)) return REAL(renameat)(from_folder, from, to_folder, to);
    int what = counted("rename", new);
    if (what == 1) return -1;
    struct change each = {.from = strdup(old), .to = strdup(new)};
    if (kind == DROP && num_changes < MAX_TRACKED) {
        char kept[PATH_MAX + 32];
        snprintf(kept, sizeof kept, "%.3900s.replaced.%d", new, num_changes);
        inside = 1;
        if (!REAL(link)(new, kept)) each.kept = strdup(kept);
        inside = 0;
        changes[num_changes++] = each;
    }
    int done = REAL(renameat)(from_folder, from, to_folder, to);
    if (what == 2) end_now();
    return done;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int f, const char *from, int t, const char *to) { return renamed(f, from, t, to); }

int unlink(const char *name) { char p[PATH_MAX]; absolute(p, AT_FDCWD, name); AROUND("unlink", p, REAL(unlink)(name), (void)0) }
int unlinkat(int f, const char *name, int flags) { char p[PATH_MAX]; absolute(p, f, name); AROUND("unlink", p, REAL(unlinkat)(f, name, flags), (void)0) }
int rmdir(const char *name) { char p[PATH_MAX]; absolute(p, AT_FDCWD, name); AROUND("rmdir", p, REAL(rmdir)(name), (void)0) }
int mkdir(const char *name, mode_t mode) { char p[PATH_MAX]; absolute(p, AT_FDCWD, name); AROUND("mkdir", p, REAL(mkdir)(name, mode), (void)0) }

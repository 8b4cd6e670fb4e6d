/* Preloaded into a program under test: its file operations below one directory are told, and one of them fails.

   Only what concerns files below `root` counts: the state of the program, not its libraries. An operation is a kind
   (open, create, read, pread, write, pwrite, fsync, fdatasync, ftruncate, rename, link, unlink, mkdir, stat, fstat, lseek,
   lock, lease, opendir, access) and the name of its file, relative to `root`, in which hexadecimal numbers of eight
   digits or more are a `#`, so that the names of two runs compare.

   A plan is "KINDS NAMES NTH ERRNO once|always": patterns of fnmatch(3), the latter with +(...) and the like; the NTH
   operation that matches fails with that number, or with 0 does half of what it was asked; `always`: so do all later
   ones. With a switch, a file of one byte, the plan holds while that byte is not 0. The trace has a line for each
   operation, "KIND NAME", with " !ERRNO" behind it if it was made to fail, and "send" for each send on a socket. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FD_COUNT_MAX 1024
#define NAME_SIZE_MAX 128
#define PATTERN_SIZE_MAX 256
#define TRACE_FD_MIN 800
#define NUMBER_DIGIT_COUNT_MIN 8
#define NO_FAULT (-1)
#define SHORT 0

static char root[PATH_MAX / 2];
static size_t root_size; /* 0: nothing is told and nothing fails */
static char name_of[FD_COUNT_MAX][NAME_SIZE_MAX];
static int trace_fd = -1;
static char kinds[PATTERN_SIZE_MAX], names[PATTERN_SIZE_MAX];
static long nth; /* 0: no plan */
static int error_number, is_lasting;
static long seen;
static volatile char *is_on;

/* The C library's own function of this name, looked up once, as `real`. */
#define REAL(function)                                                                                                 \
    static __typeof__(&function) real;                                                                                 \
    if (real == NULL && (real = (__typeof__(real))dlsym(RTLD_NEXT, #function)) == NULL)                                \
        abort();

static int is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* The name of a path relative to the root, numbers left out; "" for one that is not below it. */
static void name_path(int dir_fd, const char *path, char *name)
{
    char whole[2 * PATH_MAX];
    name[0] = '\0';
    if (root_size == 0 || path == NULL)
        return;
    if (path[0] != '/') {
        if (dir_fd >= 0 && dir_fd < FD_COUNT_MAX && name_of[dir_fd][0] != '\0')
            snprintf(whole, sizeof whole, "%s/%s/%s", root, name_of[dir_fd], path);
        else
            return;
        path = whole;
    }
    if (strncmp(path, root, root_size) != 0 || (path[root_size] != '/' && path[root_size] != '\0'))
        return;
    path += root_size + (path[root_size] == '/');
    size_t size = 0;
    if (path[0] == '\0')
        name[size++] = '.';
    while (*path != '\0' && size < NAME_SIZE_MAX - 1) {
        size_t digit_count = 0;
        while (is_hex(path[digit_count]))
            digit_count++;
        if (digit_count >= NUMBER_DIGIT_COUNT_MIN) {
            name[size++] = '#';
            path += digit_count;
        } else {
            name[size++] = *path++;
        }
    }
    name[size] = '\0';
}

static const char *name_fd(int fd)
{
    return fd >= 0 && fd < FD_COUNT_MAX ? name_of[fd] : "";
}

static void tell(const char *kind, const char *name, int fault)
{
    char line[NAME_SIZE_MAX + 64];
    int size;
    if (trace_fd < 0)
        return;
    if (fault == NO_FAULT)
        size = snprintf(line, sizeof line, "%s %s\n", kind, name);
    else
        size = snprintf(line, sizeof line, "%s %s !%d\n", kind, name, fault);
    syscall(SYS_write, trace_fd, line, size);
}

/* NO_FAULT, or the error with which this operation is to fail, or SHORT. */
static int fault_of(const char *kind, const char *name)
{
    int fault = NO_FAULT, before = errno;
    if (name[0] == '\0')
        return NO_FAULT;
    if (nth > 0 && (is_on == NULL || *is_on) && fnmatch(kinds, kind, FNM_EXTMATCH) == 0 &&
        fnmatch(names, name, FNM_EXTMATCH) == 0) {
        seen++;
        if (seen == nth || (is_lasting && seen > nth))
            fault = error_number;
    }
    tell(kind, name, fault);
    errno = before;
    return fault;
}

/* Whether the operation fails; errno says how. What can't be done by half is done. */
static int fails(const char *kind, const char *name)
{
    int fault = fault_of(kind, name);
    if (fault == NO_FAULT || fault == SHORT)
        return 0;
    errno = fault;
    return 1;
}

static int path_fails(const char *kind, int dir_fd, const char *path)
{
    char name[NAME_SIZE_MAX];
    name_path(dir_fd, path, name);
    return fails(kind, name);
}

/* -- how a campaign leads it ---------------------------------------------------------------------------- */

/* Begin anew in this process. An empty text: none of it. Gives 0, or -1 for a plan that is none. */
int faults_begin(const char *new_root, const char *trace_path, const char *plan, const char *switch_path)
{
    char mode[16];
    int fd;
    root_size = 0;
    nth = seen = 0;
    is_on = NULL;
    if (trace_fd >= 0)
        syscall(SYS_close, trace_fd);
    trace_fd = -1;
    snprintf(root, sizeof root, "%s", new_root);
    if (trace_path[0] != '\0') {
        fd = syscall(SYS_openat, AT_FDCWD, trace_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        trace_fd = fcntl(fd, F_DUPFD_CLOEXEC, TRACE_FD_MIN);
        syscall(SYS_close, fd);
        if (trace_fd < 0)
            return -1;
    }
    if (switch_path[0] != '\0') {
        fd = syscall(SYS_openat, AT_FDCWD, switch_path, O_RDONLY | O_CLOEXEC, 0);
        is_on = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
        syscall(SYS_close, fd);
        if (is_on == MAP_FAILED)
            return -1;
    }
    if (plan[0] != '\0') {
        if (sscanf(plan, "%255s %255s %ld %d %15s", kinds, names, &nth, &error_number, mode) != 5)
            return -1;
        is_lasting = strcmp(mode, "always") == 0;
    }
    root_size = strlen(root);
    return 0;
}

__attribute__((constructor)) static void begin_by_environment(void)
{
    const char *of_root = getenv("FAULTS_ROOT"), *trace = getenv("FAULTS_TRACE");
    const char *plan = getenv("FAULTS_PLAN"), *of_switch = getenv("FAULTS_SWITCH");
    if (of_root != NULL && of_root[0] != '\0' &&
        faults_begin(of_root, trace ? trace : "", plan ? plan : "", of_switch ? of_switch : "") != 0)
        abort();
}

/* -- descriptors ---------------------------------------------------------------------------------------- */

static int opened(int fd, const char *name)
{
    if (fd >= 0 && fd < FD_COUNT_MAX)
        snprintf(name_of[fd], NAME_SIZE_MAX, "%s", name);
    return fd;
}

static int open_at(int dir_fd, const char *path, int flags, mode_t mode)
{
    char name[NAME_SIZE_MAX];
    int is_new = 0;
    name_path(dir_fd, path, name);
    if (name[0] != '\0' && flags & O_CREAT)
        is_new = syscall(SYS_faccessat, dir_fd, path, F_OK) != 0;
    if (fails(is_new ? "create" : "open", name))
        return -1;
    return opened(syscall(SYS_openat, dir_fd, path, flags, mode), name);
}

#define MODE_OF(flags)                                                                                                 \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int dir_fd, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_at(dir_fd, path, flags, mode);
}

int openat64(int dir_fd, const char *path, int flags, ...)
{
    MODE_OF(flags)
    return open_at(dir_fd, path, flags | O_LARGEFILE, mode);
}

int close(int fd)
{
    opened(fd, "");
    return syscall(SYS_close, fd);
}

DIR *opendir(const char *path)
{
    REAL(opendir)
    return path_fails("opendir", AT_FDCWD, path) ? NULL : real(path);
}

/* -- reading and writing -------------------------------------------------------------------------------- */

#define HALF(fault, size) ((fault) == SHORT && (size) > 1 ? (size) / 2 : (size))

ssize_t read(int fd, void *data, size_t size)
{
    int fault = fault_of("read", name_fd(fd));
    if (fault > 0)
        return errno = fault, -1;
    return syscall(SYS_read, fd, data, HALF(fault, size));
}

ssize_t write(int fd, const void *data, size_t size)
{
    int fault = fault_of("write", name_fd(fd));
    if (fault > 0)
        return errno = fault, -1;
    return syscall(SYS_write, fd, data, HALF(fault, size));
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset)
{
    int fault = fault_of("pread", name_fd(fd));
    if (fault > 0)
        return errno = fault, -1;
    return syscall(SYS_pread64, fd, data, HALF(fault, size), offset);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return pread64(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    int fault = fault_of("pwrite", name_fd(fd));
    if (fault > 0)
        return errno = fault, -1;
    return syscall(SYS_pwrite64, fd, data, HALF(fault, size), offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

int fsync(int fd)
{
    return fails("fsync", name_fd(fd)) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fails("fdatasync", name_fd(fd)) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate64(int fd, off64_t size)
{
    return fails("ftruncate", name_fd(fd)) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

off64_t lseek64(int fd, off64_t offset, int whence)
{
    return fails("lseek", name_fd(fd)) ? -1 : (off64_t)syscall(SYS_lseek, fd, offset, whence);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return lseek64(fd, offset, whence);
}

/* -- names ---------------------------------------------------------------------------------------------- */

int rename(const char *from, const char *to)
{
    REAL(rename)
    return path_fails("rename", AT_FDCWD, to) ? -1 : real(from, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    return path_fails("rename", to_fd, to) ? -1 : (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
}

int link(const char *from, const char *to)
{
    REAL(link)
    return path_fails("link", AT_FDCWD, to) ? -1 : real(from, to);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    return path_fails("link", to_fd, to) ? -1 : (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

int unlink(const char *path)
{
    return path_fails("unlink", AT_FDCWD, path) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode)
{
    return path_fails("mkdir", AT_FDCWD, path) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int access(const char *path, int mode)
{
    return path_fails("access", AT_FDCWD, path) ? -1 : (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}

/* -- what files are ------------------------------------------------------------------------------------- */

int stat64(const char *path, struct stat64 *status)
{
    REAL(stat64)
    return path_fails("stat", AT_FDCWD, path) ? -1 : real(path, status);
}

int lstat64(const char *path, struct stat64 *status)
{
    REAL(lstat64)
    return path_fails("stat", AT_FDCWD, path) ? -1 : real(path, status);
}

int fstatat64(int dir_fd, const char *path, struct stat64 *status, int flags)
{
    REAL(fstatat64)
    return path_fails("stat", dir_fd, path) ? -1 : real(dir_fd, path, status, flags);
}

int fstat64(int fd, struct stat64 *status)
{
    REAL(fstat64)
    return fails("fstat", name_fd(fd)) ? -1 : real(fd, status);
}

/* The same, as programs call them that were built with an older C library. */

int __xstat64(int version, const char *path, struct stat64 *status)
{
    (void)version;
    return stat64(path, status);
}

int __lxstat64(int version, const char *path, struct stat64 *status)
{
    (void)version;
    return lstat64(path, status);
}

int __fxstat64(int version, int fd, struct stat64 *status)
{
    (void)version;
    return fstat64(fd, status);
}

/* -- locks ---------------------------------------------------------------------------------------------- */

int fcntl64(int fd, int command, ...)
{
    const char *kind = NULL;
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (command == F_SETLK || command == F_SETLKW)
        kind = "lock";
    else if (command == F_SETLEASE)
        kind = "lease";
    if (kind != NULL && fails(kind, name_fd(fd)))
        return -1;
    int result = syscall(SYS_fcntl, fd, command, argument);
    if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC) && fd < FD_COUNT_MAX)
        opened(result, name_of[fd]);
    return result;
}

int flock(int fd, int operation)
{
    return fails("lock", name_fd(fd)) ? -1 : (int)syscall(SYS_flock, fd, operation);
}

/* -- what leaves ---------------------------------------------------------------------------------------- */

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    tell("send", "", NO_FAULT);
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    tell("send", "", NO_FAULT);
    return syscall(SYS_sendmsg, fd, message, flags);
}

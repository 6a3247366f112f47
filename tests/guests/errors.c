/* What goes wrong, and ways out of the sandbox. Besides /in lies a file that must stay out of reach, and in /in
 * lie symbolic links to it, `relative` and `absolute`, one to the folder above /in, `folder/up`, and one that stays,
 * `inside`. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wasi/api.h>

/* What the way out gives: refused by the sandbox, or not there. */
#define NO_WAY REASONS(EPERM, EACCES, ENOTCAPABLE, ENOENT, ELOOP, EINVAL, ENOTDIR)

static bool opens(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return false;
    close(fd);
    return true;
}

/* The descriptor of a folder that was opened in advance, by its name. */
static __wasi_fd_t preopened(const char *name) {
    for (__wasi_fd_t fd = 3; fd < 16; fd++) {
        char found[64] = {0};
        __wasi_prestat_t about;
        if (__wasi_fd_prestat_get(fd, &about) != 0) break;
        if (about.u.dir.pr_name_len < sizeof found &&
            __wasi_fd_prestat_dir_name(fd, (uint8_t *)found, about.u.dir.pr_name_len) == 0 && strcmp(found, name) == 0)
            return fd;
    }
    return (__wasi_fd_t)-1;
}

static void descriptors(void) {
    char byte;
    refused(close(99) < 0, REASONS(EBADF), "close of no descriptor");
    refused(read(99, &byte, 1) < 0, REASONS(EBADF), "read of no descriptor");
    refused(write(99, "x", 1) < 0, REASONS(EBADF), "write to no descriptor");
    refused(lseek(99, 0, SEEK_SET) < 0, REASONS(EBADF), "seek in no descriptor");
    int fd = open("/in/hello.txt", O_RDONLY);
    check(fd > 2, "open");
    refused(write(fd, "x", 1) < 0, REASONS(EBADF, EPERM, ENOTCAPABLE), "write to what is open for reading");
    refused(lseek(fd, -1, SEEK_SET) < 0, REASONS(EINVAL), "seek before the start");
    check(close(fd) == 0, "close");
    refused(close(fd) < 0, REASONS(EBADF), "close twice");
    refused(read(fd, &byte, 1) < 0, REASONS(EBADF), "read of what is closed");
    fd = open("/in", O_RDONLY | O_DIRECTORY);
    refused(read(fd, &byte, 1) < 0, REASONS(EISDIR, EBADF, EPERM, ENOTCAPABLE), "read of a folder");
    close(fd);
    refused(write(0, "x", 1) < 0, REASONS(EBADF, EPERM, ENOTCAPABLE), "write to stdin");
    refused(read(1, &byte, 1) < 0, REASONS(EBADF, EPERM, ENOTCAPABLE), "read of stdout");
    refused(lseek(1, 0, SEEK_SET) < 0, REASONS(ESPIPE, EBADF, EPERM, ENOTCAPABLE), "seek in stdout");
}

static void paths(void) {
    static char longest[5000] = "/in/";
    char text[16];
    refused(!opens("/in/absent"), REASONS(ENOENT), "open of what is not there");
    refused(!opens("/in/absent/file"), REASONS(ENOENT), "open in a folder that is not there");
    refused(!opens("/in/hello.txt/file"), REASONS(ENOTDIR), "open in a file");
    refused(open("/in/hello.txt", O_RDONLY | O_DIRECTORY) < 0, REASONS(ENOTDIR), "open of a file as a folder");
    refused(!opendir("/in/hello.txt"), REASONS(ENOTDIR), "opendir of a file");
    refused(!opens(""), REASONS(ENOENT, EINVAL, ENOTCAPABLE), "open of no name");
    refused(readlink("/in/hello.txt", text, sizeof text) < 0, REASONS(EINVAL), "readlink of a file");
    memset(longest + 4, 'x', sizeof longest - 5);
    refused(!opens(longest), REASONS(ENAMETOOLONG, EINVAL), "open of a name that is too long");
    struct stat about;
    refused(stat("/in/absent", &about) < 0, REASONS(ENOENT), "stat of what is not there");
    refused(open("/in/folder", O_WRONLY) < 0, REASONS(EISDIR, EPERM, EACCES, EROFS, ENOTCAPABLE), "open of a folder for writing");
}

static void ways_out(void) {
    struct stat about;
    check(opens("/in/hello.txt") && opens("/in/folder/../hello.txt"), "there is something inside");
    check(opens("/in/inside"), "a link that stays inside is followed");
    refused(!opens("/in/../outside.txt"), NO_WAY, "out by ..");
    refused(!opens("/in/folder/../../outside.txt"), NO_WAY, "out by .. from a folder");
    refused(!opens("/scratch/../outside.txt"), NO_WAY, "out by .. from scratch");
    refused(!opens("/in/./.././outside.txt"), NO_WAY, "out by .. and .");
    refused(!opens("/in/relative"), NO_WAY, "out by a relative link");
    refused(!opens("/in/absolute"), NO_WAY, "out by an absolute link");
    refused(!opens("/in/folder/up/outside.txt"), NO_WAY, "out by a link to a folder");
    refused(!opendir("/in/folder/up"), NO_WAY, "a list of what is outside");
    refused(stat("/in/relative", &about) < 0, NO_WAY, "stat by a link");
    refused(!opens("/etc/passwd"), NO_WAY, "an absolute path");
    refused(!opens("/"), NO_WAY, "the root");
    refused(!opens("/proc/self/environ"), NO_WAY, "the process");
    refused(!opens("//etc/passwd"), NO_WAY, "an absolute path with two slashes");
    refused(mkdir("/in/../made", 0700) < 0, NO_WAY, "a folder outside");
    refused(open("/scratch/../made.txt", O_WRONLY | O_CREAT, 0600) < 0, NO_WAY, "a file outside");
    refused(rename("/scratch/../outside.txt", "/scratch/taken") < 0, NO_WAY, "a rename from outside");
    refused(link("/scratch/../outside.txt", "/scratch/taken") < 0, NO_WAY, "a link from outside");
}

/* Links of its own: to make them may be refused, to follow them out must be. */
static void links(void) {
    bool made = symlink("../outside.txt", "/scratch/out") == 0;
    check(made || errno == EPERM || errno == ENOTCAPABLE || errno == ENOTSUP, "a link that leads out");
    refused(!opens("/scratch/out"), NO_WAY, "is not followed");
    if (made) unlink("/scratch/out");
    refused(symlink("/etc/passwd", "/scratch/passwd") < 0, REASONS(EPERM, ENOTCAPABLE, ENOTSUP, EINVAL), "an absolute link");
    made = symlink("loop", "/scratch/loop") == 0;
    refused(!opens("/scratch/loop"), REASONS(ELOOP, ENOENT, EPERM, ENOTCAPABLE), "a link to itself");
    if (made) unlink("/scratch/loop");
}

/* The same by the system calls themselves: the C library may have caught some of it before. */
static void raw(void) {
    static const char *const ways[] = {"../outside.txt", "folder/../../outside.txt", "/etc/passwd", "relative", "absolute",
                                       "folder/up/outside.txt", "../in/../outside.txt", ".."};
    __wasi_fd_t in = preopened("/in"), scratch = preopened("/scratch"), fd;
    check(in != (__wasi_fd_t)-1 && scratch != (__wasi_fd_t)-1, "preopens have their names");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char what[64];
        snprintf(what, sizeof what, "path_open %s", ways[i]);
        __wasi_errno_t error = __wasi_path_open(in, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, ways[i], 0, __WASI_RIGHTS_FD_READ, 0,
                                                0, &fd);
        check(error != 0, what);
    }
    check(__wasi_path_unlink_file(scratch, "../outside.txt") != 0, "path_unlink_file ../outside.txt");
    check(__wasi_path_create_directory(scratch, "../made") != 0, "path_create_directory ../made");
    check(__wasi_path_rename(scratch, "../outside.txt", scratch, "taken") != 0, "path_rename ../outside.txt");
    check(__wasi_path_link(scratch, 0, "../outside.txt", scratch, "taken") != 0, "path_link ../outside.txt");
    check(__wasi_path_open(0, 0, "hello.txt", 0, __WASI_RIGHTS_FD_READ, 0, 0, &fd) != 0, "path_open in stdin");
    check(__wasi_fd_prestat_get(99, &(__wasi_prestat_t){0}) == __WASI_ERRNO_BADF, "fd_prestat_get of no descriptor");
    check(__wasi_sock_shutdown(3, __WASI_SDFLAGS_RD) != 0, "sock_shutdown of a folder");
}

int main(void) {
    descriptors();
    paths();
    ways_out();
    links();
    raw();
    return done();
}

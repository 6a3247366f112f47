/* Files: /in can be read and nothing else, /scratch can be changed. */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static bool put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return false;
    bool good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    return close(fd) == 0 && good;
}

static bool holds(const char *path, const char *text) {
    char found[256];
    int fd = open(path, O_RDONLY);
    if (fd < 0) return false;
    ssize_t got = read(fd, found, sizeof found);
    close(fd);
    return got == (ssize_t)strlen(text) && memcmp(found, text, (size_t)got) == 0;
}

static bool absent(const char *path) {
    struct stat about;
    return stat(path, &about) == -1 && errno == ENOENT;
}

/* The names in a folder, in order, each followed by a space. */
static const char *names(const char *path) {
    static char all[1024];
    char *found[32];
    int count = 0;
    DIR *folder = opendir(path);
    if (!folder) return "cannot be opened";
    for (struct dirent *entry; count < 32 && (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        int at = count++;
        for (; at > 0 && strcmp(found[at - 1], entry->d_name) > 0; at--) found[at] = found[at - 1];
        found[at] = strdup(entry->d_name);
    }
    closedir(folder);
    all[0] = 0;
    for (int i = 0; i < count; i++) strcat(strcat(all, found[i]), " ");
    return all;
}

static void read_only(void) {
    struct stat about;
    check(holds("/in/hello.txt", "hello\n"), "in: read");
    check(holds("/in/folder/inner.txt", "inner\n"), "in: read in a folder");
    check(holds("/in/folder/../hello.txt", "hello\n"), "in: .. inside the folder");
    check(stat("/in/hello.txt", &about) == 0 && S_ISREG(about.st_mode) && about.st_size == 6, "in: stat");
    check(stat("/in/folder", &about) == 0 && S_ISDIR(about.st_mode), "in: stat of a folder");
    check(strcmp(names("/in/folder"), "inner.txt ") == 0, "in: readdir");
    refused(open("/in/new.txt", O_WRONLY | O_CREAT, 0600) < 0, NO, "in: no new file");
    refused(open("/in/hello.txt", O_WRONLY) < 0, NO, "in: no writing");
    refused(open("/in/hello.txt", O_RDWR) < 0, NO, "in: no reading and writing");
    refused(open("/in/hello.txt", O_WRONLY | O_APPEND) < 0, NO, "in: no appending");
    refused(open("/in/hello.txt", O_RDONLY | O_TRUNC) < 0, NO, "in: no truncating");
    refused(unlink("/in/hello.txt") < 0, NO, "in: no unlink");
    refused(rename("/in/hello.txt", "/in/other.txt") < 0, NO, "in: no rename");
    refused(mkdir("/in/made", 0700) < 0, NO, "in: no mkdir");
    refused(rmdir("/in/folder") < 0, REASONS(EPERM, EACCES, EROFS, ENOTCAPABLE, ENOTEMPTY), "in: no rmdir");
    refused(symlink("hello.txt", "/in/link") < 0, NO, "in: no symlink");
    refused(link("/in/hello.txt", "/in/hard") < 0, NO, "in: no link");
    refused(utimensat(AT_FDCWD, "/in/hello.txt", NULL, 0) < 0, NO, "in: no change of times");
    int fd = open("/in/hello.txt", O_RDONLY);
    refused(write(fd, "x", 1) < 0, NO, "in: no writing to what is open");
    refused(ftruncate(fd, 0) < 0, REASONS(EPERM, EACCES, EROFS, ENOTCAPABLE, EBADF, EINVAL), "in: no truncating of what is open");
    close(fd);
    check(holds("/in/hello.txt", "hello\n"), "in: as it was");
}

static void scratch_files(void) {
    char found[32] = {0};
    struct stat about;
    check(put("/scratch/a.txt", "first"), "scratch: write");
    check(holds("/scratch/a.txt", "first"), "scratch: read");
    check(stat("/scratch/a.txt", &about) == 0 && about.st_size == 5, "scratch: stat");
    refused(open("/scratch/a.txt", O_WRONLY | O_CREAT | O_EXCL, 0600) < 0, REASONS(EEXIST), "scratch: exclusive");
    int fd = open("/scratch/a.txt", O_WRONLY | O_APPEND);
    check(write(fd, " second", 7) == 7 && close(fd) == 0 && holds("/scratch/a.txt", "first second"), "scratch: append");
    fd = open("/scratch/a.txt", O_RDWR);
    check(lseek(fd, -6, SEEK_END) == 6 && read(fd, found, 6) == 6 && strcmp(found, "second") == 0, "scratch: seek");
    check(pwrite(fd, "F", 1, 0) == 1 && lseek(fd, 0, SEEK_CUR) == 12, "scratch: pwrite leaves the offset");
    check(pread(fd, found, 5, 0) == 5 && memcmp(found, "First", 5) == 0, "scratch: pread");
    check(ftruncate(fd, 3) == 0 && fstat(fd, &about) == 0 && about.st_size == 3, "scratch: shorter");
    check(ftruncate(fd, 8) == 0 && pread(fd, found, 8, 0) == 8 && memcmp(found, "Fir\0\0\0\0\0", 8) == 0,
          "scratch: longer, with zeros");
    check(fsync(fd) == 0 && fdatasync(fd) == 0, "scratch: sync");
    check(lseek(fd, 100, SEEK_SET) == 100 && read(fd, found, 1) == 0, "scratch: nothing behind the end");
    check(close(fd) == 0, "scratch: close");
    fd = open("/scratch/a.txt", O_WRONLY | O_TRUNC);
    check(fstat(fd, &about) == 0 && about.st_size == 0 && close(fd) == 0, "scratch: truncating open");
}

static void scratch_names(void) {
    put("/scratch/a.txt", "a");
    put("/scratch/b.txt", "b");
    check(rename("/scratch/a.txt", "/scratch/c.txt") == 0 && absent("/scratch/a.txt"), "scratch: rename");
    check(holds("/scratch/c.txt", "a"), "scratch: renamed");
    check(rename("/scratch/c.txt", "/scratch/b.txt") == 0 && holds("/scratch/b.txt", "a"), "scratch: rename over");
    refused(rename("/scratch/b.txt", "/in/b.txt") < 0, REASONS(EPERM, EACCES, EROFS, ENOTCAPABLE, EXDEV),
            "scratch: no rename into /in");
    check(mkdir("/scratch/d", 0700) == 0 && put("/scratch/d/x", "x") && put("/scratch/d/y", "y"), "scratch: mkdir");
    refused(mkdir("/scratch/d", 0700) < 0, REASONS(EEXIST), "scratch: mkdir twice");
    check(strcmp(names("/scratch"), "b.txt d ") == 0, "scratch: readdir");
    check(strcmp(names("/scratch/d"), "x y ") == 0, "scratch: readdir of a folder");
    refused(rmdir("/scratch/d") < 0, REASONS(ENOTEMPTY), "scratch: rmdir of what is not empty");
    refused(unlink("/scratch/d") < 0, REASONS(EISDIR, EPERM), "scratch: unlink of a folder");
    refused(rmdir("/scratch/b.txt") < 0, REASONS(ENOTDIR), "scratch: rmdir of a file");
    check(rename("/scratch/d", "/scratch/e") == 0 && holds("/scratch/e/x", "x"), "scratch: rename of a folder");
    check(unlink("/scratch/e/x") == 0 && unlink("/scratch/e/y") == 0 && rmdir("/scratch/e") == 0, "scratch: rmdir");
    check(unlink("/scratch/b.txt") == 0 && absent("/scratch/b.txt"), "scratch: unlink");
    refused(unlink("/scratch/b.txt") < 0, REASONS(ENOENT), "scratch: unlink twice");
    check(strcmp(names("/scratch"), "") == 0, "scratch: empty again");
}

static void many(void) {
    char path[64];
    bool good = mkdir("/scratch/many", 0700) == 0;
    for (int i = 0; i < 200; i++) {
        snprintf(path, sizeof path, "/scratch/many/file-with-a-longer-name-%03d", i);
        good = good && put(path, "");
    }
    int count = 0;
    DIR *folder = opendir("/scratch/many");
    for (struct dirent *entry; folder && (entry = readdir(folder));) count += strncmp(entry->d_name, "file-", 5) == 0;
    if (folder) closedir(folder);
    check(good && count == 200, "scratch: readdir of 200 names");
    for (int i = 0; i < 200; i++) {
        snprintf(path, sizeof path, "/scratch/many/file-with-a-longer-name-%03d", i);
        good = good && unlink(path) == 0;
    }
    check(good && rmdir("/scratch/many") == 0, "scratch: unlink of 200 names");
}

int main(void) {
    read_only();
    scratch_files();
    scratch_names();
    many();
    return done();
}

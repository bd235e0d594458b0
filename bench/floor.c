/* The yardstick: a container made with the fewest system calls that give the isolation of `corten run`.
 *
 *   floor [-n N] [-w] [-t] ROOTFS FILTERFILE CMD [ARG...]
 *
 * makes N containers (default 1) one after another, runs CMD in each, and prints the milliseconds of each on stdout
 * when all are done; with -w it reads a line from stdin before each container and prints its time at once. With -t it
 * also prints on stderr the mean microseconds of each step.
 * The exit status is that of CMD in the last container; 125: the yardstick itself failed.
 *
 * What one container is (the same list as the plan of `corten run -m 512m --cpus 1 --pids-limit 64 IMAGE CMD`):
 *   control groups      one in each v1 controller below our own group and one in the v2 tree, or one group on pure v2;
 *                       memory, swap, cpu and processes limited, each limit read back; device allow-list (v1 file, v2 BPF)
 *   namespaces          mount, PID, UTS, IPC, network, time by clone3, cgroup by unshare once the child is in its group
 *                       (the root of a cgroup namespace is where its maker stands); loopback up
 *   root file system    overlay of ROOTFS and a throw-away layer; proc, /dev with its nodes and links, devpts, shm,
 *                       mqueue, sysfs and cgroup read-only; masked and read-only paths as in OCI; pivot_root
 *   process             host name, capabilities bounded to podman's default, no_new_privs, the seccomp filter of
 *                       FILTERFILE (raw struct sock_filter), and an init that reaps and returns the program's status
 *   afterwards          groups and layer removed
 * What does not depend on the container (mount table, own groups, the filter) is read once, before the clock starts.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMORY "536870912" /* 512 MiB, bytes */
#define AND_SWAP "1073741824"
#define QUOTA "100000"     /* one cpu: microseconds in the default period of 100,000 */
#define PIDS "64"
#define SHM "mode=1777,size=268435456"
#define SAFE (MS_NOSUID | MS_NODEV | MS_NOEXEC)
#define COUNT(array) (sizeof(array) / sizeof *(array))

enum controller { CPU, CPUACCT, CPUSET, MEM, DEVICES, FREEZER, BLKIO, PIDSC, CONTROLLERS };
static const char *const NAMES[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"};

/* A v1 hierarchy, or the v2 tree: where a group for us is made, and how a mount of it inside is called. */
struct tree {
    char base[1024], name[64];
    unsigned controllers; /* bits of enum controller; 0: the v2 tree */
};
static struct tree trees[CONTROLLERS + 1];
static int n_trees, has_v1, has_swap;
static char groups[CONTROLLERS + 1][1100], layer[256];
static char cpus[256], mems[256], root[1024];
static struct sock_fprog filter;
static unsigned last_cap;
static unsigned long long own_caps;
static unsigned long retries;

/* Milliseconds spent up to each mark since the one before it, in memory shared by parent and child. */
static struct times {
    double last;
    struct { const char *name; double total; } steps[48];
} *times;

static void die(const char *format, ...) {
    char text[512];
    int error = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    dprintf(2, "floor: %s: %s\n", text, strerror(error));
    _exit(125);
}

#define CHECK(call, ...)          \
    do {                          \
        if ((call) < 0)           \
            die(__VA_ARGS__);     \
    } while (0)

static double milliseconds(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void mark(const char *name) {
    double now = milliseconds();
    size_t i = 0;
    while (times->steps[i].name && times->steps[i].name != name && i < COUNT(times->steps) - 1)
        i++;
    times->steps[i].name = name;
    times->steps[i].total += now - times->last;
    times->last = now;
}

/* --- once, before the clock ----------------------------------------------------------------------------------- */

static size_t slurp(const char *path, char *into, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t got;
    CHECK(fd, "open %s", path);
    while ((got = read(fd, into + have, room - 1 - have)) > 0)
        have += got;
    CHECK(got, "read %s", path);
    CHECK(close(fd), "close %s", path);
    into[have] = 0;
    return have;
}

static int has_word(const char *list, const char *word) { /* comma-separated */
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (!at[length] || strchr(",\n ", at[length])))
            return 1;
    return 0;
}

/* The directory of our own group in the hierarchy whose first controller is `word` ("" is the v2 tree). */
static int find_base(const char *mounts, const char *word, const char *own, char *base) {
    for (const char *line = mounts; *line; line = strchr(line, '\n') + 1) {
        char from[1024], at[1024], type[64], options[1024];
        const char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %1023s %1023s", from, at) != 2 ||
            sscanf(dash, " - %63s %*s %1023s", type, options) != 2)
            continue;
        if (strcmp(type, *word ? "cgroup" : "cgroup2") || (*word && !has_word(options, word)))
            continue;
        size_t skip = strcmp(from, "/") ? strlen(from) : 0;
        if (strncmp(own, from, skip))
            continue;
        snprintf(base, 1024, "%.500s%.500s", at, strcmp(own + skip, "/") ? own + skip : "");
        return 1;
    }
    return 0;
}

static void put(const char *directory, const char *file, const char *value); /* write a line, checked */

/* Pure v2: a group with processes can have no limited children, so ours stands beside us, not below. */
static void stand_beside(struct tree *tree, const char *mount_point) {
    char path[1100];
    char *slash = strrchr(tree->base, '/');
    if (strlen(tree->base) > strlen(mount_point))
        *slash = 0;
    for (char *end = tree->base + strlen(mount_point);; end = strchr(end + 1, '/')) {
        if (!end)
            end = tree->base + strlen(tree->base);
        snprintf(path, sizeof path, "%.*s", (int)(end - tree->base), tree->base);
        put(path, "cgroup.subtree_control", "+cpu +memory +pids");
        if (!*end)
            return;
    }
}

static void find_trees(void) {
    static char lines[16384], mounts[1 << 18];
    slurp("/proc/self/cgroup", lines, sizeof lines);
    slurp("/proc/self/mountinfo", mounts, sizeof mounts);
    for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) {
        char *list = strchr(line, ':') + 1, *own = strchr(list, ':'), first[64];
        struct tree *tree = &trees[n_trees];
        *own++ = 0;
        tree->controllers = 0;
        for (int c = 0; c < CONTROLLERS; c++)
            tree->controllers |= (unsigned)has_word(list, NAMES[c]) << c;
        if (*list && !tree->controllers)
            continue; /* name=systemd and controllers that no limit of ours needs */
        snprintf(first, sizeof first, "%.*s", (int)strcspn(list, ","), list);
        if (!find_base(mounts, first, own, tree->base))
            continue;
        snprintf(tree->name, sizeof tree->name, "%.63s", *list ? list : "unified");
        has_v1 |= *list != 0;
        if (tree->controllers >> CPUSET & 1) {
            char path[1100];
            snprintf(path, sizeof path, "%s/cpuset.cpus", tree->base);
            slurp(path, cpus, sizeof cpus);
            snprintf(path, sizeof path, "%s/cpuset.mems", tree->base);
            slurp(path, mems, sizeof mems);
        }
        n_trees++;
    }
    if (!n_trees) {
        errno = ENOENT;
        die("find a control group hierarchy");
    }
    if (!has_v1)
        stand_beside(&trees[0], "/sys/fs/cgroup");
    for (int i = 0; i < n_trees; i++) { /* a kernel may come without accounts of swap */
        char path[1100];
        const char *file = has_v1 ? "memory.memsw.limit_in_bytes" : "memory.swap.max";
        snprintf(path, sizeof path, "%s/%s", trees[i].base, file);
        has_swap |= !access(path, F_OK);
    }
}

static void read_filter(const char *path) {
    static char bytes[1 << 19];
    size_t size = slurp(path, bytes, sizeof bytes);
    filter.len = size / sizeof(struct sock_filter);
    filter.filter = (void *)bytes;
    if (!size || size % sizeof(struct sock_filter)) {
        errno = EINVAL;
        die("read %s: not a list of struct sock_filter", path);
    }
}

static void read_caps(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    char text[32];
    slurp("/proc/sys/kernel/cap_last_cap", text, sizeof text);
    last_cap = strtoul(text, NULL, 10);
    CHECK(syscall(SYS_capget, &header, data), "capget");
    own_caps = data[0].permitted | (unsigned long long)data[1].permitted << 32;
}

/* --- the parent's half ---------------------------------------------------------------------------------------- */

static void put(const char *directory, const char *file, const char *value) {
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd, "open %s", path);
    CHECK(write(fd, value, strlen(value)), "write %s to %s", value, path);
    CHECK(close(fd), "close %s", path);
}

static void limit(const char *group, const char *file, const char *value) {
    char path[1200], back[64] = "";
    snprintf(path, sizeof path, "%s/%s", group, file);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd, "open %s", path);
    CHECK(write(fd, value, strlen(value)), "write %s to %s", value, path);
    ssize_t got = pread(fd, back, sizeof back - 1, 0);
    CHECK(got, "read %s", path);
    if ((size_t)got != strlen(value) + 1 || strncmp(back, value, strlen(value))) {
        errno = ERANGE;
        die("%s is %s, not %s", path, back, value);
    }
    CHECK(close(fd), "close %s", path);
}

static void allow_devices_v1(const char *group) {
    static const char *const rules[] = {"c *:* m",   "b *:* m",   "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm",
                                        "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
    char path[1200], list[1024];
    put(group, "devices.deny", "a");
    snprintf(path, sizeof path, "%s/devices.allow", group);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd, "open %s", path);
    for (size_t i = 0; i < COUNT(rules); i++)
        CHECK(write(fd, rules[i], strlen(rules[i])), "write %s to %s", rules[i], path);
    CHECK(close(fd), "close %s", path);
    snprintf(path, sizeof path, "%s/devices.list", group);
    slurp(path, list, sizeof list);
    for (size_t i = 0; i < COUNT(rules); i++)
        if (!strstr(list, rules[i])) {
            errno = ERANGE;
            die("%s lacks %s", path, rules[i]);
        }
}

#define INSN(op, dst, src, jump, value) \
    { .code = (op), .dst_reg = (dst), .src_reg = (src), .off = (jump), .imm = (value) }

static void allow_devices_v2(int group_fd) {
    enum { EQ = BPF_JMP | BPF_JEQ | BPF_K, NE = BPF_JMP | BPF_JNE | BPF_K };
    const struct bpf_insn program[] = {
        INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0),        /*  0 r2 = access << 16 | type */
        INSN(BPF_LDX | BPF_MEM | BPF_W, 3, 1, 4, 0),        /*  1 r3 = major */
        INSN(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 8, 0),        /*  2 r4 = minor */
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 5, 2, 0, 0),      /*  3 */
        INSN(BPF_ALU64 | BPF_RSH | BPF_K, 5, 0, 0, 16),     /*  4 r5 = access */
        INSN(EQ, 5, 0, 15, BPF_DEVCG_ACC_MKNOD),            /*  5 mknod alone: allow */
        INSN(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff), /*  6 r2 = type */
        INSN(NE, 2, 0, 11, BPF_DEVCG_DEV_CHAR),             /*  7 deny */
        INSN(EQ, 3, 0, 12, 136),                            /*  8 pseudo-terminals: allow */
        INSN(EQ, 3, 0, 4, 1),                               /*  9 to 14 */
        INSN(NE, 3, 0, 8, 5),                               /* 10 deny */
        INSN(EQ, 4, 0, 9, 0),                               /* 11 tty: allow */
        INSN(EQ, 4, 0, 8, 2),                               /* 12 ptmx: allow */
        INSN(BPF_JMP | BPF_JA, 0, 0, 5, 0),                 /* 13 deny */
        INSN(EQ, 4, 0, 6, 3),                               /* 14 null: allow */
        INSN(EQ, 4, 0, 5, 5),                               /* 15 zero: allow */
        INSN(EQ, 4, 0, 4, 7),                               /* 16 full: allow */
        INSN(EQ, 4, 0, 3, 8),                               /* 17 random: allow */
        INSN(EQ, 4, 0, 2, 9),                               /* 18 urandom: allow */
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),      /* 19 deny */
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),               /* 20 */
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1),      /* 21 allow */
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),               /* 22 */
    };
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
                           .insns = (unsigned long)program,
                           .insn_cnt = COUNT(program),
                           .license = (unsigned long)"Apache-2.0"};
    int fd = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    CHECK(fd, "load the device program");
    union bpf_attr attach = {.target_fd = group_fd,
                             .attach_bpf_fd = fd,
                             .attach_type = BPF_CGROUP_DEVICE,
                             .attach_flags = BPF_F_ALLOW_MULTI};
    CHECK(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach), "attach the device program");
    CHECK(close(fd), "close the device program");
}

/* Groups with their limits; the file descriptor of the v2 group for CLONE_INTO_CGROUP, or -1 where there is none. */
static int make_groups(unsigned long number) {
    int into = -1;
    for (int i = 0; i < n_trees; i++) {
        const struct tree *tree = &trees[i];
        char *group = groups[i];
        snprintf(group, sizeof groups[i], "%s/floor-%d-%lu", tree->base, getpid(), number);
        CHECK(mkdir(group, 0755), "mkdir %s", group);
        if (!tree->controllers) {
            CHECK(into = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open %s", group);
            if (!has_v1) {
                limit(group, "memory.max", MEMORY);
                if (has_swap)
                    limit(group, "memory.swap.max", MEMORY);
                limit(group, "cpu.max", QUOTA " 100000");
                limit(group, "pids.max", PIDS);
                allow_devices_v2(into);
            }
        }
        if (tree->controllers >> MEM & 1) {
            limit(group, "memory.limit_in_bytes", MEMORY);
            if (has_swap)
                limit(group, "memory.memsw.limit_in_bytes", AND_SWAP);
        }
        if (tree->controllers >> CPU & 1)
            limit(group, "cpu.cfs_quota_us", QUOTA);
        if (tree->controllers >> PIDSC & 1)
            limit(group, "pids.max", PIDS);
        if (tree->controllers >> CPUSET & 1) { /* a new v1 cpuset is empty, and nothing may join it */
            put(group, "cpuset.cpus", cpus);
            put(group, "cpuset.mems", mems);
        }
        if (tree->controllers >> DEVICES & 1)
            allow_devices_v1(group);
    }
    return into;
}

static void remove_groups(void) {
    for (int i = 0; i < n_trees; i++)
        while (rmdir(groups[i]) < 0) {
            if (errno != EBUSY) /* the kernel has not yet finished the last exit */
                die("rmdir %s", groups[i]);
            retries++;
            sched_yield();
        }
}

static void make_layer(unsigned long number) {
    char path[300];
    snprintf(layer, sizeof layer, "/var/tmp/floor-%d-%lu", getpid(), number);
    CHECK(mkdir(layer, 0700), "mkdir %s", layer);
    snprintf(path, sizeof path, "%s/u", layer);
    CHECK(mkdir(path, 0755), "mkdir %s", path);
    snprintf(path, sizeof path, "%s/w", layer);
    CHECK(mkdir(path, 0700), "mkdir %s", path);
}

static void remove_below(int parent, const char *name) {
    if (!unlinkat(parent, name, AT_REMOVEDIR))
        return;
    if (errno == ENOTDIR) {
        CHECK(unlinkat(parent, name, 0), "unlink %s", name);
        return;
    }
    if (errno != ENOTEMPTY)
        die("rmdir %s", name);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    CHECK(fd, "open %s", name);
    DIR *directory = fdopendir(fd);
    if (!directory)
        die("list %s", name);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            remove_below(fd, entry->d_name);
    CHECK(closedir(directory), "close %s", name);
    CHECK(unlinkat(parent, name, AT_REMOVEDIR), "rmdir %s", name);
}

static void remove_layer(void) {
    static const char *const known[] = {"w/work", "w", "u", ""}; /* what overlay leaves of an unused layer */
    char path[300];
    for (size_t i = 0; i < COUNT(known); i++) {
        snprintf(path, sizeof path, "%s/%s", layer, known[i]);
        if (rmdir(path) < 0)
            remove_below(AT_FDCWD, path);
    }
}

/* --- the child's half ----------------------------------------------------------------------------------------- */

static void join_groups(void) {
    for (int i = 0; i < n_trees; i++) {
        char path[1200];
        if (!trees[i].controllers)
            continue; /* clone3 has put us there */
        snprintf(path, sizeof path, "%s/tasks", groups[i]); /* "0" in tasks moves one thread without the global lock */
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        CHECK(fd, "open %s", path);
        CHECK(write(fd, "0", 1), "write 0 to %s", path);
    } /* close_range below closes them all */
    CHECK(unshare(CLONE_NEWCGROUP), "unshare the cgroup namespace");
}

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd, "socket");
    CHECK(ioctl(fd, SIOCSIFFLAGS, &request), "bring lo up");
}

static void mount_at(const char *type, const char *where, unsigned long flags, const char *data) {
    int done = mount(type, where, type, flags, data);
    if (done < 0 && errno == ENOENT) {
        CHECK(mkdir(where, 0755), "mkdir %s", where);
        done = mount(type, where, type, flags, data);
    }
    CHECK(done, "mount %s on %s", type, where);
}

static void make_dev(void) {
    static const struct { const char *name; int major, minor; } nodes[] = {
        {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    static const char *const links[][2] = {{"pts/ptmx", "dev/ptmx"}, {"/proc/self/fd", "dev/fd"},
        {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"}};
    umask(0);
    mount_at("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    for (size_t i = 0; i < COUNT(nodes); i++)
        CHECK(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), "mknod %s", nodes[i].name);
    for (size_t i = 0; i < COUNT(links); i++)
        CHECK(symlink(links[i][0], links[i][1]), "symlink %s", links[i][1]);
    CHECK(mkdir("dev/pts", 0755), "mkdir dev/pts");
    CHECK(mkdir("dev/shm", 01777), "mkdir dev/shm");
    CHECK(mkdir("dev/mqueue", 01777), "mkdir dev/mqueue");
    mount_at("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount_at("tmpfs", "dev/shm", SAFE, SHM);
    mount_at("mqueue", "dev/mqueue", SAFE, NULL);
    umask(022);
}

static void mount_cgroups(void) {
    char where[128];
    if (!has_v1) {
        mount_at("cgroup2", "sys/fs/cgroup", SAFE | MS_RDONLY, NULL);
        return;
    }
    mount_at("tmpfs", "sys/fs/cgroup", SAFE, "mode=755");
    for (int i = 0; i < n_trees; i++) {
        snprintf(where, sizeof where, "sys/fs/cgroup/%s", trees[i].name);
        CHECK(mkdir(where, 0755), "mkdir %s", where);
        if (trees[i].controllers)
            mount_at("cgroup", where, SAFE | MS_RDONLY, trees[i].name);
        else
            mount_at("cgroup2", where, SAFE | MS_RDONLY, NULL);
    }
    CHECK(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | SAFE, NULL), "remount sys/fs/cgroup");
}

static void hide_paths(void) {
    static const char *const files[] = {"proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
                                        "proc/timer_stats", "proc/sched_debug", "proc/interrupts"};
    static const char *const folders[] = {"proc/acpi", "proc/asound", "proc/scsi", "sys/firmware",
                                          "sys/devices/virtual/powercap"};
    static const char *const fixed[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    for (size_t i = 0; i < COUNT(files); i++)
        if (mount("dev/null", files[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT)
            die("mask %s", files[i]);
    for (size_t i = 0; i < COUNT(folders); i++)
        if (mount("tmpfs", folders[i], "tmpfs", SAFE | MS_RDONLY, "nr_inodes=1") < 0 && errno != ENOENT)
            die("mask %s", folders[i]);
    for (size_t i = 0; i < COUNT(fixed); i++) {
        if (mount(fixed[i], fixed[i], NULL, MS_BIND, NULL) < 0) {
            if (errno == ENOENT)
                continue;
            die("bind %s", fixed[i]);
        }
        CHECK(mount(NULL, fixed[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | SAFE, NULL), "make %s read-only", fixed[i]);
    }
}

static void make_root(void) {
    char options[2048];
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/u,workdir=%s/w", root, layer, layer);
    mark("close_range, make mounts private");
    CHECK(mount("overlay", root, "overlay", 0, options), "mount overlay (%s)", options);
    CHECK(chdir(root), "chdir %s", root);
    mark("mount overlay");
    mount_at("proc", "proc", SAFE, NULL);
    mark("mount proc");
    make_dev();
    mark("/dev: tmpfs, nodes, links, devpts, shm, mqueue");
    mount_at("sysfs", "sys", SAFE | MS_RDONLY, NULL);
    mark("mount sysfs");
    mount_cgroups();
    mark("mount cgroups read-only");
    hide_paths();
    mark("masked and read-only paths");
    CHECK(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    CHECK(umount2(".", MNT_DETACH), "umount the old root");
    CHECK(chdir("/"), "chdir /");
}

static void drop_rights(void) {
    static const unsigned kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_NET_BIND_SERVICE,
                                    CAP_SETFCAP, CAP_SETGID, CAP_SETPCAP, CAP_SETUID, CAP_SYS_CHROOT};
    unsigned long long keep = 0;
    for (size_t i = 0; i < COUNT(kept); i++)
        keep |= 1ull << kept[i];
    for (unsigned cap = 0; cap <= last_cap; cap++)
        if (!(keep >> cap & 1))
            CHECK(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "drop capability %u", cap);
    mark("bounding set");
    keep &= own_caps;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {keep >> 32, keep >> 32, 0}};
    CHECK(syscall(SYS_capset, &header, data), "capset");
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "load the seccomp filter");
}

static void inside(char **command) {
    char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", NULL};
    int status;
    pid_t ended;
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "die with the parent");
    CHECK(setsid(), "setsid");
    CHECK(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "join a new keyring");
    mark("clone3: new mount, PID, UTS, IPC, network, time namespaces");
    join_groups();
    mark("join the groups, unshare the cgroup namespace");
    loopback_up();
    mark("loopback up");
    CHECK(close_range(3, ~0u, 0), "close_range");
    make_root();
    CHECK(sethostname("floor", 5), "sethostname");
    mark("pivot_root, umount the old root, host name");
    drop_rights();
    mark("seccomp filter");
    pid_t program = vfork();
    CHECK(program, "fork the program");
    if (!program) {
        execve(command[0], command, environment);
        die("execute %s", command[0]);
    }
    mark("vfork and execve");
    while ((ended = wait4(-1, &status, 0, NULL)) != program)
        CHECK(ended, "wait for the program");
    mark("the program");
    _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* --- one container -------------------------------------------------------------------------------------------- */

static int container(unsigned long number, char **command) {
    times->last = milliseconds();
    int status, into = make_groups(number);
    mark("groups with limits");
    make_layer(number);
    mark("layer");
    struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET |
                                       CLONE_NEWTIME,
                              .exit_signal = SIGCHLD};
    if (into >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = into;
    }
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    CHECK(pid, "clone3");
    if (!pid)
        inside(command);
    if (into >= 0)
        CHECK(close(into), "close the group");
    CHECK(wait4(pid, &status, 0, NULL), "wait for the container");
    mark("end of the namespaces, wait");
    remove_groups();
    mark("remove the groups");
    remove_layer();
    mark("remove the layer");
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv) {
    unsigned long count = 1;
    int wait_for_line = 0, show_steps = 0, status = 0, option;
    while ((option = getopt(argc, argv, "+n:wt")) != -1) {
        if (option == 'n')
            count = strtoul(optarg, NULL, 10);
        else if (option == 'w')
            wait_for_line = 1;
        else if (option == 't')
            show_steps = 1;
        else
            return 125;
    }
    if (argc - optind < 3 || !count) {
        dprintf(2, "usage: floor [-n N] [-w] [-t] ROOTFS FILTERFILE CMD [ARG...]\n");
        return 125;
    }
    if (!realpath(argv[optind], root))
        die("find %s", argv[optind]);
    read_filter(argv[optind + 1]);
    read_caps();
    find_trees();
    double *took = calloc(count, sizeof *took);
    if (!took)
        die("calloc");
    times = mmap(NULL, sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (times == MAP_FAILED)
        die("mmap");
    for (unsigned long i = 0; i < count; i++) {
        char line[64];
        if (wait_for_line && read(0, line, sizeof line) <= 0)
            return status;
        double start = milliseconds();
        status = container(i, argv + optind + 2);
        took[i] = milliseconds() - start;
        if (wait_for_line)
            dprintf(1, "%.3f\n", took[i]);
    }
    for (unsigned long i = 0; i < count && !wait_for_line; i++)
        dprintf(1, "%.3f\n", took[i]);
    for (size_t i = 0; show_steps && times->steps[i].name; i++)
        dprintf(2, "%8.0f us  %s\n", times->steps[i].total * 1e3 / count, times->steps[i].name);
    if (retries)
        dprintf(2, "floor: %lu removals of groups had to be repeated\n", retries);
    return status;
}

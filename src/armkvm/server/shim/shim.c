// /dev/kvm in a program that knows nothing of it: its system calls come here (entry.S) first.
//
// What concerns KVM becomes a message to the server; everything else is made as it was meant. The
// shim knows little of KVM: the letter of its ioctls, KVM_RUN, which a signal ends, and
// KVM_SET_SIGNAL_MASK, which says by which. Sizes and directions are in the numbers of the ioctls.

#include "sys.h"
#include "wire.h"
#include "channel.h"
#include "share.h"

#define KVMIO 0xae
#define KVM_RUN 0xae80
#define KVM_SET_SIGNAL_MASK 0x4004ae8b
#define VCPUS 512

static uint32_t sequence;

// KVM_SET_SIGNAL_MASK, by vCPU.
static struct { uint64_t ino, mask; } masks[VCPUS];
static int masks_lock;

static void set_mask(uint64_t ino, const uint64_t *mask)
{
	lock(&masks_lock);
	for (int i = 0; i < VCPUS; i++)
		if (masks[i].ino == ino || !masks[i].ino) {
			masks[i].ino = mask ? ino : masks[i].ino == ino ? ~0ull : masks[i].ino;
			masks[i].mask = mask ? *mask : 0;
			break;
		}
	unlock(&masks_lock);
}

static int get_mask(uint64_t ino, uint64_t *mask)
{
	for (int i = 0; i < VCPUS && masks[i].ino; i++)
		if (masks[i].ino == ino) {
			*mask = masks[i].mask;
			return 1;
		}
	return 0;
}

static void cancel(const struct request *running)
{
	struct request q = *running;
	int slot = channel_claim(), s;
	q.op = CANCEL;
	if (slot < 0)
		return;
	if ((s = channel_open(slot)) >= 0 && send_message(s, &q, sizeof q, 0, 0, 0, 0) < 0)
		channel_drop(slot);
	channel_release(slot);
}

// Do what the server wants before it can answer. Negative: the connection is of no use any more.
static long serve(int s, const struct request *q, const struct answer *a, int fd)
{
	struct request d = *q;
	struct shared shared = { .count = 0 };
	long r = 0;
	d.op = REPLY;
	d.cmd = d.arg = 0;
	switch (a->op) {
	case READ:
		r = send_message(s, &d, sizeof d, (void *)a->addr, a->len, 0, 0);
		if (r != -EFAULT)
			return r;
		d.arg = EFAULT;
		break;
	case WRITE:
		do
			r = SYS6(recvfrom, s, a->addr, a->len, 0, 0, 0);
		while (r == -EINTR);
		d.arg = r < 0 ? -r : 0;
		break;
	case INSTALL:
		d.arg = fd;
		break;
	case TAKE: {
		int wanted = a->addr;
		r = send_message(s, &d, sizeof d, 0, 0, &wanted, 1);
		if (r >= 0)
			return r;
		d.arg = -r;
		break;
	}
	case SHARE:
		r = share(a->addr, a->len, &shared);
		d.arg = r < 0 ? -r : 0;
		d.cmd = r < 0 ? 0 : shared.count;
		r = send_message(s, &d, sizeof d, shared.piece, d.cmd * sizeof shared.piece[0],
				 shared.fd, d.cmd);
		for (int i = 0; i < shared.count; i++)
			if (shared.own[i])
				SYS1(close, shared.fd[i]);
		return r;
	default:
		return -EPROTO;
	}
	return send_message(s, &d, sizeof d, 0, 0, 0, 0);
}

struct call { int op, slot; long fd; uint64_t cmd, arg; };

// One call: the request, what the server wants, the answer. KVM_RUN waits with the signals unblocked
// that were, and is taken back by a message on another connection when one of them comes.
static long make_call(const struct call *c)
{
	struct request q = { .op = c->op, .cmd = c->cmd, .arg = c->arg };
	struct answer a;
	struct stat st;
	uint64_t all = ~0ull, before, during;
	uint64_t size = c->op == IOCTL ? c->cmd >> 16 & 0x3fff : 0;
	// Some ioctls read a structure that their numbers promise to write: it goes both ways.
	long in = c->cmd >> 30 ? size : 0, out = c->cmd >> 31 & 1 ? size : 0, r;
	int s, got, running = c->op == IOCTL && c->cmd == KVM_RUN, waiting = running, dead = 0;

	if (c->op == IOCTL) {
		if ((r = SYS2(fstat, c->fd, &st)) < 0)
			return r;
		q.dev = st.st_dev;
		q.ino = st.st_ino;
	}
	if ((s = channel_open(c->slot)) < 0)
		return c->op == OPEN ? -ENOENT : -EIO;
	q.seq = __atomic_add_fetch(&sequence, 1, __ATOMIC_RELAXED);
	q.pid = channels.pid;
	q.tid = SYS0(gettid);
	if (running) {
		SYS4(rt_sigprocmask, 2 /* SIG_SETMASK */, &all, &before, SIGNALS);
		during = before;
		get_mask(q.ino, &during);
	}
	r = send_message(s, &q, sizeof q, (void *)c->arg, in, 0, 0);
	dead = r < 0 && r != -EFAULT;
	while (r >= 0) {
		if (waiting) {
			struct pollfd p = { s, POLLIN, 0 };
			if (SYS5(ppoll, &p, 1, 0, &during, SIGNALS) == -EINTR) {
				cancel(&q);
				waiting = 0;
			}
		}
		r = receive_message(s, &a, sizeof a, (void *)c->arg, out, &got);
		if (r > 0 && a.seq != q.seq)
			continue;
		if (r > 0 && a.op == DONE) {
			r = a.ret;
			break;
		}
		if (r <= 0 || (r = serve(s, &q, &a, got)) < 0) {
			dead = 1;
			break;
		}
	}
	if (running)
		SYS4(rt_sigprocmask, 2, &before, 0, SIGNALS);
	if (dead) {
		channel_drop(c->slot);
		return -EIO;
	}
	if (r == 0 && c->op == IOCTL && c->cmd == KVM_SET_SIGNAL_MASK)
		set_mask(q.ino, c->arg ? (uint64_t *)(c->arg + 4) : 0);
	return r;
}

long armkvm_on_stack(long (*work)(const struct call *), const struct call *c, char *stack);

static long call(int op, long fd, uint64_t cmd, uint64_t arg)
{
	struct call c = { op, channel_claim(), fd, cmd, arg };
	long r = -ENOMEM;
	if (c.slot < 0)
		return c.slot;
	char *stack = channel_stack(c.slot);
	if (stack)
		r = armkvm_on_stack(make_call, &c, stack);
	channel_release(c.slot);
	return r;
}

// -- what a program finds at /dev/kvm -----------------------------------------------------------

static int is_kvm(const char *path)
{
	return (uintptr_t)path >= PAGE && same(path, "/dev/kvm");
}

static long open_kvm(long flags)
{
	long fd = call(OPEN, -1, 0, flags);
	if (fd >= 0 && !(flags & O_CLOEXEC))
		SYS3(fcntl, fd, F_SETFD, 0);
	return fd;
}

static long stat_kvm(struct stat *st)
{
	memset(st, 0, sizeof *st);
	st->st_mode = S_IFCHR | 0666;
	st->st_rdev = 10 << 8 | 232;
	st->st_nlink = 1;
	st->st_blksize = PAGE;
	return 0;
}

struct statx_head { uint32_t mask, blksize; uint64_t attributes; uint32_t nlink, uid, gid;
		    uint16_t mode, pad; uint64_t rest[12]; uint32_t rdev_major, rdev_minor; };

static long statx_kvm(struct statx_head *st)
{
	memset(st, 0, 256);
	st->mask = 0x7ff; // STATX_BASIC_STATS
	st->blksize = PAGE;
	st->nlink = 1;
	st->mode = S_IFCHR | 0666;
	st->rdev_major = 10;
	st->rdev_minor = 232;
	return 0;
}

// -- the hook -----------------------------------------------------------------------------------

#define PR_SET_SECCOMP 22

// x: x0 to x7 of the program. server/program.py has the numbers that come here.
long armkvm_hook(const long *x, long nr)
{
	long r;
	switch (nr) {
	case SYS_openat:
		if (is_kvm((char *)x[1]))
			return open_kvm(x[2]);
		break;
	case SYS_openat2:
		if (is_kvm((char *)x[1]))
			return open_kvm(*(long *)x[2]);
		break;
	case SYS_ioctl:
		if ((x[1] >> 8 & 0xff) == KVMIO)
			return call(IOCTL, (int)x[0], (uint32_t)x[1], x[2]);
		break;
	case SYS_faccessat:
	case SYS_faccessat2:
		if (is_kvm((char *)x[1]))
			return x[2] & 1 ? -EACCES : 0;
		break;
	case SYS_newfstatat:
		if (is_kvm((char *)x[1]))
			return stat_kvm((struct stat *)x[2]);
		break;
	case SYS_statx:
		if (is_kvm((char *)x[1]))
			return statx_kvm((struct statx_head *)x[4]);
		break;
	case SYS_madvise:
		if (x[2] == MADV_DONTNEED || x[2] == MADV_FREE)
			discard(x[0], x[1]);
		break;
	case SYS_munmap:
		r = SYS2(munmap, x[0], x[1]);
		if (r >= 0)
			forget(x[0], x[1]);
		return r;
	case SYS_mmap:
		r = SYS6(mmap, x[0], x[1], x[2], x[3], x[4], x[5]);
		if (r >= 0 || r < -4095)
			forget(r, x[1]);
		return r;
	case SYS_mremap:
		r = SYS5(mremap, x[0], x[1], x[2], x[3], x[4]);
		if (r >= 0 || r < -4095) {
			forget(x[0], x[1]);
			forget(r, x[2]);
		}
		return r;
	case SYS_close:
		if (is_channel(x[0]))
			return -EBADF;
		break;
	case SYS_dup3:
		if (is_channel(x[1]))
			return -EBUSY;
		break;
	case SYS_prctl: // a filter would know nothing of the calls that are made here
		if (x[0] == PR_SET_SECCOMP)
			return 0;
		break;
	case SYS_seccomp:
		return 0;
	case SYS_clone: // of a process: others do not come here
		r = SYS5(clone, x[0], x[1], x[2], x[3], x[4]);
		if (!r)
			keep_apart();
		return r;
	}
	return sys(nr, x[0], x[1], x[2], x[3], x[4], x[5]);
}

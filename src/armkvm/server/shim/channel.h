// Connections to the server: one for each thread that is in a call, kept for the next one, with a
// stack. A program's own may have no more room than a system call needs (a goroutine's has not).
#pragma once

#include "sys.h"
#include "wire.h"

#define CHANNELS 512
#define STACK 0x10000
#define HIGH_FD 960 // out of the way of programs that count on low numbers

static struct {
	int lock, pid;
	int fd[CHANNELS]; // the descriptor and 1; 0 is none
	char *stack[CHANNELS];
	uint8_t busy[CHANNELS];
} channels;

static char server_name[108]; // of sockaddr_un; @ for the abstract namespace
static const char VARIABLE[] = "ARMKVM_SERVER=";

// The variable that names the server, as the program was started.
static int find_server(void)
{
	char block[4096], *to = 0;
	int fd = SYS4(openat, AT_FDCWD, "/proc/self/environ", O_RDONLY | O_CLOEXEC, 0);
	unsigned at = 0, matched = 0, skip = 0;
	long n;
	if (fd < 0)
		return fd;
	while ((n = SYS3(read, fd, block, sizeof block)) > 0)
		for (long i = 0; i < n; i++) {
			char c = block[i];
			if (to) {
				to[at] = at < sizeof server_name - 1 ? c : 0;
				if (!to[at++]) {
					SYS1(close, fd);
					return 0;
				}
			} else if (!c) {
				matched = skip = 0;
			} else if (!skip && c == VARIABLE[matched]) {
				if (!VARIABLE[++matched])
					to = server_name;
			} else {
				skip = 1;
			}
		}
	SYS1(close, fd);
	if (to) {
		to[at] = 0;
		return 0;
	}
	return -ENOENT;
}

static int connect_server(void)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	unsigned n = 0;
	if (!server_name[0] && find_server())
		return -ENOENT;
	for (; server_name[n]; n++)
		to.sun_path[n] = server_name[n];
	if (to.sun_path[0] == '@')
		to.sun_path[0] = 0;
	int s = SYS3(socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (s < 0)
		return s;
	int r = SYS3(connect, s, &to, offsetof(struct sockaddr_un, sun_path) + n);
	int high = r < 0 ? r : (int)SYS3(fcntl, s, F_DUPFD_CLOEXEC, HIGH_FD);
	if (r >= 0 && high < 0)
		return s; // no room up there
	SYS1(close, s);
	return high;
}

// A free place, or -EAGAIN. The child of a fork has no connections: KVM's files are its parent's.
static int channel_claim(void)
{
	int pid = SYS0(getpid), slot = 0;
	lock(&channels.lock);
	if (channels.pid != pid) {
		for (int i = 0; i < CHANNELS; i++) {
			if (channels.pid && channels.fd[i])
				SYS1(close, channels.fd[i] - 1);
			channels.fd[i] = channels.busy[i] = 0;
		}
		channels.pid = pid;
	}
	while (slot < CHANNELS && channels.busy[slot])
		slot++;
	if (slot < CHANNELS)
		channels.busy[slot] = 1;
	unlock(&channels.lock);
	return slot < CHANNELS ? slot : -EAGAIN;
}

// The end of its stack.
static char *channel_stack(int slot)
{
	if (!channels.stack[slot]) {
		long r = SYS6(mmap, 0, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (r < 0 && r > -4096)
			return 0;
		channels.stack[slot] = (char *)r;
	}
	return channels.stack[slot] + STACK;
}

// Its connection, or a negative errno.
static int channel_open(int slot)
{
	if (!channels.fd[slot]) {
		int fd = connect_server();
		if (fd < 0)
			return fd;
		channels.fd[slot] = fd + 1;
	}
	return channels.fd[slot] - 1;
}

static void channel_drop(int slot)
{
	int fd = channels.fd[slot];
	channels.fd[slot] = 0;
	if (fd)
		SYS1(close, fd - 1);
}

static void channel_release(int slot)
{
	__atomic_store_n(&channels.busy[slot], 0, __ATOMIC_RELEASE);
}

// Is a descriptor one of ours? The program must not close it.
static int is_channel(long fd)
{
	if (channels.pid)
		for (int i = 0; i < CHANNELS; i++)
			if (channels.fd[i] == fd + 1 && fd >= 0)
				return 1;
	return 0;
}

struct control {
	size_t len;
	int level, type;
	int fd[PIECES];
};

static long send_message(int s, const void *head, long size, const void *data, long length,
			 const int *fds, int count)
{
	struct iovec parts[2] = { { (void *)head, size }, { (void *)data, length } };
	struct control c = { 16 + 4 * count, SOL_SOCKET, SCM_RIGHTS, { 0 } };
	struct { void *name; int namelen; struct iovec *iov; size_t iovlen; void *control;
		 size_t controllen; int flags; } m = { 0, 0, parts, length ? 2 : 1, 0, 0, 0 };
	if (count) {
		for (int i = 0; i < count; i++)
			c.fd[i] = fds[i];
		m.control = &c;
		m.controllen = 16 + ((4 * count + 7) & ~7);
	}
	return SYS3(sendmsg, s, &m, MSG_NOSIGNAL);
}

static long receive_message(int s, void *head, long size, void *data, long length, int *fd)
{
	struct iovec parts[2] = { { head, size }, { data, length } };
	struct control c = { 0 };
	struct { void *name; int namelen; struct iovec *iov; size_t iovlen; void *control;
		 size_t controllen; int flags; }
		m = { 0, 0, parts, length ? 2 : 1, &c, sizeof c, 0 };
	long n;
	*fd = -1;
	do
		n = SYS3(recvmsg, s, &m, MSG_CMSG_CLOEXEC);
	while (n == -EINTR);
	if (n > 0 && m.controllen >= 20 && c.len >= 20 && c.type == SCM_RIGHTS)
		*fd = c.fd[0];
	return n;
}

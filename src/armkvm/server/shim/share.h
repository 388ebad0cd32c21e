// The program's memory, shared with the server: guest RAM is the program's own pages.
//
// A shared mapping of a file is shared as it is. Anything else is copied, as far as it was touched,
// into a memfd that is mapped over it. What the program then does with it must not show: a page that
// it discards reads zero again, and the child of a fork has a copy of its own.
#pragma once

#include "sys.h"
#include "wire.h"

#define RANGES 4096
#define PAGE 4096ul

static struct range { uint64_t addr, len; int fd; uint64_t off; } ranges[RANGES];
static int ranges_lock, ranges_used;

struct mapping { uint64_t from, to, off, ino, dev; int prot, shared; };

// /proc/self/maps, a line at a time.
struct maps { int fd; long have, at; char text[4096]; };

static int next_char(struct maps *m)
{
	if (m->at == m->have) {
		m->have = SYS3(read, m->fd, m->text, sizeof m->text);
		m->at = 0;
		if (m->have <= 0) {
			m->have = 0;
			return -1;
		}
	}
	return m->text[m->at++];
}

static uint64_t number(struct maps *m, int base, int *end)
{
	uint64_t v = 0;
	for (;;) {
		int c = *end = next_char(m);
		if (c >= '0' && c <= '9')
			v = v * base + c - '0';
		else if (base == 16 && c >= 'a' && c <= 'f')
			v = v * base + c - 'a' + 10;
		else
			return v;
	}
}

static int next_mapping(struct maps *m, struct mapping *out)
{
	int c;
	out->from = number(m, 16, &c);
	if (c != '-')
		return 0;
	out->to = number(m, 16, &c);
	out->prot = next_char(m) == 'r' ? PROT_READ : 0;
	out->prot |= next_char(m) == 'w' ? PROT_WRITE : 0;
	out->prot |= next_char(m) == 'x' ? PROT_EXEC : 0;
	out->shared = next_char(m) == 's';
	next_char(m);
	out->off = number(m, 16, &c);
	uint64_t major = number(m, 16, &c), minor = number(m, 16, &c);
	out->dev = (minor & 0xff) | major << 8 | (minor & ~0xffull) << 12;
	out->ino = number(m, 10, &c);
	while (c != '\n' && c != -1)
		c = next_char(m);
	return 1;
}

// A descriptor of the program for the file of a shared mapping.
static int descriptor_of(const struct mapping *m)
{
	struct stat st;
	for (int i = 0; i < 65536; i++) {
		long r = SYS2(fstat, i, &st);
		if (!r && st.st_ino == m->ino && st.st_dev == m->dev && S_ISREG(st.st_mode))
			return i;
		if (r && i > 4096)
			break;
	}
	return -1;
}

// Forget what is known of a range of addresses that the program maps anew or gives up.
static void forget(uint64_t addr, uint64_t len)
{
	if (!ranges_used)
		return;
	lock(&ranges_lock);
	for (int i = 0; i < ranges_used; i++) {
		struct range *r = &ranges[i];
		uint64_t end = r->addr + r->len, cut = addr + len;
		if (!r->len || cut <= r->addr || addr >= end)
			continue;
		if (addr > r->addr && cut < end && ranges_used < RANGES) { // in the middle: two are left
			int fd = SYS3(fcntl, r->fd, F_DUPFD_CLOEXEC, HIGH_FD);
			ranges[ranges_used++] =
				(struct range){ cut, end - cut, fd, r->off + (cut - r->addr) };
			r->len = addr - r->addr;
		} else if (addr > r->addr) {
			r->len = addr - r->addr;
		} else if (cut < end) {
			r->off += cut - r->addr;
			r->len = end - cut;
			r->addr = cut;
		} else {
			SYS1(close, r->fd);
			r->len = 0;
		}
	}
	unlock(&ranges_lock);
}

static void remember(uint64_t addr, uint64_t len, int fd)
{
	int high = SYS3(fcntl, fd, F_DUPFD_CLOEXEC, HIGH_FD);
	lock(&ranges_lock);
	int i = 0;
	while (i < ranges_used && ranges[i].len)
		i++;
	if (i < RANGES && high >= 0) {
		ranges[i] = (struct range){ addr, len, high, 0 };
		if (i == ranges_used)
			ranges_used++;
	}
	unlock(&ranges_lock);
}

// MADV_DONTNEED and MADV_FREE of private memory: it reads zero afterwards.
static void discard(uint64_t addr, uint64_t len)
{
	if (!ranges_used)
		return;
	lock(&ranges_lock);
	for (int i = 0; i < ranges_used; i++) {
		struct range *r = &ranges[i];
		uint64_t from = r->addr > addr ? r->addr : addr;
		uint64_t to = r->addr + r->len < addr + len ? r->addr + r->len : addr + len;
		if (r->len && from < to)
			SYS4(fallocate, r->fd, 3 /* PUNCH_HOLE | KEEP_SIZE */, r->off + (from - r->addr),
			     to - from);
	}
	unlock(&ranges_lock);
}

// In the child of a fork: what was private before it was shared with the server is private again.
static void keep_apart(void)
{
	for (int i = 0; i < ranges_used; i++) {
		struct range *r = &ranges[i];
		if (!r->len)
			continue;
		SYS6(mmap, r->addr, r->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, r->fd, r->off);
		SYS1(close, r->fd);
	}
	ranges_used = ranges_lock = 0;
}

// A memfd with what the program has in these pages, mapped over them.
static int convert(uint64_t addr, uint64_t len, int prot)
{
	unsigned char there[512];
	int fd = SYS2(memfd_create, "armkvm", MFD_CLOEXEC);
	if (fd < 0)
		return fd;
	long r = SYS2(ftruncate, fd, len);
	if (!(prot & PROT_READ))
		SYS3(mprotect, addr, len, PROT_READ);
	for (uint64_t at = 0; r >= 0 && at < len; at += sizeof there * PAGE) {
		uint64_t size = len - at < sizeof there * PAGE ? len - at : sizeof there * PAGE;
		int unknown = SYS3(mincore, addr + at, size, there) < 0;
		for (uint64_t page = 0; r >= 0 && page * PAGE < size; page++)
			if (unknown || there[page] & 1) {
				uint64_t off = at + page * PAGE;
				r = SYS4(pwrite64, fd, addr + off, PAGE, off);
			}
	}
	if (r >= 0)
		r = SYS6(mmap, addr, len, prot, MAP_SHARED | MAP_FIXED, fd, 0);
	if (r < 0) {
		SYS1(close, fd);
		return r;
	}
	remember(addr, len, fd);
	return fd;
}

struct shared { struct piece piece[PIECES]; int fd[PIECES], own[PIECES], count; };

// Share [addr, addr + len), or as much of it from its beginning as one message holds.
static int share(uint64_t addr, uint64_t len, struct shared *out)
{
	struct mapping found[PIECES], m;
	struct maps maps = { .fd = SYS4(openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0) };
	int n = 0;
	out->count = 0;
	if (maps.fd < 0)
		return maps.fd;
	while (n < PIECES && next_mapping(&maps, &m)) {
		if (m.to <= addr || m.from >= addr + len)
			continue;
		if (m.from < addr) {
			m.off += addr - m.from;
			m.from = addr;
		}
		if (m.to > addr + len)
			m.to = addr + len;
		struct mapping *last = n ? &found[n - 1] : 0;
		if (last && !m.shared && !last->shared && last->to == m.from && last->prot == m.prot)
			last->to = m.to;
		else
			found[n++] = m;
	}
	SYS1(close, maps.fd);
	for (int i = 0; i < n; i++) {
		int fd = found[i].shared ? descriptor_of(&found[i]) : -1, own = fd < 0;
		if (own) {
			fd = convert(found[i].from, found[i].to - found[i].from, found[i].prot);
			found[i].off = 0;
		}
		if (fd < 0)
			return fd;
		out->piece[i] =
			(struct piece){ found[i].from, found[i].to - found[i].from, found[i].off };
		out->fd[i] = fd;
		out->own[i] = own;
		out->count++;
	}
	return 0;
}

// System calls without a libc: the shim lives in programs that have any libc, or none.
#pragma once

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

static inline long sys(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 asm("x8") = nr, x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c;
	register long x3 asm("x3") = d, x4 asm("x4") = e, x5 asm("x5") = f;
	asm volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
		     : "memory", "cc");
	return x0;
}

#define L(x) ((long)(x))
#define SYS0(name) sys(SYS_##name, 0, 0, 0, 0, 0, 0)
#define SYS1(name, a) sys(SYS_##name, L(a), 0, 0, 0, 0, 0)
#define SYS2(name, a, b) sys(SYS_##name, L(a), L(b), 0, 0, 0, 0)
#define SYS3(name, a, b, c) sys(SYS_##name, L(a), L(b), L(c), 0, 0, 0)
#define SYS4(name, a, b, c, d) sys(SYS_##name, L(a), L(b), L(c), L(d), 0, 0)
#define SYS5(name, a, b, c, d, e) sys(SYS_##name, L(a), L(b), L(c), L(d), L(e), 0)
#define SYS6(name, a, b, c, d, e, f) sys(SYS_##name, L(a), L(b), L(c), L(d), L(e), L(f))

#define SIGNALS 8 // bytes of the kernel's sigset_t

void *memset(void *to, int byte, size_t n)
{
	for (char *p = to; n--;)
		*p++ = byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	const char *q = from;
	for (char *p = to; n--;)
		*p++ = *q++;
	return to;
}

static int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

// A lock for what is held a few instructions long, or while a socket is made.
static void lock(int *l)
{
	while (__atomic_exchange_n(l, 1, __ATOMIC_ACQUIRE))
		SYS0(sched_yield);
}

static void unlock(int *l)
{
	__atomic_store_n(l, 0, __ATOMIC_RELEASE);
}

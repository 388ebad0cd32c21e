// A client of /dev/kvm that knows nothing of armkvm. The argument says what it does; it prints what
// came of it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define RAM 0x40000000ul
#define DEVICE 0x10000000ul
#define SIZE 0x10000ul
#define CORE(member)                                                                               \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE |                                     \
	 offsetof(struct kvm_regs, member) / 4)
#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			printf("line %d: %s: %s\n", __LINE__, #x, strerror(errno));                \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static int kvm, vm;
static uint32_t *ram;

// ldr w0, [x2]; str w0, [x1]; add w0, w0, #1; str w0, [x2]; b . - 16
static const uint32_t counts[] = { 0xb9400040, 0xb9000020, 0x11000400, 0xb9000040, 0x17fffffc };
// b .
static const uint32_t spins[] = { 0x14000000 };

struct vcpu {
	int fd;
	struct kvm_run *run;
};

static void set(struct vcpu *v, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { id, (uintptr_t)&value };
	CHECK(!ioctl(v->fd, KVM_SET_ONE_REG, &reg));
}

static void make_vm(const uint32_t *code, size_t size)
{
	CHECK((kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)) >= 0);
	CHECK(ioctl(kvm, KVM_GET_API_VERSION, 0) == 12);
	CHECK((vm = ioctl(kvm, KVM_CREATE_VM, 0)) >= 0);
	ram = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(ram != MAP_FAILED);
	memcpy(ram, code, size);
	struct kvm_userspace_memory_region slot = { 0, 0, RAM, SIZE, (uintptr_t)ram };
	CHECK(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
}

static struct vcpu make_vcpu(int id)
{
	struct vcpu v;
	struct kvm_vcpu_init init;
	CHECK((v.fd = ioctl(vm, KVM_CREATE_VCPU, id)) >= 0);
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	v.run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, v.fd, 0);
	CHECK(v.run != MAP_FAILED);
	CHECK(!ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init));
	memset(init.features, 0, sizeof init.features);
	init.features[0] = 1 << KVM_ARM_VCPU_PSCI_0_2;
	CHECK(!ioctl(v.fd, KVM_ARM_VCPU_INIT, &init));
	set(&v, CORE(regs.pc), RAM);
	set(&v, CORE(regs.regs[1]), DEVICE);
	set(&v, CORE(regs.regs[2]), RAM + 0x1000 * (id + 1));
	return v;
}

static uint32_t value(struct vcpu *v)
{
	uint32_t x;
	CHECK(v->run->exit_reason == KVM_EXIT_MMIO && v->run->mmio.is_write && v->run->mmio.len == 4);
	memcpy(&x, v->run->mmio.data, 4);
	return x;
}

static uint32_t next(struct vcpu *v)
{
	CHECK(!ioctl(v->fd, KVM_RUN, 0));
	return value(v);
}

static void counting(void)
{
	make_vm(counts, sizeof counts);
	struct vcpu v = make_vcpu(0);
	ram[0x400] = 40;
	uint32_t a = next(&v), b = next(&v);
	uint32_t seen = ram[0x400]; // the pages are the same ones
	v.run->immediate_exit = 1;
	CHECK(ioctl(v.fd, KVM_RUN, 0) == -1 && errno == EINTR); // the store has been done
	v.run->immediate_exit = 0;
	set(&v, CORE(regs.regs[0]), 99);
	printf("%u %u, %u in memory, then %u\n", a, b, seen, next(&v));
}

static volatile int rang;

static void ring(int number)
{
	rang = number;
}

static void alarm_in(int ms)
{
	struct itimerval t = { { 0, 0 }, { 0, ms * 1000 } };
	struct sigaction act = { .sa_handler = ring };
	sigaction(SIGALRM, &act, 0);
	setitimer(ITIMER_REAL, &t, 0);
}

static void alarmed(void)
{
	make_vm(spins, sizeof spins);
	struct vcpu v = make_vcpu(0);
	alarm_in(50);
	int r = ioctl(v.fd, KVM_RUN, 0);
	printf("%d %s, handler %s, exit %s\n", r, strerrorname_np(errno), rang ? "ran" : "did not run",
	       v.run->exit_reason == KVM_EXIT_INTR ? "INTR" : "other");
	memcpy(ram, counts, sizeof counts);
	struct kvm_guest_debug debug = { 0 }; // code has changed without a word
	CHECK(!ioctl(v.fd, KVM_SET_GUEST_DEBUG, &debug));
	printf("and then %u\n", next(&v));
}

static void masked(void)
{
	make_vm(spins, sizeof spins);
	struct vcpu v = make_vcpu(0);
	sigset_t blocked, pending;
	struct { uint32_t len; uint8_t set[8]; } mask = { 8, { 0 } };
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGALRM);
	sigprocmask(SIG_BLOCK, &blocked, 0);
	CHECK(!ioctl(v.fd, KVM_SET_SIGNAL_MASK, &mask)); // KVM_RUN blocks nothing
	alarm_in(50);
	int r = ioctl(v.fd, KVM_RUN, 0), e = errno;
	sigpending(&pending);
	printf("%d %s, handler %s, %s\n", r, strerrorname_np(e), rang ? "ran" : "did not run",
	       sigismember(&pending, SIGALRM) ? "pending" : "not pending");
}

static void forked(void)
{
	make_vm(counts, sizeof counts);
	struct vcpu v = make_vcpu(0);
	ram[0x400] = 7;
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		int r = ioctl(v.fd, KVM_RUN, 0), e = errno;
		printf("child: %d %s, memory %u\n", r, strerrorname_np(e), ram[0x400]);
		ram[0x400] = 1000;
		int own = open("/dev/kvm", O_RDWR);
		printf("child: its own /dev/kvm says %d\n", ioctl(own, KVM_GET_API_VERSION, 0));
		exit(0);
	}
	waitpid(child, 0, 0);
	printf("parent: %u\n", next(&v));
}

static void discarded(void)
{
	make_vm(counts, sizeof counts);
	struct vcpu v = make_vcpu(0);
	ram[0x400] = 7;
	uint32_t a = next(&v);
	CHECK(!madvise(ram + 0x400, 0x1000, MADV_DONTNEED));
	printf("%u, discarded %u", a, ram[0x400]);
	uint32_t b = next(&v);
	next(&v);
	printf(", guest %u\n", b);
}

static void *many_exits(void *arg)
{
	struct vcpu *v = arg;
	for (uint32_t i = 0; i < 500; i++)
		CHECK(next(v) == i);
	return 0;
}

static void threaded(void)
{
	pthread_t threads[4];
	struct vcpu vcpus[4];
	make_vm(counts, sizeof counts);
	for (int i = 0; i < 4; i++)
		vcpus[i] = make_vcpu(i);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], 0, many_exits, &vcpus[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], 0);
	printf("%u %u %u %u\n", ram[0x400], ram[0x800], ram[0xc00], ram[0x1000]);
}

static void found(void)
{
	struct stat st;
	CHECK(!stat("/dev/kvm", &st));
	printf("%s %u:%u", S_ISCHR(st.st_mode) ? "a device" : "something", (unsigned)st.st_rdev >> 8,
	       (unsigned)st.st_rdev & 255);
	printf(", access %d", access("/dev/kvm", R_OK | W_OK));
	int a = open("/dev/kvm", O_RDWR), b = openat(AT_FDCWD, "/dev/kvm", O_RDWR | O_CLOEXEC);
	printf(", cloexec %d %d\n", fcntl(a, F_GETFD) & FD_CLOEXEC, fcntl(b, F_GETFD) & FD_CLOEXEC);
	for (int i = 3; i < 2000; i++)
		close(i); // as daemons do
	printf("again %d\n", ioctl(open("/dev/kvm", O_RDWR), KVM_GET_API_VERSION, 0));
}

static void in_pieces(void)
{
	make_vm(counts, sizeof counts);
	char *area = mmap(0, 400 * 0x1000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 200; i++) // every other page is writable: two mappings each
		CHECK(!mprotect(area + 0x2000 * i, 0x1000, PROT_READ | PROT_WRITE));
	for (int i = 0; i < 400; i += 2)
		*(uint32_t *)(area + 0x1000 * i) = i;
	struct kvm_userspace_memory_region slot = { 1, 0, 2 * RAM, 400 * 0x1000, (uintptr_t)area };
	CHECK(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot));
	struct vcpu v = make_vcpu(0);
	set(&v, CORE(regs.regs[2]), 2 * RAM + 398 * 0x1000);
	uint32_t a = next(&v);
	set(&v, CORE(regs.regs[2]), 2 * RAM + 200 * 0x1000);
	printf("%u %u %u\n", a, next(&v), next(&v));
}

static void signalled(void)
{
	make_vm(counts, sizeof counts);
	struct vcpu v = make_vcpu(0);
	int fd = eventfd(0, 0);
	struct kvm_ioeventfd io = { .addr = DEVICE, .len = 4, .fd = fd };
	CHECK(!ioctl(vm, KVM_IOEVENTFD, &io));
	alarm_in(50);
	int r = ioctl(v.fd, KVM_RUN, 0); // all its stores go to the eventfd
	uint64_t times;
	CHECK(read(fd, &times, 8) == 8);
	printf("%d, signalled %s\n", r, times > 100 ? "often" : "seldom");
}

// _IOR, and yet the kernel reads the structure.
static void masks(void)
{
	make_vm(counts, sizeof counts);
	uint64_t words[192] = { 0 };
	struct { uint64_t addr; uint32_t range, reserved[13]; } range = { (uintptr_t)words, 0, { 0 } };
	int r = ioctl(vm, _IOR(KVMIO, 0xb6, range), &range), any = 0;
	for (int i = 0; i < 192; i++)
		any |= words[i] != 0;
	printf("%d, %s\n", r, any ? "masks" : "nothing");
}

static const struct { const char *name; void (*what)(void); } cases[] = {
	{ "counting", counting }, { "alarmed", alarmed }, { "masked", masked },
	{ "forked", forked }, { "discarded", discarded }, { "threaded", threaded },
	{ "found", found }, { "in_pieces", in_pieces }, { "signalled", signalled },
	{ "masks", masks },
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "exit"))
		return atoi(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "kill"))
		return raise(atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "cat")) {
		char line[256];
		while (fgets(line, sizeof line, stdin))
			printf("<%s>", strtok(line, "\n"));
		return 0;
	}
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (argc == 2 && !strcmp(argv[1], cases[i].name)) {
			cases[i].what();
			return 0;
		}
	return 2;
}

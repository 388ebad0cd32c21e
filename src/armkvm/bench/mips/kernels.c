/* Six small programs that stress different things: straight-line arithmetic, byte stores, calls,
 * data-dependent branches, table look-ups, unpredictable loops. Each returns a number that depends
 * on all it did. Freestanding; integer registers only. */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

enum { SIEVE = 1 << 16, SORTED = 4096, MESSAGE = 8192 };

static u8 composite[SIEVE];
static u32 keys[SORTED];
static u32 crc_of_byte[256];
static u8 message[MESSAGE];

/* Marsaglia's 64-bit xorshift. */
static u64 xorshift(u64 count) {
    u64 state = 0x9e3779b97f4a7c15UL, sum = 0;
    while (count--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sum += state >> 56;
    }
    return state + sum;
}

static u64 sieve(u64 count) {
    u64 primes = 0;
    while (count--) {
        for (u32 i = 0; i < SIEVE; i++)
            composite[i] = i < 2;
        for (u32 i = 2; i * i < SIEVE; i++)
            if (!composite[i])
                for (u32 multiple = i * i; multiple < SIEVE; multiple += i)
                    composite[multiple] = 1;
        for (u32 i = 0; i < SIEVE; i++)
            primes += !composite[i];
    }
    return primes;
}

/* By recursion on purpose; count is the index. */
static __attribute__((noinline)) u64 fib(u64 index) {
    return index < 2 ? index : fib(index - 1) + fib(index - 2);
}

static __attribute__((noinline)) void quicksort(u32 *first, u32 *last) {
    while (first < last) {
        u32 pivot = first[(last - first) / 2], *low = first, *high = last;
        while (low <= high) {
            while (*low < pivot)
                low++;
            while (*high > pivot)
                high--;
            if (low <= high) {
                u32 moved = *low;
                *low++ = *high;
                *high-- = moved;
            }
        }
        quicksort(first, high);
        first = low;
    }
}

static u64 sort(u64 count) {
    u64 hash = 0;
    u32 seed = 2463534242u;
    while (count--) {
        for (u32 i = 0; i < SORTED; i++)
            keys[i] = seed = seed * 1664525u + 1013904223u;
        quicksort(keys, keys + SORTED - 1);
        for (u32 i = 0; i < SORTED; i += 64)
            hash = hash * 31 + keys[i];
    }
    return hash;
}

/* The reflected CRC-32 of IEEE 802.3, a byte at a time. */
static u64 crc32(u64 count) {
    for (u32 byte = 0; byte < 256; byte++) {
        u32 crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        crc_of_byte[byte] = crc;
    }
    for (u32 i = 0; i < MESSAGE; i++)
        message[i] = i * 7 + (i >> 5);
    u32 crc = ~0u;
    while (count--)
        for (u32 i = 0; i < MESSAGE; i++)
            crc = crc_of_byte[(crc ^ message[i]) & 0xff] ^ crc >> 8;
    return ~crc;
}

/* The longest way to 1 from a number up to count. */
static u64 collatz(u64 count) {
    u64 longest = 0;
    for (u64 start = 1; start <= count; start++) {
        u64 steps = 0;
        for (u64 value = start; value != 1; steps++)
            value = value & 1 ? 3 * value + 1 : value / 2;
        if (steps > longest)
            longest = steps;
    }
    return longest;
}

u64 bench(u64 select, u64 count) {
    switch (select) {
    case 1: return xorshift(count);
    case 2: return sieve(count);
    case 3: return fib(count);
    case 4: return sort(count);
    case 5: return crc32(count);
    case 6: return collatz(count);
    default: return ~0UL;
    }
}

// What client and server say to each other, one message a packet. server/wire.py is the other end.
#pragma once

#include <stdint.h>

// The client asks.
enum { OPEN = 1, IOCTL = 2, CANCEL = 3, REPLY = 4 };

struct request {
	uint32_t op, seq;
	uint64_t dev, ino; // of the descriptor: what it stands for
	uint64_t cmd, arg; // REPLY: a count, and an errno or 0
	uint32_t pid, tid;
}; // the structure of an ioctl follows

// The server answers with DONE; before that it may want something of the client, who sends a REPLY.
enum { DONE = 1, READ = 2, WRITE = 3, TAKE = 4, SHARE = 5, INSTALL = 6 };

struct answer {
	uint32_t op, seq;
	int64_t ret;
	uint64_t addr, len;
}; // the structure of an ioctl that returns one follows

// SHARE's reply: pieces of the client's memory, and as many descriptors to map them from.
struct piece {
	uint64_t addr, len, off;
};

#define PIECES 64 // in one reply; the server asks on from where the last one ended

"""KVM for programs in other processes.

A program that was never written for armkvm opens /dev/kvm and is served from here: its system calls
go through a shim (`shim/`, put into the program by `program`), which makes a message (`wire`) of
each that concerns KVM. A `Connection` is one thread of the program, in the middle of at most one
ioctl; `registry` knows what the program's descriptors stand for; `server` listens.
"""

// The third CPU for tests/oracle/operands.py: qemu-aarch64 runs this. Reads, until the input ends:
// a u64 count, 32 words of code, count tuples of 64 bytes. Calls the code with X20 the tuples, X21
// room for count results of 32 bytes, X22 the count; writes the results.
        .equ    READ, 63
        .equ    WRITE, 64
        .equ    EXIT, 93
        .equ    MMAP, 222
        .equ    CODE, 4 * 32
        .equ    MOST, 1 << 17                   // tuples

        .global _start
_start: mov     x0, #0
        ldr     x1, =CODE + MOST * 96 + 8
        mov     x2, #7                          // PROT_READ | PROT_WRITE | PROT_EXEC
        mov     x3, #0x22                       // MAP_PRIVATE | MAP_ANONYMOUS
        mov     x4, #-1
        mov     x5, #0
        mov     x8, #MMAP
        svc     #0
        mov     x19, x0                         // code, count, tuples, results

again:  add     x1, x19, #CODE
        mov     x2, #8
        bl      get
        ldr     x22, [x19, #CODE]
        mov     x1, x19
        mov     x2, #CODE
        bl      get
        add     x20, x19, #CODE + 8
        mov     x1, x20
        lsl     x2, x22, #6
        bl      get
        add     x21, x20, x22, lsl #6
        mov     x23, x21
        lsl     x24, x22, #5
        mov     x9, x19                         // new code: no line of it may be stale
0:      dc      cvau, x9
        ic      ivau, x9
        add     x9, x9, #16
        cmp     x9, x20
        b.lo    0b
        dsb     ish
        isb
        blr     x19
        msr     fpcr, xzr
1:      mov     x0, #1
        mov     x1, x23
        mov     x2, x24
        mov     x8, #WRITE
        svc     #0
        cmp     x0, #0
        b.le    end
        add     x23, x23, x0
        subs    x24, x24, x0
        b.ne    1b
        b       again

get:    mov     x0, #0                          // X2 bytes to X1, or the end
        mov     x8, #READ
        svc     #0
        cmp     x0, #0
        b.le    end
        add     x1, x1, x0
        subs    x2, x2, x0
        b.ne    get
        ret

end:    mov     x0, #0
        mov     x8, #EXIT
        svc     #0

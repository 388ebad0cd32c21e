// Guests that leave for user space by one access or one call each.
//
// A load pair and a load with write-back have no valid syndrome (ESR_ELx.ISV, Arm ARM D17.2.37): the
// hypervisor does not know which register they want. 0x20000000 is no memory and no device.

        .include "macros.inc"

        guest   bare
        finish

        guest   mmio_rd
        ldr     w9, [x10, #0x40]
        str     w9, [x10, #0x48]
        ldrb    w9, [x10, #0x41]
        str     w9, [x10, #0x48]
        ldrsh   x9, [x10, #0x42]
        str     x9, [x10, #0x48]
        ldr     x9, [x10, #0x50]
        str     x9, [x10, #0x48]
        strb    w9, [x10, #0x43]
        strh    w9, [x10, #0x44]
        finish

        guest   ldp
        check   1
        ldp     x0, x1, [x10, #0x40]
        check   2
        finish

        guest   postidx
        check   1
        add     x1, x10, #0x60
        ldr     w0, [x1], #4
        check   2
        finish

        guest   badfetch
        check   1
        mov     x0, #0x20000000
        br      x0

        guest   psci_ver
        mov     x0, #0x84000000         // PSCI_VERSION
        hvc     #0
        str     x0, [x10, #0x70]
        mov     x0, #0x84000000
        smc     #0
        str     x0, [x10, #0x78]
        finish

        guest   psci_off
        psci    0x8400, 8               // SYSTEM_OFF
        finish

        guest   psci_reset
        psci    0x8400, 9               // SYSTEM_RESET
        finish

        guest   cpu_off
        check   1
        psci    0x8400, 2               // CPU_OFF
        finish

        guest   gicread
        mov     x0, #0x08000000         // where a GICv2's distributor would be
        ldr     w1, [x0, #4]
        str     w1, [x10, #0x48]
        mrs     x1, s3_0_c12_c12_5      // ICC_SRE_EL1
        str     x1, [x10, #0x48]
        finish

// Guests that take the virtual timer's interrupt from a vgic: PPI 27, group 0 of a GICv2, group 1 of a
// GICv3 (IHI 0048B 4.3, IHI 0069H 12.9). Interrupts stay masked at the CPU: WFI completes all the
// same, and what is then read as the acknowledged interrupt goes to IO+0x28 (1023: there is none).

        .include "macros.inc"

// 20 ms ahead; wait, acknowledge with what the macro's user puts between the two.
        .macro  sleeps
        expires_in 20, v, cntvct_el0
        control v, 1
        wfi
        check   2
        show    v, 8
        .endm

        .macro  acknowledged            // in x1
        str     w1, [x10, #0x28]
        finish
        .endm

        guest   vgic_v2
        check   1
        mov     x0, #0x08000000         // distributor
        mov     w1, #1
        str     w1, [x0]                // GICD_CTLR
        mov     w1, #1 << 27
        str     w1, [x0, #0x100]        // GICD_ISENABLER0
        add     x2, x0, #0x10000        // CPU interface
        mov     w1, #0xff
        str     w1, [x2, #4]            // GICC_PMR
        mov     w1, #1
        str     w1, [x2]                // GICC_CTLR
        sleeps
        ldr     w1, [x2, #0xc]          // GICC_IAR
        acknowledged

        guest   vgic_v3
        check   1
        mov     x0, #0x08000000         // distributor
        mov     w1, #0x12
        str     w1, [x0]                // GICD_CTLR: ARE, group 1
        add     x2, x0, #0xb0000        // the redistributor's second frame
        mov     w1, #1 << 27
        str     w1, [x2, #0x100]        // GICR_ISENABLER0
        mov     x1, #0xff
        msr     s3_0_c4_c6_0, x1        // ICC_PMR_EL1
        mov     x1, #1
        msr     s3_0_c12_c12_7, x1      // ICC_IGRPEN1_EL1
        isb
        sleeps
        mrs     x1, s3_0_c12_c12_0      // ICC_IAR1_EL1
        acknowledged

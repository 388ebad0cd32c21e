"""Assembly of loads and stores, against words assembled by binutils; and what is UNDEFINED."""

import pytest

from armkvm.isa.disasm import decode, disassemble

WORDS = """
b90ffc41 str w1, [x2, #4092]
f97ffffe ldr x30, [sp, #32760]
3940001f ldrb wzr, [x0]
39801c83 ldrsb x3, [x4, #7]
79c01c83 ldrsh w3, [x4, #14]
b9bffc83 ldrsw x3, [x4, #16380]
785000c5 ldurh w5, [x6, #-256]
380ff3e5 sturb w5, [sp, #255]
b89fd107 ldursw x7, [x8, #-3]
f8408949 ldtr x9, [x10, #8]
78000949 sttrh w9, [x10]
38dff98b ldtrsb w11, [x12, #-1]
f81f0420 str x0, [x1], #-16
78402fe0 ldrh w0, [sp, #2]!
f8636841 ldr x1, [x2, x3]
f8637841 ldr x1, [x2, x3, lsl #3]
38234841 strb w1, [x2, w3, uxtw]
b8a3dbe1 ldrsw x1, [sp, w3, sxtw #2]
b863e841 ldr w1, [x2, x3, sxtx]
f9800420 prfm pldl1keep, [x1, #8]
f8a27835 prfm pstl3strm, [x1, x2, lsl #3]
f89f8026 prfum #0x06, [x1, #-8]
a8c27bfd ldp x29, x30, [sp], #32
29207c41 stp w1, wzr, [x2, #-256]
69c08861 ldpsw x1, x2, [x3, #4]!
a85f8861 ldnp x1, x2, [x3, #504]
ac200861 stnp q1, q2, [x3, #-1024]
2d408861 ldp s1, s2, [x3, #4]
6dbf27e8 stp d8, d9, [sp, #-16]!
c8017fe2 stxr w1, x2, [sp]
0801fc62 stlxrb w1, w2, [x3]
c85ffc41 ldaxr x1, [x2]
485f7c41 ldxrh w1, [x2]
887f0861 ldxp w1, w2, [x3]
c8218c82 stlxp w1, x2, x3, [x4]
88dffc41 ldar w1, [x2]
489ffc41 stlrh w1, [x2]
b8210062 ldadd w1, w2, [x3]
f8e113e2 ldclral x1, x2, [sp]
38a12062 ldeorab w1, w2, [x3]
78613062 ldsetlh w1, w2, [x3]
f8214062 ldsmax x1, x2, [x3]
f861007f staddl x1, [x3]
f8a1007f ldadda x1, xzr, [x3]
f8e1807f swpal x1, xzr, [x3]
88a17c62 cas w1, w2, [x3]
08e1fc62 casalb w1, w2, [x3]
48627cc4 caspa x2, x3, x4, x5, [x6]
083e7fe4 casp w30, wzr, w4, w5, [sp]
3d7ffc41 ldr b1, [x2, #4095]
7d000441 str h1, [x2, #2]
3dfffc41 ldr q1, [x2, #65520]
bc5ff041 ldur s1, [x2, #-1]
fc001041 stur d1, [x2, #1]
3cdf0483 ldr q3, [x4], #-16
fc008c83 str d3, [x4, #8]!
3ce57883 ldr q3, [x4, x5, lsl #4]
3c65d883 ldr b3, [x4, w5, sxtw #0]
7c256883 str h3, [x4, x5]
4c40a3ff ld1 {v31.16b, v0.16b}, [sp]
0c9f2c01 st1 {v1.1d-v4.1d}, [x0], #32
0cc17801 ld1 {v1.2s}, [x0], x1
4c408401 ld2 {v1.8h, v2.8h}, [x0]
0c9f4401 st3 {v1.4h-v3.4h}, [x0], #24
4cc50c01 ld4 {v1.2d-v4.2d}, [x0], x5
4d401c01 ld1 {v1.b}[15], [x0]
4d9f4801 st1 {v1.h}[5], [x0], #2
4de39001 ld2 {v1.s, v2.s}[3], [x0], x3
4d00a401 st3 {v1.d-v3.d}[1], [x0]
4dff241e ld4 {v30.b, v31.b, v0.b, v1.b}[9], [x0], #4
0d40cc01 ld1r {v1.1d}, [x0]
4dffe801 ld4r {v1.4s-v4.4s}, [x0], #16
4de2c001 ld2r {v1.16b, v2.16b}, [x0], x2
18000041 ldr w1, 0x1008
58ffffe1 ldr x1, 0xffc
987fffe1 ldrsw x1, 0x100ffc
9c000081 ldr q1, 0x1010
d8000020 prfm pldl1keep, 0x1004
"""


@pytest.mark.parametrize("line", WORDS.strip().splitlines())
def test_assembly(line: str) -> None:
    word, _, text = line.partition(" ")
    assert disassemble(int(word, 16), pc=0x1000) == text


UNDEFINED = {
    0xF8C00820: "LDTRSW's place with size 3",
    0xB8C00020: "LDURSW to a W register",
    0xF8800420: "PRFM with post-index",
    0x7C800420: "a SIMD&FP size past Q",
    0x3C000820: "an unprivileged SIMD&FP store",
    0xF8630841: "register offset with option 0",
    0x68400420: "LDNPSW",
    0x69000420: "STGP",
    0xE9400420: "LDP with opc 3",
    0xEC400420: "LDNP of SIMD&FP registers with opc 3",
    0xDC000020: "LDR (literal) of SIMD&FP registers with opc 3",
    0x48637CC4: "CASP with odd Rs",
    0x48627CC5: "CASP with odd Rt",
    0x88A17862: "CAS with Rt2 not 31",
    0x889F7C20: "STLLR, of FEAT_LOR",
    0x88DF7C20: "LDLAR, of FEAT_LOR",
    0xB8BFC020: "LDAPR, of FEAT_LRCPC",
    0xF8209020: "an atomic operation past SWP",
    0xF8200420: "LDRAA, of pointer authentication",
    0x0C400C20: "LD4 {.1d}",
    0x0C401020: "a multiple-structure opcode that is not there",
    0x0C410020: "LD4 without post-index and with Rm",
    0x0D404420: "LD1 {.h} with size<0> set",
    0x0D409420: "LD1 {.d} with S set",
    0x0D00C020: "ST1R",
    0x0D40D020: "LD1R with S set",
}


@pytest.mark.parametrize("word", UNDEFINED, ids=UNDEFINED.__getitem__)
def test_undefined(word: int) -> None:
    assert decode(word) is None

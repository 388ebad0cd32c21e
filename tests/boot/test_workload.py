"""Programs in the guest compute what the host computes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from tests.boot.conftest import PARAMS, Runner

from armkvm.vmm.guest.debian import Guest

SIZE = 8 << 20

# Debian's busybox has no mathematical functions in its awk: the four operations it is.
BATCH = f"""\
seq 1 1300000 | head -c {SIZE} > /tmp/data
echo SHA256 $(sha256sum < /tmp/data)
echo MD5 $(md5sum < /tmp/data)
gzip -c /tmp/data > /tmp/data.gz
echo SMALLER $(( $(wc -c < /tmp/data.gz) < {SIZE} ))
echo GUNZIP $(gzip -dc /tmp/data.gz | sha256sum)
echo AWK $(awk 'BEGIN {{
  for (i = 1; i <= 100000; i++) {{ s += (i * 0.7) / (i * i + 0.3); s -= i * 1e-7 }}
  printf "%.17g", s }}')
n=0; i=0
while [ $i -lt 200 ]; do /bin/busybox true && n=$((n + 1)); i=$((i + 1)); done
echo FORKED $n
"""


def _awk() -> float:
    s = 0.0
    for i in range(1, 100001):
        s += (i * 0.7) / (i * i + 0.3)
        s -= i * 1e-7
    return s


def test_checksums_floats_and_forks(
    boot: Runner, debian: Callable[..., Guest], initrd: Callable[[str], str]
) -> None:
    got = boot("-k", str(debian().kernel), "-i", initrd(BATCH), "-p", PARAMS)
    assert got.code == 0, got.errors
    said = dict(re.findall(r"^([A-Z0-9]+) (\S+)", got.console, re.MULTILINE))
    data = "".join(f"{i}\n" for i in range(1, 1300001)).encode()[:SIZE]
    assert len(data) == SIZE
    assert said["SHA256"] == said["GUNZIP"] == hashlib.sha256(data).hexdigest()
    assert said["MD5"] == hashlib.md5(data).hexdigest()
    assert said["SMALLER"] == "1"
    assert float(said["AWK"]) == _awk()
    assert said["FORKED"] == "200"

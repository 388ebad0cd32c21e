"""Fetching the default guest, with stand-ins for apt's programs: no network, no root, no Debian."""

import io
import json
import os
import platform
import re
import stat
import sys
import tarfile
from pathlib import Path

import pytest

from armkvm.vmm.errors import FetchError, GuestError
from armkvm.vmm.guest import debian

# One program under three names. It checks that it got our private configuration, and answers as
# apt does. FAKE holds what should go wrong.
FAKE = r"""#!{python}
import os, pathlib, sys
name, args, fail = os.path.basename(sys.argv[0]), sys.argv[1:], os.environ.get("FAKE", "")
log = pathlib.Path(os.environ["FAKE_LOG"])
log.write_text(log.read_text() + name + " " + " ".join(args) + "\n")
if name == "dpkg-deb":
    data = pathlib.Path(args[1]).read_bytes()
    sys.stdout.buffer.write(data[:600] if fail == "truncated" else data)
    sys.exit()
if args[0] == "indextargets":
    if fail == "no sources": sys.exit()
    if fail in ("ubuntu", "ubuntu without lists"):
        # Like apt: a source whose list was not fetched is left out, or has no origin.
        known = fail == "ubuntu"
        if known or any("ReleaseInfo=false" in a for a in args):
            origin = "Ubuntu" if known else "$(ORIGIN)"
            for release in ("noble", "noble-updates", "noble-security"):
                print(f"https://m/ubuntu\t{{release}}\tmain\t{{origin}}")
        sys.exit()
    if fail == "no lists":
        if any("ReleaseInfo=false" in a for a in args):
            print("https://other/x\tstable\tmain\t$(ORIGIN)")
            print("https://m/debian\tbookworm\tmain\t$(ORIGIN)")
            print("https://m/debian\tbookworm-updates\tmain\t$(ORIGIN)")
        sys.exit()
    if fail == "odd": print("one odd line")
    print("https://m/debian\tbookworm\tmain\tDebian")
    print("https://m/debian\tbookworm-updates\tmain\tDebian")
    print("https://m/security\tbookworm-security\tmain\tDebian")
    print("https://m/debian\tbookworm\tcontrib\tDebian")
    print("https://other/x\tstable\tmain\tSomebody")
    sys.exit()
assert args[0] == "-c", args
config = pathlib.Path(args[1]).read_text()
assert 'APT::Architecture "arm64"' in config
root = pathlib.Path(args[1]).parent
(log.parent / "sources").write_text((root / "sources.list").read_text())
(log.parent / "config").write_text(config)
args = [a for a in args[2:] if a != "-q"]
if args[0] == "update":
    if fail == "offline":
        sys.exit("W: Failed to fetch https://m/debian/dists/bookworm/InRelease  Could not connect")
    for name in fail.split(","):
        if name.startswith("missing "):
            print(f"E: The repository 'https://m/debian {{name[8:]}} Release' does not have a "
                  "Release file.", file=sys.stderr)
elif args[0] == "depends":
    if fail == "offline" or "no package" in fail: sys.exit("E: No packages found")
    seven = os.environ.get("FAKE_KERNEL") == "7"
    if not args[1][12:13].isdigit():
        image = "linux-image-" + ("7.2.13+deb14" if seven else "6.1.0-1") + "-cloud-arm64"
        base = "  Depends: linux-base-cloud-arm64\n" if seven else ""
        print(f"{{args[1]}}\n{{base}}  Depends: {{image}}\n  Recommends: x")
    elif seven:
        print(args[1] + "\n  PreDepends: linux-base\n |Depends: dracut")
        for part in "base", "binary", "modules":
            print(f"  Depends: linux-{{part}}-{{args[1][12:]}}")
    else:
        print(args[1] + "\n  Depends: kmod\n  Depends: linux-base")
elif "--print-uris" in args:
    for package in args[2:]:
        print(f"'https://m/{{package}}.deb' {{package}}_1%3a2_arm64.deb 10240 SHA256:0")
elif args[0] == "download":
    if fail == "no space": sys.exit("W: x\nE: write error - write (28: No space left on device)")
    for package in args[1:]:
        kind = "-".join(package.split("-")[:2])
        source = log.parent / (kind + ".tar")
        pathlib.Path(package + "_1%3a2_arm64.deb").write_bytes(source.read_bytes())
"""


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_home: Path) -> Path:
    """A folder with apt's programs on the path; its file "log" holds what was called."""
    folder = tmp_path / "fake"
    folder.mkdir()
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        program = folder / name
        program.write_text(FAKE.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "log").touch()
    kernel = {"./lib/modules/x.ko": b"M" * 9000, "./boot/vmlinuz-6.1": b"KERNEL" * 1000}
    (folder / "linux-image.tar").write_bytes(tar(kernel))
    later = {"./usr/lib/modules/7.2.13/vmlinuz": b"LATER"}
    (folder / "linux-binary.tar").write_bytes(tar(later))
    (folder / "busybox-static.tar").write_bytes(tar({"./usr/bin/busybox": b"BUSYBOX"}))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FAKE_LOG", str(folder / "log"))
    machine_is(monkeypatch, "debian", "bookworm")
    return folder


def machine_is(monkeypatch: pytest.MonkeyPatch, name: str, codename: str) -> None:
    release = {"ID": name, "VERSION_CODENAME": codename}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)


def sources(fake_apt: Path) -> list[str]:
    """What stands in our sources.list, without the options."""
    lines = (fake_apt / "sources").read_text().splitlines()
    assert all("arch=arm64 target=Packages" in line for line in lines)
    return [re.sub(r"^deb \[.*\] (.*) main$", r"\1", line) for line in lines]


def test_fetch_and_cache(fake_apt: Path, cache_home: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    got = debian.fetch(progress=lambda *step: steps.append(step))
    assert got.kernel.read_bytes() == b"KERNEL" * 1000
    assert got.busybox.read_bytes() == b"BUSYBOX"
    assert got.packages == {"linux-image-6.1.0-1-cloud-arm64": "1:2", "busybox-static": "1:2"}
    assert ("downloading linux-image-6.1.0-1-cloud-arm64", 20480, 20480) in steps
    assert sorted(p.name for p in got.folder.iterdir()) == ["Image", "busybox", "manifest.json"]
    # Nothing else is left in the cache.
    assert sorted(p.name for p in got.folder.parent.iterdir()) == [".lock", "host-cloud"]
    calls = (fake_apt / "log").read_text()
    assert "depends linux-image-cloud-arm64\n" in calls
    assert debian.fetch() == debian.cached() == got
    assert (fake_apt / "log").read_text() == calls
    debian.fetch(again=True)
    assert (fake_apt / "log").read_text().count("\n") == 2 * calls.count("\n")


def test_sources_are_the_machines(fake_apt: Path) -> None:
    debian.fetch()
    assert sources(fake_apt) == [
        "https://m/debian bookworm",
        "https://m/debian bookworm-updates",
        "https://m/security bookworm-security",
    ]


def test_an_odd_line_of_apt_is_nothing(fake_apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "odd")
    assert debian.fetch().kernel.exists()


def test_another_suite_and_flavour(fake_apt: Path) -> None:
    got = debian.fetch("trixie", "generic")
    assert got.folder.name == "trixie-generic"
    assert "depends linux-image-arm64\n" in (fake_apt / "log").read_text()
    assert sources(fake_apt) == [
        "https://m/debian trixie",
        "https://m/debian trixie-updates",
        "https://m/security trixie-security",
    ]


def test_the_kernel_of_linux_7_has_a_package_of_its_own(
    fake_apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since Debian 14, and in backports; its file is not in /boot any more."""
    monkeypatch.setenv("FAKE_KERNEL", "7")
    got = debian.fetch("sid")
    assert got.kernel.read_bytes() == b"LATER"
    assert list(got.packages) == ["linux-binary-7.2.13+deb14-cloud-arm64", "busybox-static"]


@pytest.mark.parametrize(
    ("suite", "base"),
    [("trixie-backports", "trixie"), ("trixie-backports-sloppy", "trixie"),
     ("experimental", "sid")],
)  # fmt: skip
def test_a_suite_over_another_one(fake_apt: Path, suite: str, base: str) -> None:
    """Backports hold some packages, at a low priority: the rest is their base's."""
    debian.fetch(suite)
    assert sources(fake_apt) == [
        f"https://m/debian {base}",
        f"https://m/debian {suite}",
        f"https://m/debian {base}-updates",
        f"https://m/security {base}-security",
    ]
    assert f'APT::Default-Release "{suite}";' in (fake_apt / "config").read_text()


def test_a_companion_that_is_missing_harms_nothing(
    fake_apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "missing sid-updates,missing sid-security")
    assert debian.fetch("sid").kernel.exists()


def test_without_lists_a_debian_machine_knows_its_sources(
    fake_apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the containers, which throw them away."""
    monkeypatch.setenv("FAKE", "no lists")
    debian.fetch()
    assert sources(fake_apt) == ["https://m/debian bookworm", "https://m/debian bookworm-updates"]


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        ("no sources", "apt has no Debian source"),
        ("ubuntu", "apt has no Debian source"),
        ("ubuntu without lists", "apt has no Debian source"),
        ("no package", "cannot find linux-image-cloud-arm64 for arm64: No packages found"),
        ("missing bookworm-updates,no package", "for arm64: No packages found"),
        ("missing bookworm,no package", "arm64: The repository 'https://m/debian bookworm Rel"),
        ("offline", "cannot find linux-image-cloud-arm64 for arm64: Failed to fetch .* connect"),
        ("no space", r"cannot download .*: write error - write \(28: No space left on device\)"),
        ("truncated", "cannot unpack linux-image-.*: unexpected end of data"),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    fake_apt: Path, monkeypatch: pytest.MonkeyPatch, fail: str, line: str
) -> None:
    monkeypatch.setenv("FAKE", fail)
    with pytest.raises(FetchError, match=line) as error:
        debian.fetch()
    assert "\n" not in str(error.value)
    assert debian.cached() is None
    assert [path.name for path in debian.cache_folder().iterdir()] == [".lock"]
    monkeypatch.delenv("FAKE")
    assert debian.fetch().kernel.exists()


def test_a_package_without_the_file(fake_apt: Path) -> None:
    (fake_apt / "linux-image.tar").write_bytes(tar({"./boot/config": b""}))
    with pytest.raises(FetchError, match="holds no file boot/vmlinuz"):
        debian.fetch()


def test_no_apt(
    monkeypatch: pytest.MonkeyPatch, cache_home: Path, fake_apt: Path, tmp_path: Path
) -> None:
    (fake_apt / "dpkg-deb").unlink()
    with pytest.raises(FetchError, match="no dpkg-deb"):
        debian.fetch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="no apt-get"):
        debian.fetch()


def test_cache_that_cannot_be_written(
    fake_apt: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(FetchError, match=r"cannot fetch the guest into .*: Not a directory"):
        debian.fetch()


def test_a_killed_fetch_is_cleared(fake_apt: Path) -> None:
    left = debian.cache_folder() / ".partial-abc" / "guest"
    left.mkdir(parents=True)
    assert debian.cached() is None
    debian.fetch()
    assert not left.exists()


def test_a_damaged_guest_is_fetched_again(fake_apt: Path) -> None:
    got = debian.fetch()
    for damage in ("manifest.json", "Image"):
        (got.folder / damage).write_bytes(b"{}")
        assert debian.cached() is None
        assert debian.fetch().kernel.read_bytes() == b"KERNEL" * 1000
    (got.folder / "busybox").unlink()
    assert debian.cached() is None
    assert json.loads((debian.fetch().folder / "manifest.json").read_text())["packages"]


@pytest.mark.parametrize("suite", ["../x", "", "a b", "a;b"])
def test_bad_suite(fake_apt: Path, suite: str) -> None:
    with pytest.raises(GuestError, match="no name of a Debian suite"):
        debian.fetch(suite)


def test_bad_folder_name(
    fake_apt: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / 'a"b'))
    with pytest.raises(FetchError, match="cannot work in a folder of that name"):
        debian.fetch()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert debian.cache_folder() == Path("/home/x/.cache/armkvm/guests")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert debian.cache_folder() == Path("/c/armkvm/guests")
    assert os.environ["HOME"] == "/home/x"

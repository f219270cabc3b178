"""A virtual machine that boots the image and runs commands: always under emulation, always with an end.

KVM is not tried: a /dev/kvm that opens may still not run a guest, and then a test hangs instead of failing. The processor
is an old one because Soft-RoCE's checksums are four times slower under the emulation of a new one.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = Path(os.environ.get("FLUXLINE_OUT", HERE.parent / "out"))
APPLIANCE = HERE.parent / "package/usr/sbin/fluxline-appliance"
CONFIG = HERE.parent / "package/usr/share/fluxline/appliance.toml"
ESP = "@@1M"  # where the EFI partition begins in the disk, as mtools write it


# Ended from outside, a test still ends its machines.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class TimedOut(Exception):
    """The machine or a command took longer than it may."""


class Machine:
    """One guest. `with Machine(...) as vm:` boots it and ends it whatever happens.

    share    a folder, seen in the guest as /run/share (9p, writable)
    config   an appliance.toml, brought in as an operator would: a file on the EFI partition
    words    more words for the kernel (not with uefi)
    uefi     boots through OVMF and systemd-boot, as hardware does; otherwise QEMU loads the kernel, which is quicker
    disk     a disk to go on with, kept; otherwise a copy of the image, removed at the end
    network  what follows `-netdev `, with id=net0; by default a network without anybody on it
    mac      address of its one network port
    """

    def __init__(self, *, share=None, config=None, words="", uefi=False, disk=None, memory_mib=2048, cores=2,
                 network="user,id=net0,restrict=on", mac="52:54:00:12:34:56", extra=(), boot_s=240, disk_gib=4, log=None):
        self.share, self.config, self.words, self.uefi = share, config, words, uefi
        self.memory_mib, self.cores, self.network, self.mac, self.extra = memory_mib, cores, network, mac, list(extra)
        self.boot_s, self.disk_gib = boot_s, disk_gib
        self.folder = Path(tempfile.mkdtemp(prefix="fluxline-vm-"))
        self.disk = Path(disk) if disk else self.folder / "disk.img"
        self.log = Path(log) if log else self.folder / "console.log"
        self.qemu = self.port = self.stuck = None

    def __enter__(self):
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def prepare(self):
        if not self.disk.exists():
            subprocess.run(["cp", "--sparse=always", OUT / "disk.img", self.disk], check=True)
            os.truncate(self.disk, self.disk_gib << 30)
        if self.config:
            self.put(self.config, "appliance.toml")

    def put(self, file, name):
        """A file onto the EFI partition, while the machine is off."""
        subprocess.run(["mcopy", "-o", "-i", f"{self.disk}{ESP}", file, f"::{name}"], check=True)

    def command(self):
        command = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "Nehalem,+pdpe1gb",
            "-smp", str(self.cores), "-m", str(self.memory_mib), "-nodefaults", "-display", "none", "-no-user-config",
            "-drive", f"if=virtio,format=raw,file={self.disk},cache=unsafe",
            "-serial", f"file:{self.log}",
            "-device", "virtio-serial", "-chardev", f"socket,id=test,path={self.folder}/port,server=on,wait=off",
            "-device", "virtserialport,chardev=test,name=fluxline.test",
            "-smbios", "type=11,value=io.systemd.credential:fluxline.test=on",
            "-device", "virtio-rng-pci",
            "-qmp", f"unix:{self.folder}/control,server=on,wait=off",
            "-netdev", self.network, "-device", f"virtio-net-pci,netdev=net0,mac={self.mac}",
        ]
        if self.share:
            command += ["-virtfs", f"local,path={self.share},mount_tag=share,security_model=none,multidevs=remap"]
        if self.uefi:
            firmware = Path("/usr/share/OVMF")
            variables = self.disk.with_suffix(".vars")
            if not variables.exists():
                shutil.copy(firmware / "OVMF_VARS_4M.fd", variables)
            command += ["-drive", f"if=pflash,format=raw,readonly=on,file={firmware}/OVMF_CODE_4M.fd",
                        "-drive", f"if=pflash,format=raw,file={variables}"]
        else:
            entry = subprocess.run([APPLIANCE, "entry", "--slot=a", "--number=1", self.config or CONFIG],
                                   check=True, capture_output=True, text=True).stdout
            options = next(line for line in entry.splitlines() if line.startswith("options "))
            command += ["-kernel", OUT / "vmlinuz", "-initrd", OUT / "initrd.img",
                        "-append", f"{options.removeprefix('options ')} {self.words}"]
        return command + self.extra

    def start(self):
        self.began = time.monotonic()
        with open(self.folder / "qemu.log", "wb") as log:
            self.qemu = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.connect()

    def connect(self):
        """Waits until the guest takes commands."""
        end = time.monotonic() + self.boot_s
        while True:
            self.alive(end, "boot")
            with contextlib.suppress(OSError):
                self.port = socket.socket(socket.AF_UNIX)
                self.port.connect(str(self.folder / "port"))
                break
            time.sleep(0.1)
        self.rest = b""
        while not self.line(end, "boot").startswith("ready"):
            pass
        self.booted_s = time.monotonic() - self.began
        self.mount_share()

    def mount_share(self):
        """The shared folder, after every boot."""
        if self.share:
            self.check("modprobe 9pnet_virtio; mkdir -p /run/share; "
                       "mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=mmap share /run/share")

    def reboot(self):
        """Through the guest's own shutdown and firmware; waits until it takes commands again."""
        self.began = time.monotonic()
        self.send("systemctl reboot")
        self.stuck = None
        end = self.began + self.boot_s
        while not self.line(end, "reboot").startswith("ready"):
            pass
        self.booted_s = time.monotonic() - self.began
        self.mount_share()

    def alive(self, end, what):
        if self.qemu.poll() is not None:
            raise RuntimeError(f"QEMU ended: {(self.folder / 'qemu.log').read_text()}")
        if time.monotonic() > end:
            raise TimedOut(f"{what}: no answer in time; the console's end:\n{self.console()}")

    def console(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:]) if self.log.exists() else ""

    def line(self, end, what):
        while b"\n" not in self.rest:
            self.alive(end, what)
            self.port.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                more = self.port.recv(65536)
                if not more:
                    time.sleep(0.1)
                self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode(errors="replace").rstrip("\r")

    def send(self, script):
        self.port.settimeout(10)
        self.port.sendall(base64.b64encode(script.encode()) + b"\n")

    def run(self, script, timeout_s=60, show=False):
        """Runs a bash script as root; returns its status and everything it said."""
        if self.stuck:
            raise RuntimeError(f"a command before this one has not ended: {self.stuck}")
        self.stuck = script.strip().splitlines()[0][:60]
        self.send(script)
        end = time.monotonic() + timeout_s
        said = []
        while True:
            kind, _, rest = self.line(end, self.stuck).partition(" ")
            if kind == "x":
                self.stuck = None
                return int(rest), "\n".join(said)
            if kind == "o":
                said.append(base64.b64decode(rest).decode(errors="replace").rstrip("\n"))
                if show:
                    print(said[-1], flush=True)

    def check(self, script, timeout_s=60):
        """Runs a script that must succeed; returns what it said."""
        status, said = self.run(script, timeout_s)
        if status:
            raise AssertionError(f"status {status}: {script}\n{said}")
        return said

    def start_in_background(self, script):
        """Starts a script that goes on while others run; `background_ended` waits for it."""
        self.check(f"rm -f /run/background; ( {script}; echo $? > /run/background ) < /dev/null > /run/background.log 2>&1 &")

    def background_ended(self, timeout_s):
        status = self.wait("cat /run/background", timeout_s).strip()
        if status != "0":
            raise AssertionError(f"status {status} in the background: {self.run('cat /run/background.log')[1]}")

    def wait(self, script, timeout_s=60):
        """Runs a script again and again until it succeeds; returns what it said."""
        end = time.monotonic() + timeout_s
        while True:
            status, said = self.run(script, max(1, end - time.monotonic()))
            if status == 0:
                return said
            if time.monotonic() > end:
                raise TimedOut(f"not in {timeout_s} s: {script}\n{said}")
            time.sleep(0.5)

    def set_link(self, up):
        """Pulls the network's cable, or plugs it in again."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self.folder / "control"))
            answers = control.makefile()
            answers.readline()  # who it is
            for command in ({"execute": "qmp_capabilities"}, {"execute": "set_link", "arguments": {"name": "net0", "up": up}}):
                control.sendall(json.dumps(command).encode() + b"\n")
                answer = json.loads(answers.readline())
                while "event" in answer:
                    answer = json.loads(answers.readline())
                if "error" in answer:
                    raise RuntimeError(f"set_link: {answer}")

    def power_off(self, timeout_s=60):
        self.send("systemctl poweroff")
        try:
            self.qemu.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimedOut(f"power off; the console's end:\n{self.console()}") from None

    def close(self):
        if self.qemu and self.qemu.poll() is None:
            self.qemu.send_signal(signal.SIGKILL)
            self.qemu.wait()
        if self.port:
            self.port.close()
        shutil.rmtree(self.folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit("a module; the program is `vm`")

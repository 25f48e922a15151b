"""What every benchmark needs to know of the machine: its description, processes' CPU and memory."""

import os
import platform
import shlex
import socket
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def describe(commands):
    """The machine, and the first line that each command prints about its version."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown CPU")
    lines = [f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.2f}"]
    for command in commands:
        result = subprocess.run(shlex.split(command), capture_output=True, text=True)
        text = (result.stdout + result.stderr).strip()
        lines.append(f"{command.split()[0].rsplit('/', 1)[-1]}: {text.splitlines()[0] if text else 'no version'}")
    return "\n".join(lines)


def processes_of(pid):
    """A process and all below it."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found.extend(processes_of(int(child)))
    return found


def cpu_seconds(pids):
    """User and system time so far (proc(5): fields 14 and 15 of stat)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident_bytes(pids):
    """Proportional set size, so that pages shared by forked workers count once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def free_ports(count):
    """Ports that were free a moment ago; all are held until the last is known."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()

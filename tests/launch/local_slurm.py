"""A real Slurm on this machine alone: munged, slurmctld and two slurmd, on loopback, without cgroups, in one folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
NODES = ("127.0.0.1", "127.0.0.2")
"""Both are this machine. Names that are addresses: the first is where the processes meet."""

_CONFIGURATION = """
ClusterName=fangcun
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
JobRequeue=1
KillWait=30
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# cred_expire is also how long a requeued job has to wait: two minutes if it is not said.


def why_not() -> str | None:
    """Why no Slurm can be started here, or None."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}); on Debian: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    return None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class LocalSlurm:
    """`with LocalSlurm(folder) as slurm:`; `slurm.environment` makes sbatch and the others talk to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # short: the path of munge's socket has 107 bytes at most
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> LocalSlurm:
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        text = _CONFIGURATION.format(folder=self.folder, host=socket.gethostname(), ports=free_ports(3), nodes=NODES)
        (self.folder / "slurm.conf").write_text(text)
        try:
            self._start(
                "munged", "--foreground", "--force", f"--socket={self.folder}/munge", f"--key-file={key}",
                f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
                f"--seed-file={self.folder}/munged.seed",
            )  # fmt: skip
            self._wait_until(lambda: (self.folder / "munge").exists(), "munged")
            self._start("slurmctld", "-D")
            for node in NODES:
                self._start("slurmd", "-D", "-N", node)
            self._wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], "the nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.ask("squeue", "-h", "-o", "%i").split():
            self.ask("scancel", "--signal=KILL", "--full", job)
            self.ask("scancel", job)
        time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command: str) -> str:
        """What a client of Slurm prints; its complaints are for the log of the test."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, encoding="utf-8", timeout=60, check=False
        )
        return done.stdout + done.stderr

    def state(self, job: int) -> str:
        """PENDING, RUNNING, COMPLETED … of a job."""
        words = self.ask("scontrol", "--oneliner", "show", "job", str(job)).split()
        return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "GONE")

    def wait_for(self, job: int, *states: str, seconds: float = 120) -> str:
        """Wait until a job is in one of `states`; the state it is in then, or at the end of the patience."""
        give_up = time.monotonic() + seconds
        while (state := self.state(job)) not in states and time.monotonic() < give_up:
            time.sleep(0.1)
        return state

    def _start(self, *command: str) -> None:
        with open(self.folder / "daemons.txt", "ab") as output:
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT)
            )

    def _wait_until(self, ready, what: str, seconds: float = 30) -> None:
        give_up = time.monotonic() + seconds
        while not ready():
            dead = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            if dead or time.monotonic() > give_up:
                output = (self.folder / "daemons.txt").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{what} did not come up; ended: {dead}; output:\n{output}")
            time.sleep(0.1)

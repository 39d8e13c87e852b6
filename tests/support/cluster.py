"""A real Slurm of two nodes on this machine, for tests: its own munge key, ports and folders; any user can start it."""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.commands import wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={dir}/munge.sock,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=10
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Return why no Slurm can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if absent:
        return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge"
    return None if importlib.util.find_spec("submitit") else "no submitit here: pip install -e '.[slurm]'"


class Cluster:
    """Started when made. `environment` makes Slurm's commands speak to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        (folder / "state").mkdir()
        (folder / "gpu").symlink_to("/dev/null")  # Slurm wants a device file, and only counts it
        (folder / "munge.key").write_bytes(secrets.token_bytes(256))
        (folder / "munge.key").chmod(0o600)
        sockets = [socket.socket() for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        (folder / "slurm.conf").write_text(
            CONF.format(host=socket.gethostname().split(".")[0], dir=folder, user=user, ports=ports)
        )
        (folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={folder}/gpu\n")
        (folder / "cgroup.conf").write_text("# none\n")
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._start(
            "munged",
            "--foreground",
            f"--key-file={folder}/munge.key",
            f"--socket={folder}/munge.sock",
            "--force",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munged.seed",
        )
        wait_for((folder / "munge.sock").exists, 10, "munged did not start")
        self.start_controller()
        self.start_node("n1")
        self.start_node("n2")
        wait_for(
            lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split().count("idle") == 2,
            30,
            "the nodes did not come up",
        )

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        path = shutil.which(program, path=PATH)
        assert path
        with open(self.folder / f"{name or program}.out", "ab") as out:
            self.daemons[name or program] = subprocess.Popen(
                [path, *arguments], env=self.environment, stdout=out, stderr=out, start_new_session=True
            )

    def start_controller(self) -> None:
        """Start slurmctld; again after it was killed, it goes on from its state."""
        self._start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))

    def start_node(self, name: str) -> None:
        """Start a node's slurmd."""
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._start("slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf"), name=name)

    def kill(self, name: str) -> None:
        """Kill a daemon with SIGKILL; of a node also everything that runs on it, as when its power fails."""
        self.daemons[name].kill()
        self.daemons[name].wait()
        for pid in self._processes(name) if name in ("n1", "n2") else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_job(self, node: str) -> None:
        """Kill what a node's job runs with SIGKILL, as when its memory is over; the job ends with status 137."""
        for pid in self._processes(node):
            if not self._read(pid, "cmdline").startswith("slurmstepd"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _processes(self, node: str) -> list[int]:
        """Return a node's processes, the step managers first: they must not report the others' deaths."""
        marks = {f"SLURM_CONF={self.folder}/slurm.conf", f"SLURMD_NODENAME={node}"}
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        own = [pid for pid in pids if marks <= set(self._read(pid, "environ").split("\0"))]
        parents = {
            int(self._read(pid, "stat").rpartition(")")[2].split()[1])
            for pid in own
            if self._read(pid, "stat")
        }
        return [*(pid for pid in parents if self._read(pid, "cmdline").startswith("slurmstepd")), *own]

    @staticmethod
    def _read(pid: int, what: str) -> str:
        try:
            return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
        except OSError:
            return ""

    def ask(self, *command: str) -> str:
        """Return what a command of Slurm prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.ask("scancel", "--user", str(os.getuid()), "--signal=KILL", "--full")
        for name in ("n1", "n2"):
            self.kill(name)
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()

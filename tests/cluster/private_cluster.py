"""A Slurm cluster of one node on this machine, in a temporary configuration, that leaves nothing behind."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

# A job that is put back into the queue waits until its credential has expired, two minutes unless `cred_expire` says
# otherwise; a lost node is noticed after SlurmdTimeout. The other times are limits.
CONFIGURATION = """
ClusterName=slotssm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=10
SlurmdParameters=config_overrides
KillWait=300
MinJobAge=3600
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=usual Nodes={host} Default=YES PriorityTier=1 GraceTime=300
PartitionName=urgent Nodes={host} PriorityTier=10 PreemptMode=OFF
"""
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")


def missing() -> str:
    """Why a cluster cannot be started here; empty if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "the daemons of Slurm need root"


def _path() -> str:
    # the scripts of this Python's packages, such as torchrun, come first
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Cluster:
    """The daemons of a cluster.

    Args:
        folder: an empty folder for configuration, state and logs; its path must be short, for the sockets.
        cores: cores that jobs may use.

    Attributes:
        environment: variables with which Slurm's programs find this cluster.
    """

    def __init__(self, folder: Path, cores: int = 2) -> None:
        self.folder, self._daemons = folder, dict[str, subprocess.Popen]()
        host = socket.gethostname().partition(".")[0]
        ports = [_free_port(), _free_port()]
        text = CONFIGURATION.format(folder=folder, host=host, ports=ports, cores=cores)
        (folder / "slurm.conf").write_text(text)
        for name in ("state", "spool", "munge"):
            (folder / name).mkdir(mode=0o700)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        for name in list(self.environment):
            if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF":
                del self.environment[name]

    def start(self) -> None:
        """Start the daemons and wait for the node."""
        folder = self.folder
        munge = ["--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge/key"]
        munge += [
            f"--pid-file={folder}/munge/pid",
            f"--seed-file={folder}/munge/seed",
            f"--log-file={folder}/munge/log",
        ]
        self._start("munged", *munge)
        self._wait(lambda: (folder / "munge.socket").exists(), "munged")
        self._start("slurmctld", "-D")
        self.start_node()

    def start_node(self) -> None:
        """Start the daemon of the node."""
        self._start("slurmd", "-D")
        self._wait(lambda: self.node_state() in ("idle", "mixed", "allocated"), "slurmd")

    def node_state(self) -> str:
        """State of the node."""
        done = self.run("sinfo", "--noheader", "--nodes", socket.gethostname().partition(".")[0], "--format", "%T")
        return done.stdout.split("\n")[0].strip()

    def kill_node(self) -> None:
        """Kill the daemon of the node and what it started, as if the node had gone."""
        daemon = self._daemons.pop("slurmd")
        for process in _descendants(daemon.pid):
            _kill(process)
        # steps are no longer children of the daemon
        for process in _steps(self.folder):
            for each in [*_descendants(process), process]:
                _kill(each)
        daemon.kill()
        daemon.wait()

    def run(self, *command: str, **options) -> subprocess.CompletedProcess:
        """Run a command that finds this cluster."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=1800, **options
        )

    def queue(self) -> dict[str, str]:
        """Jobs that are not finished, with their state."""
        done = self.run("squeue", "--noheader", "--array", "--format", "%i %T")
        return dict(line.split() for line in done.stdout.splitlines() if line.strip())

    def restarts(self, job: str) -> int:
        """How often a job was put back into the queue."""
        words = self.run("scontrol", "show", "job", job).stdout.split()
        return int(next((word.partition("=")[2] for word in words if word.startswith("Restarts=")), 0))

    def processes(self) -> list[int]:
        """Daemons, steps and jobs of this cluster that are still there."""
        return [process for process in _processes() if str(self.folder) in _text_of(process, "environ")]

    def stop(self) -> None:
        """Cancel all jobs and stop the daemons; what does not end by itself is killed."""
        if "slurmctld" in self._daemons:
            self.run("scancel", "--user", "root")
            deadline = time.monotonic() + 60
            while self.queue() and time.monotonic() < deadline:
                time.sleep(0.5)
        for name in ("slurmd", "slurmctld", "munged"):
            daemon = self._daemons.pop(name, None)
            if daemon is not None:
                daemon.terminate()
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        for process in self.processes():
            _kill(process)

    def _start(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("ab") as log:
            path = shutil.which(program, path=_path())
            assert path is not None
            self._daemons[program] = subprocess.Popen(
                [path, *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,
            )

    def _wait(self, condition, program: str) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            ended = self._daemons[program].poll()
            output = (self.folder / f"{program}.out").read_text()[-2000:]
            assert ended is None, f"{program} ended with {ended}: {output}"
            assert time.monotonic() < deadline, f"{program} does not answer: {output}"
            time.sleep(0.3)


def _end_with_parent() -> None:
    """Let the kernel end this process when the one that started it is gone, even if that was killed (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _processes() -> dict[int, int]:
    """Parent of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    return found


def _descendants(process: int) -> list[int]:
    """Processes below a process, the deepest first."""
    parents = _processes()
    found, level = [], [process]
    while level:
        level = [each for each, parent in parents.items() if parent in level]
        found = [*level, *found]
    return found


def _steps(folder: Path) -> list[int]:
    """Daemons of steps and batch jobs that belong to the cluster with this folder."""
    found = [process for process in _processes() if _text_of(process, "cmdline").startswith("slurmstepd")]
    return [process for process in found if str(folder) in _text_of(process, "environ")]


def _text_of(process: int, entry: str) -> str:
    """An entry of /proc of a process; empty if the process has ended."""
    try:
        return Path(f"/proc/{process}/{entry}").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)

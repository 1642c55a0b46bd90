"""Memory is measured on systems without the module `resource`, too."""

import subprocess
import sys

WITHOUT = (
    "import sys\nimport psutil, torch\nsys.modules['resource'] = None\n"
    "from types import SimpleNamespace\nfrom slotssm.experiments.measurement import efficiency as measurement\n"
    "assert measurement.resource is None\n"
    "def absent(name):\n    raise OSError(name)\n"
    "measurement._status = absent\n"
    "measurement.psutil.Process = lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=77))\n"
    "print(measurement._peak_bytes())\n"
)


def test_the_peak_of_windows_is_asked_of_the_process():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "77\n"

"""Runs of ``run_fake`` in processes of their own."""

import json
import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def spawn(workdir, *args, devices=1):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.training.run_fake", str(workdir), *args]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, timeout_s=180):
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, output
    return output


def final(workdir, index=0):
    return json.loads((workdir / f"final.{index}.json").read_text())


def spawn_pair(workdir, *args, of_each=((), ()), devices=1):
    """Two processes of one run; ``of_each`` are their own arguments."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    return [
        spawn(
            workdir,
            f"--coordinator={address}",
            f"--process={index}",
            *args,
            *of_each[index],
            devices=devices,
        )
        for index in (0, 1)
    ]

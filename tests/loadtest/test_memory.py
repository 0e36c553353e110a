"""The processes of a service are found by its URL."""

import os
import shutil
import socket
import subprocess
import sys

from loadtest.memory import Memory, compared, processes_of, resident_mib


def test_the_workers_of_a_ray_are_found_by_the_port_of_its_proxy() -> None:
    """Processes with the titles that Ray gives to its workers. Their parent is this one."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        ours.set_inheritable(True)
        sleep = shutil.which("sleep")
        proxy = subprocess.Popen(["ray::ProxyActor", "60"], executable=sleep, pass_fds=[ours.fileno()])
    replica = subprocess.Popen(["ray::ServeReplica:app:ingress", "60"], executable=sleep)
    other = subprocess.Popen(["sleep", "60"], executable=sleep)
    try:
        found = resident_mib(processes_of(f"http://127.0.0.1:{port}"))
    finally:
        for process in (proxy, replica, other):
            process.kill()
            process.wait()
    assert {pid: name for pid, (name, _) in found.items()} == {
        proxy.pid: "ProxyActor 60",
        replica.pid: "ServeReplica:app:ingress 60",
    }
    assert all(mib > 0 for _, mib in found.values())
    assert processes_of(f"http://127.0.0.1:{port}") == [], "nothing listens there now"


def test_a_server_without_ray_is_found_and_a_remote_one_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            found = [process.pid for process in processes_of(f"http://localhost:{port}")]
        finally:
            child.kill()
            child.communicate()
        assert {os.getpid(), child.pid} <= set(found)
        assert processes_of(f"http://speech.example.com:{port}") == []


def test_processes_that_came_or_went_have_one_figure() -> None:
    begin, end = {1: ("talker", 10.0), 2: ("ingress", 5.0)}, {2: ("ingress.call", 6.0), 3: ("talker", 11.0)}
    assert compared(begin, end) == [
        Memory(pid=1, process="talker", begin_mib=10.0, end_mib=None),
        Memory(pid=2, process="ingress", begin_mib=5.0, end_mib=6.0),
        Memory(pid=3, process="talker", begin_mib=None, end_mib=11.0),
    ]

"""The group `cluster` imports nothing until it is used, and names its missing dependencies."""

import subprocess
import sys

CLI = "from deployments.commands.main import main; "


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_the_help_of_the_command_imports_no_client() -> None:
    done = run(CLI + "import sys; main(['--help'], standalone_mode=False); assert 'kubernetes' not in sys.modules")
    assert done.returncode == 0, done.stderr
    assert "cluster " in done.stdout


def test_without_its_extra_the_group_says_how_to_install_it() -> None:
    done = run("import sys; sys.modules['kubernetes'] = None; " + CLI + "main(['cluster', 'status'])")
    assert done.returncode == 1
    assert done.stderr == "Error: qwen-tts cluster needs kubernetes: pip install 'qwen-tts-serve[cluster]'\n"


def test_no_torch_and_no_ray_are_imported_for_it() -> None:
    code = "import sys; main(['cluster', 'status', '--help'], standalone_mode=False); "
    done = run(CLI + code + "assert not {'torch', 'ray'} & sys.modules.keys()")
    assert done.returncode == 0, done.stderr

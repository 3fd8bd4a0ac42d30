import subprocess
import sys

import pytest

from recyclepool import cli, demo


def test_without_a_command_it_prints_help_and_exits_2(capsys):
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: recyclepool")
    assert "demo" in err


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("recyclepool ")


def test_version_of_a_copy_that_is_not_installed(capsys, monkeypatch):
    def missing(name):
        raise cli.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cli.importlib.metadata, "version", missing)
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "recyclepool (not installed)\n"


def test_options_reach_the_demo_and_its_exit_code_comes_back(monkeypatch):
    seen = {}
    monkeypatch.setattr(demo, "run", lambda **options: seen.update(options) or 7)
    assert cli.main(["demo", "--workers", "3", "--tasks-per-worker", "9"]) == 7
    assert seen == {"workers": 3, "tasks_per_worker": 9}


def test_ctrl_c_where_the_demo_does_not_look_for_it(monkeypatch):
    def run(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", run)
    assert cli.main(["demo"]) == 130


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many"])
@pytest.mark.parametrize("option", ["--workers", "--tasks-per-worker"])
def test_numbers_that_make_no_pool_are_refused(option, number, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["demo", f"{option}={number}"])
    assert end.value.code == 2
    assert option in capsys.readouterr().err


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "recyclepool"], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(b"usage: recyclepool")


def test_a_reader_that_goes_away_ends_it_quietly():
    program = (
        "import sys; from recyclepool import cli, demo\n"
        "demo.LARGEST = 3000\n"
        "sys.exit(cli.main(['demo']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == b""

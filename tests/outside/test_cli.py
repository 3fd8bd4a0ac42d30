import subprocess
import sys
from types import SimpleNamespace

import pytest

from recyclepool import cli, demo


def test_without_a_command_it_prints_help_and_exits_2(capsys):
    assert cli.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: recyclepool")
    assert "demo" in err
    assert "cron" in err


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


# ==== cron =======================================================================================


@pytest.fixture
def now(monkeypatch):
    """Saturday, 28 March 2026, 20:48 UTC: the night in which summer time begins in Europe."""
    monkeypatch.setattr(cli, "time", SimpleNamespace(time=lambda: 1774730880.0))


@pytest.mark.usefixtures("now")
def test_cron_shows_the_next_firings_and_the_change_of_summer_time(capsys):
    assert cli.main(["cron", "0 3 * * *", "--tz", "Europe/Berlin", "-n", "2"]) == 0
    assert capsys.readouterr().out == (
        "0 3 * * * (Europe/Berlin), by the clocks of Europe/Berlin\n"
        "Sun 2026-03-29 03:00:00 +0200   Sun 2026-03-29 01:00:00 UTC   in 4h 12m\n"
        "Mon 2026-03-30 03:00:00 +0200   Mon 2026-03-30 01:00:00 UTC   in 1d 4h\n"
    )


@pytest.mark.usefixtures("now")
def test_cron_shows_five_in_utc_by_default(capsys):
    assert cli.main(["cron", "@daily"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 0 * * * (UTC), by the clocks of UTC"
    assert lines[1] == "Sun 2026-03-29 00:00:00 +0000   Sun 2026-03-29 00:00:00 UTC   in 3h 12m"
    assert len(lines) == 6


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("words", [["every 6h"], ["every", "6h"]])
def test_cron_shows_intervals_and_that_pools_shift_them(words, capsys):
    assert cli.main(["cron", *words, "--tz", "America/New_York", "-n", "1"]) == 0
    assert capsys.readouterr().out == (
        "every 6h, by the clocks of America/New_York\n"
        "(in a pool these are shifted, by a part of the interval)\n"
        "Sat 2026-03-28 20:00:00 -0400   Sun 2026-03-29 00:00:00 UTC   in 3h 12m\n"
    )


@pytest.mark.usefixtures("now")
def test_cron_ends_where_nothing_fires_any_more(capsys, monkeypatch):
    monkeypatch.setattr(cli, "time", SimpleNamespace(time=lambda: 253_380_000_000.0))
    assert cli.main(["cron", "@yearly"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0 25 * * *"], "schedule='0 25 * * *': hour 25 is out of range: write 0 to 23"),
        (["every 6 hours"], "schedule='every 6 hours': write \"every 6h\""),
        (["every", "6", "hours"], "schedule='every 6 hours': write \"every 6h\""),
        (["@daily", "--tz", "Europe/Berln"], "tz='Europe/Berln': did you mean \"Europe/Berlin\"?"),
        (["every 6h", "--tz", "Berlin"], "tz='Berlin': did you mean \"Europe/Berlin\"?"),
    ],
)
def test_cron_tells_what_is_wrong_and_exits_2(words, message, capsys):
    assert cli.main(["cron", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"recyclepool cron: {message}\n"


def test_cron_tells_of_quotes_where_a_shell_has_read_the_stars(capsys):
    assert cli.main(["cron", "0", "3", "a.txt", "b.txt", "*"]) == 2
    assert capsys.readouterr().err == (
        "recyclepool cron: schedule='0 3 a.txt b.txt *': day of month A.TXT is not known: "
        "write 1 to 31 (put the expression in quotes: the shell reads * as names of files)\n"
    )


def test_cron_reads_stars_that_no_shell_has_read(capsys):
    assert cli.main(["cron", "0", "3", "*", "*", "*", "-n", "1"]) == 0
    assert capsys.readouterr().out.startswith("0 3 * * * (UTC), by the clocks of UTC\n")


@pytest.mark.parametrize("arguments", [[], ["@daily", "-n", "0"], ["@daily", "-n", "many"]])
def test_cron_refuses_what_it_cannot_read(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["cron", *arguments])
    assert end.value.code == 2
    assert "usage: recyclepool cron" in capsys.readouterr().err

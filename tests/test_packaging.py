"""The wheel holds the command and the recipes, and works without its checkout."""

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import clipbert_cli
from clipbert_cli.recipe.load import list_recipes

CHECKOUT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(not (CHECKOUT / "pyproject.toml").is_file(), reason="needs the checkout")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """A folder as `pip install` fills it, from a wheel built here."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("clipbert-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, folder: Path, *arguments: str) -> str:
    """A Python that sees the unpacked wheel before any checkout, started elsewhere."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "DATA": "/data"}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_shipped_recipes_are_found_from_the_wheel(unpacked, tmp_path):
    code = "from clipbert_cli.recipe.shipped import shipped_folder; print(shipped_folder())"
    assert run(unpacked, tmp_path, "-c", code).strip() == str(unpacked / "clipbert_cli" / "recipes")
    code = "from clipbert_cli.recipe.load import *; [print(r.name, load_recipe(r.name).name) for r in list_recipes()]"
    assert run(unpacked, tmp_path, "-c", code).splitlines() == [f"{r.name} {r.name}" for r in list_recipes()]


def test_settings_are_completed_from_the_wheel(unpacked, tmp_path):
    code = (
        "from typer.main import get_command; from clipbert_cli.commands.app import app\n"
        "from clipbert_cli.commands.completion import candidates\n"
        "from clipbert_cli.commands.completion import find_cursor\n"
        "print(*[value for value, _ in candidates(find_cursor(get_command(app), ['finetune', '--set'], 'train.batc'))])"
    )
    assert run(unpacked, tmp_path, "-c", code).split() == ["train.batch_size=", "train.batch_size=16"]


def test_the_command_runs_from_the_wheel(unpacked, tmp_path):
    assert run(unpacked, tmp_path, "-m", "clipbert_cli", "--version").strip() == f"clipbert {clipbert_cli.__version__}"
    assert "msrvtt_qa" in run(unpacked, tmp_path, "-m", "clipbert_cli", "recipes", "ls")


def test_the_entry_point_is_the_command(unpacked, tmp_path):
    (info,) = unpacked.glob("clipbert-*.dist-info")
    assert (info / "entry_points.txt").read_text().split() == [
        "[console_scripts]",
        "clipbert",
        "=",
        "clipbert_cli.__main__:main",
    ]
    code = (
        "from importlib.metadata import PathDistribution as D; import pathlib;"
        f"(e,) = D(pathlib.Path({str(info)!r})).entry_points; print(e.load().__module__)"
    )
    assert run(unpacked, tmp_path, "-c", code).strip() == "clipbert_cli.__main__"


def test_the_wheel_says_what_it_is(unpacked):
    (info,) = unpacked.glob("clipbert-*.dist-info")
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    assert (metadata["Name"], metadata["Version"]) == ("clipbert", clipbert_cli.__version__)
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra")) == {
        "dali-cuda12",
        "dali-cuda13",
        "tensorboard",
        "wandb",
        "mlflow",
        "trackers",
        "heif",
        "dev",
    }
    assert (info / "licenses" / "LICENSE").is_file()


def test_the_wheel_holds_the_package_and_nothing_else(unpacked):
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"clipbert_cli", "clipbert"}
    modules = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "clipbert_cli").rglob("*.py")}
    assert {path.relative_to(unpacked) for path in unpacked.rglob("*.py")} == modules


def test_the_constraints_pin_every_requirement():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = [name for extra in ("tensorboard", "wandb", "mlflow", "dev") for name in optional[extra]]
    wanted = {requirement.partition(">=")[0].lower() for requirement in (*project["dependencies"], *extras)}
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert wanted <= pins.keys()
    assert pins["torch"] == "2.13.0"


# Libraries that are imported by another name than they are installed by. pydantic requires one exact pydantic_core.
INSTALLED_AS = {
    "PIL": "pillow",
    "mlflow": "mlflow-skinny",
    "nvidia": "nvidia-dali-cuda130",
    "pydantic_core": "pydantic",
    "yaml": "PyYAML",
}


def undeclared_libraries(source: str) -> set[str]:
    """Return the libraries that a module imports and pyproject.toml does not ask for."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = (project["dependencies"], *project["optional-dependencies"].values())
    declared = {requirement.partition(">=")[0].lower().replace("_", "-") for each in lists for requirement in each}
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    libraries = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"clipbert_cli"}
    return {name for name in libraries if INSTALLED_AS.get(name, name).lower().replace("_", "-") not in declared}


def test_every_imported_library_is_required():
    """What another library brings today may be gone in its next version, or be missing from an older one."""
    modules = sorted((CHECKOUT / "clipbert_cli").rglob("*.py"))
    found = {path.name: undeclared_libraries(path.read_text(encoding="utf-8")) for path in modules}
    assert {name: libraries for name, libraries in found.items() if libraries} == {}


@pytest.mark.parametrize(
    ("source", "library"),
    [
        ("import httpx2", "httpx2"),
        ("from click import Choice", "click"),
        ("def version():\n    import packaging.version", "packaging"),
        ("try:\n    from scipy_stubs import x\nexcept ImportError:\n    import requests as scipy_stubs", "requests"),
    ],
)
def test_a_library_that_nothing_asks_for_is_seen(source, library):
    assert library in undeclared_libraries(source)

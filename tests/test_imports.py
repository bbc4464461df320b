"""The import rules, read from the source, and what the command line loads."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipbert_cli.infer.prediction_lines import TextList
from clipbert_cli.types import Example, digest_of_texts

PACKAGE = Path(__file__).resolve().parent.parent / "clipbert_cli"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "__pycache__" not in path.parts
}

# The packages and top-level modules that each one may import, besides itself. A name that is not listed does not exist.
SHARED = {"types", "files", "foreign", "printable", "errors", "cores", "memory", "path_kinds", "system_errors"}
READING = {*SHARED, "recipe.schema", "text", "media", "store", "loading", "runtime"}
MAY_IMPORT = {
    "printable": set(),
    "errors": {"printable"},
    "cores": set(),
    "system_errors": {"errors"},
    "memory": {"errors", "system_errors"},
    "types": {"errors"},
    "files": {"errors", "system_errors"},
    "foreign": {"errors"},
    "hub": {"errors"},
    "path_kinds": {"errors", "foreign", "hub", "printable", "types"},
    "recipe.declaring": set(),
    "recipe.schema": {"recipe.declaring", "types"},
    "recipe": {*SHARED, "recipe.declaring", "recipe.schema"},
    "text": {*SHARED, "recipe.schema"},
    "media": {*SHARED, "recipe.schema"},
    "store": {*SHARED, "recipe.schema", "media"},
    "loading": {*SHARED, "recipe.schema", "text", "media", "store"},
    "runtime": {*SHARED, "recipe.schema"},
    "model": {*SHARED, "recipe.schema"},
    "task": {*READING, "model"},
    "runs": {*SHARED, "hub", "recipe.schema", "recipe", "runtime", "model", "task"},
    "contradictions": {*SHARED, "recipe", "model.freezing", "task", "text"},
    "splits": {*SHARED, "recipe.schema", "recipe", "text", "store", "task"},
    "build": {*READING, "hub", "recipe", "model", "task", "runs", "splits"},
    "infer": {*READING, "recipe", "model", "task", "runs", "splits", "build"},
    "train": {*READING, "recipe", "model", "task", "runs", "build", "contradictions", "infer"},
    "profile": {*READING, "recipe", "model", "task", "runs", "build", "contradictions", "infer", "train"},
    "report": {*READING, "recipe", "model", "task", "runs", "splits", "build", "infer", "__version__"},
    "doctor": {*READING, "recipe", "model"},
    "assets": {*SHARED, "recipe.values"},
    "commands": {
        *READING,
        "recipe",
        "model",
        "task",
        "runs",
        "splits",
        "build",
        "contradictions",
        "infer",
        "train",
        "profile",
        "report",
        "doctor",
        "assets",
        "hub",
    },
    "__main__": {"commands"},
    "api": {*READING, "build", "infer"},
    "__init__": {"api"},
}
# The modules outside of recipe/ and commands/ that see a whole recipe; all others receive their own section.
SEES_THE_RECIPE = {
    *("build", "splits", "contradictions", "runs.export", "report.results_page", "report.data_page"),
    *("train.resume", "train.training", "train.session"),
    *("infer.trained", "infer.made_by", "infer.asking", "infer.ranking"),
}
HEAVY = {"torch", "transformers", "lmdb", "av", "tokenizers", "pydantic"}
NOT_FOR_HELP = (
    "torch",
    "transformers",
    "av",
    "lmdb",
    "tokenizers",
    "numpy",
    "PIL",
    "yaml",
    "clipbert_cli.recipe.schema",
)


def package(module: str) -> str:
    """The most exact name of MAY_IMPORT that a module belongs to."""
    names = [name for name in MAY_IMPORT if module == name or module.startswith(name + ".")]
    return max(names, key=len, default=module)


def imports(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; `from a import b` gives `a.b`, relative ones are made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ["clipbert_cli", *module.split(".")][: -node.level]
                base = ".".join([*parents, *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def broken_rules(module: str, source: str) -> list[str]:
    """What a module of the package does against the rules."""
    tree = ast.parse(source)
    own = package(module)
    found = [f"{own} is not a known package"] if own not in MAY_IMPORT else []
    for line, name in imports(tree, module):
        inside = name.removeprefix("clipbert_cli.")
        allowed = {own, "__version__"} | MAY_IMPORT.get(own, set())
        if inside != name and not any(f"{inside}.".startswith(f"{entry}.") for entry in allowed):
            found.append(f"line {line}: {own} imports {inside}")
        if own == "model" and module != "model.hf_encoder" and name.split(".")[0] == "transformers":
            found.append(f"line {line}: imports transformers")
        if name.startswith("torch.distributed") and module != "runtime.distributed":
            found.append(f"line {line}: imports torch.distributed")
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and ast.unparse(node) == "torch.distributed"
            and module != "runtime.distributed"
        ):
            found.append(f"line {node.lineno}: uses torch.distributed")
        if isinstance(node, ast.Compare) and own != "runtime" and ast.unparse(node.left).rpartition(".")[2] == "rank":
            found.append(f"line {node.lineno}: asks for its rank")
    late = {"transformers", "huggingface_hub", "tensorboard", "wandb", "mlflow", *(HEAVY if own == "commands" else ())}
    found += [f"{line}: imports {name} at its top" for line, name in top_imports(tree) if name.split(".")[0] in late]
    for node in tree.body:
        is_call = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        if (is_call and own != "commands") or isinstance(node, ast.For | ast.While | ast.With | ast.Try):
            found.append(f"line {node.lineno}: happens at import")
    if module.rpartition(".")[2] in {"utils", "util", "misc", "common", "helpers"}:
        found.append("a file that has not found its home")
    return found


def top_imports(tree: ast.Module | ast.ClassDef) -> Iterator[tuple[int, str]]:
    """Imports that run when the module is imported: all but those inside functions."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from top_imports(node)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, "")


def sees_the_recipe(tree: ast.AST) -> bool:
    """Whether a module names the type of a whole recipe, or uses that of a setup other than for one of its sections."""
    sections = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return any(
        (isinstance(node, ast.alias) and node.name == "Recipe")
        or (
            isinstance(node, ast.Attribute)
            and node.attr == "recipe"
            and ast.unparse(node.value).rpartition(".")[2] == "setup"
            and id(node) not in sections
        )
        for node in ast.walk(tree)
    )


def test_the_whole_recipe_is_seen_by_few_modules():
    seen = {module for module, path in MODULES.items() if sees_the_recipe(ast.parse(path.read_text(encoding="utf-8")))}
    assert {module for module in seen if package(module) not in ("recipe", "commands")} == SEES_THE_RECIPE
    page = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    (rule,) = re.findall(r"^\* A module receives its own section.*?^\* ", page, re.DOTALL | re.MULTILINE)
    assert all(f"{module.rpartition('.')[2]}.py`" in rule for module in SEES_THE_RECIPE)


@pytest.mark.parametrize(
    ("source", "sees"),
    [
        ("from clipbert_cli.recipe.schema import DataConfig, Recipe", True),
        ("text = dump(training.setup.recipe)", True),
        ("size = training.setup.recipe.infer.batch_size", False),
        ("from clipbert_cli.recipe.schema import TrainConfig", False),
    ],
)
def test_what_sees_the_whole_recipe_is_told_from_what_does_not(source, sees):
    assert sees_the_recipe(ast.parse(source)) == sees


@pytest.mark.parametrize("module", MODULES)
def test_a_module_keeps_the_house_rules(module):
    assert broken_rules(module, MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("loading.loader", "from clipbert_cli.model.resnet import ResNet"),
        ("loading.loader", "from ..model import resnet"),
        ("model.resnet", "import clipbert_cli.store.lmdb_store"),
        ("model.resnet", "def f():\n    from clipbert_cli import store"),
        ("train.loop", "from clipbert_cli.commands.pack import pack"),
        ("train.loop", "from clipbert_cli import profile"),
        ("store.lmdb_store", "from clipbert_cli.recipe.load import load_recipe"),
        ("store.lmdb_store", "from clipbert_cli.recipe import load"),
        ("recipe.schema", "from clipbert_cli.recipe.load import load_recipe"),
        ("assets.fetch", "from clipbert_cli.store.lmdb_store import Store"),
        ("errors", "from clipbert_cli.types import Batch"),
        ("train.loop", "import torch.distributed as dist"),
        ("train.loop", "from torch import distributed"),
        ("build", "import torch\ntorch.distributed.barrier()"),
        ("build", "if world.rank == 0: pass"),
        ("commands.pack", "import torch"),
        ("commands.pack", "from av import open as o"),
        ("commands.pack", "if True:\n    from lmdb import Environment"),
        ("model.resnet", "print('hello')"),
        ("model.transformer", "from transformers.models.bert.modeling_bert import BertLayer"),
        ("model.hf_encoder", "from transformers import AutoModel"),
        ("model.clipbert", "def f():\n    import transformers"),
        ("media.utils", ""),
        ("tools.x", ""),
    ],
)
def test_a_broken_rule_is_seen(module, source):
    assert broken_rules(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("train.loop", "from clipbert_cli.task.base import Task\nfrom clipbert_cli.task import base"),
        (
            "store.lmdb_store",
            "from clipbert_cli.recipe.schema import DataConfig\nfrom clipbert_cli.recipe import schema",
        ),
        ("runtime.distributed", "import torch.distributed as dist\nif dist.rank == 0: pass"),
        ("commands.pack", "def pack():\n    import torch\n    from clipbert_cli.store.packing import pack"),
        ("model.hf_encoder", "def f():\n    from transformers import AutoModel"),
        ("commands.app", "from clipbert_cli import __version__\napp.add_typer(x)"),
        ("loading.loader", "from . import order\nfrom .order import OrderedBatches"),
    ],
)
def test_a_kept_rule_is_left_alone(module, source):
    assert broken_rules(module, source) == []


HELP = """
import sys
from typer.main import get_command
from typer.testing import CliRunner
from clipbert_cli.commands.app import app

seen = []

def visit(command, path):
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, (path, result.output)
    print(" ".join(path) + ":", *sorted(name for name in sys.argv[1:] if name in sys.modules))
    for name, inner in getattr(command, "commands", {}).items():
        visit(inner, [*path, name])

visit(get_command(app), [])
"""


def test_no_help_loads_what_it_does_not_need():
    """`clipbert --help` and every subcommand's stay quick: what takes long to import is not there afterwards.

    typer itself reads a subcommand's parameters with pydantic, so that only the first page does without.
    """
    command = [sys.executable, "-c", HELP, *NOT_FOR_HELP, "pydantic"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    first, *others = result.stdout.splitlines()
    assert first == ":"
    assert {"recipes", "recipes show"} <= {line.partition(":")[0] for line in others}
    assert {line.partition(":")[2].strip() for line in others} <= {"", "pydantic"}


EVAL = """
import sys
from clipbert_cli.commands.app import app

folder, heavy = sys.argv[1], sys.argv[2:]
common = ["--split", "test", "--data-root", folder]
app(["eval", f"{folder}/answers.jsonl", "--recipe", "demo_qa", *common], standalone_mode=False)
app(["eval", f"{folder}/scores.jsonl", "--recipe", "demo_retrieval", *common], standalone_mode=False)
print(*[name for name in heavy if name in sys.modules])
"""


def test_eval_scores_without_torch_and_decoders(tmp_path):
    """Importing torch takes longer than scoring a thousand predictions."""
    (tmp_path / "txt_db" / "retrieval").mkdir(parents=True)
    record = {"media_id": "v", "question": "what?", "caption": "a cat", "answer": "cat"}
    for name in ("test.jsonl", "retrieval/test.jsonl"):
        (tmp_path / "txt_db" / name).write_text(json.dumps(record) + "\n")
    answer = {"media_id": "v", "text_digest": digest_of_texts(None, ["what?"]), "answer": "cat"}
    (tmp_path / "answers.jsonl").write_text(json.dumps(answer) + "\n")
    texts = TextList.of([Example(None, "v", ("a cat",))])
    listed = {"texts_digest": texts.digest, "texts": texts.to_json()}
    scores = {"media_id": "v", "texts_digest": texts.digest, "scores": [0.5]}
    (tmp_path / "scores.jsonl").write_text(f"{json.dumps(listed)}\n{json.dumps(scores)}\n")
    heavy = ["torch", "transformers", "av", "lmdb", "tokenizers"]
    command = [sys.executable, "-c", EVAL, str(tmp_path), *heavy]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("package_name", ["types", "media", "store", "task"])
def test_a_package_without_tensors_does_not_load_torch(package_name):
    """Commands that read stores, recipes or predictions would otherwise wait seconds for torch."""
    modules = [f"clipbert_cli.{name}" for name in MODULES if package(name) == package_name]
    assert modules
    code = f"import sys\nfor name in {modules}: __import__(name)\nprint('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("False", "")


LOOP = """
import sys
import clipbert_cli.train.loop
print("transformers" in sys.modules, *(name for name in sys.modules if name.partition(".")[0] == "clipbert_cli"))
"""


def test_the_training_loop_is_read_without_a_network_or_data():
    """Whoever reads the loop first has few files to follow: it knows no task, no model and no decoder."""
    result = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    transformers, *names = result.stdout.split()
    loaded = [name.removeprefix("clipbert_cli.") for name in names if name != "clipbert_cli"]
    assert transformers == "False"
    assert {package(name) for name in loaded}.isdisjoint({"task", "media", "store", "build", "infer", "text"})
    assert {name for name in loaded if name.startswith("model.")} == {
        "model.ema",
        "model.weights",
        "model.weights.weight_files",
    }
    lines = [len(MODULES[name].read_text(encoding="utf-8").splitlines()) for name in loaded]
    assert len(lines) <= 45
    assert sum(lines) <= 6000

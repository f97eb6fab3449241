"""What the documents say is true: links lead somewhere, commands parse, README's Python runs."""

import ast
import re
import runpy
import shlex
import sys

import pytest

import track_many
from dataset.synthetic import write_example
from tests.conftest import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("weights/*.md")])


CLUSTER_FILES = sorted((ROOT / "docs" / "cluster").iterdir())


def list_commands():
    """Return (document, command) of each command line that runs one of our scripts, in documents and in their help."""
    found = []
    for document in [*DOCUMENTS, *ROOT.glob("*.py"), *ROOT.glob("evaluation/**/*.py")]:
        text = document.read_text()
        if document.suffix == ".py":
            text = ast.get_docstring(ast.parse(text)) or ""
        text = text.replace("\\\n", " ")
        for line in re.findall(r"^    (.*)$", text, re.M):
            command = line.partition(" #")[0].rpartition(" | ")[2]
            script = re.search(r"\b(python\d?|rde-vos) +[\w/]+\.py\b", command)
            if script and "…" not in command and " ..." not in command:
                found.append((document.relative_to(ROOT), command))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document):
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
        if not link.startswith(("http:", "https:")):
            assert (document.parent / link).exists(), link


def test_image_takes_nothing_that_git_ignores():
    """Data, environments and results stay out of Docker's image as they stay out of the repository."""
    ignored = [line.lstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    kept_out = (ROOT / ".dockerignore").read_text().splitlines()
    assert [line for line in ignored if line not in kept_out and f"**/{line}" not in kept_out] == []


def test_commands_have_options_that_there_are(capsys):
    commands, parsers = list_commands(), {}
    assert len(commands) > 150
    for document, command in commands:
        words = shlex.split(command)
        script = next(index for index, word in enumerate(words) if re.fullmatch(r"[\w/]+\.py", word))
        name = words[script]
        if not (ROOT / name).exists():
            pytest.fail(f"{document}: {command}: there is no such script")
        if "get_args_parser" not in (ROOT / name).read_text():
            continue
        if name not in parsers:
            parsers[name] = runpy.run_path(str(ROOT / name), run_name="imported")["get_args_parser"]()
        try:
            parsers[name].parse_args(words[script + 1:])
        except SystemExit:
            pytest.fail(f"{document}: {command}: {capsys.readouterr().err}")


@pytest.mark.parametrize("file", CLUSTER_FILES, ids=lambda path: path.name)
def test_clusters_run_commands_with_options_that_there_are(file):
    text = re.sub(r"\$\w+", "1", file.read_text().replace("\\\n", " ").replace('"', ""))
    [command] = re.findall(r"python \S*track_many\.py (.*)", text)
    args = track_many.get_args_parser().parse_args(shlex.split(command))
    assert args.ray or args.shard


@pytest.mark.parametrize("file", [file for file in CLUSTER_FILES if file.suffix == ".yaml"], ids=lambda path: path.name)
def test_files_for_clusters_are_yaml(file):
    yaml = pytest.importorskip("yaml")
    assert isinstance(yaml.safe_load(file.read_text()), dict)


@pytest.mark.slow
def test_python_of_the_readme_runs_as_it_is(tmp_path, monkeypatch, capsys):
    write_example(tmp_path / "out" / "example" / "input")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example.py"])
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    known = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), known)
    assert len(blocks) == 3 and known["mask"].any() and known["ids"].max() == 2
    assert len(capsys.readouterr().out.splitlines()) == 24

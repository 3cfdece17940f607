"""The tables of recipes, held against the recipes."""

import csv
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import speechbrain as sb

from spiritlm_plugin.utils.configuration import (
    check_arguments,
    check_configuration,
    parse_overrides,
)

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "tests" / "recipes"
# Of SpeechBrain 1.1.
COLUMNS = (
    "Task,Dataset,Script_file,Hparam_file,Data_prep_file,Readme_file,"
    "Result_url,HF_repo,test_debug_flags,test_debug_checks,performance"
).split(",")


def read_table(path):
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        assert table.fieldnames == COLUMNS
        return list(table)


ROWS = [
    row for path in sorted(TABLES.glob("*.csv")) for row in read_table(path)
]
each_row = pytest.mark.parametrize(
    "row", ROWS, ids=[row["Hparam_file"] for row in ROWS]
)


def relative(paths):
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def test_each_corpus_has_a_table_of_its_recipes():
    corpora = {path.name for path in (ROOT / "recipes").iterdir()}
    assert {path.stem for path in TABLES.glob("*.csv")} == corpora
    for path in TABLES.glob("*.csv"):
        for row in read_table(path):
            assert row["Dataset"] == path.stem
            assert row["Hparam_file"].startswith(f"recipes/{path.stem}/")


def test_each_yaml_stands_in_one_row():
    yamls = relative((ROOT / "recipes").rglob("*.yaml"))
    assert sorted(row["Hparam_file"] for row in ROWS) == yamls


def test_each_script_stands_in_a_row():
    scripts = [
        path
        for path in (ROOT / "recipes").rglob("*.py")
        if "    run(main)\n" in path.read_text(encoding="utf-8")
    ]
    assert sorted({row["Script_file"] for row in ROWS}) == relative(scripts)


def test_each_preparation_stands_in_a_row():
    named = {file for row in ROWS for file in row["Data_prep_file"].split()}
    scripts = (ROOT / "recipes").rglob("*_prepare.py")
    assert sorted(named) == relative(scripts)


@each_row
def test_files_exist_and_are_those_of_the_recipe(row):
    script, yaml = Path(row["Script_file"]), Path(row["Hparam_file"])
    assert yaml.parent == script.parent / "hparams"
    for key in ("Script_file", "Readme_file"):
        assert (ROOT / row[key]).is_file()
    for file in (row["Readme_file"], *row["Data_prep_file"].split()):
        assert script.is_relative_to(Path(file).parent)
    if row["Dataset"] not in ("TinySpeech", "STSP"):
        assert Path(row["Data_prep_file"]).parent == script.parent


@each_row
def test_readme_links_what_the_row_links(row):
    content = (ROOT / row["Readme_file"]).read_text(encoding="utf-8")
    for link in f"{row['Result_url']} {row['HF_repo']}".split():
        assert link in content


@each_row
def test_flags_fit_the_yaml(row):
    flags = shlex.split(row["test_debug_flags"])
    assert "--debug" in flags
    assert not [flag for flag in flags if flag.startswith("--output_folder")]
    yaml = str(ROOT / row["Hparam_file"])
    # As SpeechBrain's runner does.
    arguments = [yaml, *flags, "--device=cpu", "--output_folder=results/tests"]
    check_arguments(arguments)
    _, _, text = sb.parse_arguments(arguments)
    overrides = parse_overrides(text)
    check_configuration(
        yaml, overrides, schema_of(ROOT / row["Script_file"], arguments)
    )


def schema_of(script, arguments):
    """Return what a script says that it reads of its YAML."""
    name = "_".join(script.relative_to(ROOT).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, script)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # As Python does for a script; its own modules have names of their own.
        patch.syspath_prepend(str(script.parent))
        spec.loader.exec_module(module)

    class Loaded(Exception):  # noqa: N818
        pass

    def load_recipe(arguments, schema):
        raise Loaded(schema)

    module.load_recipe = load_recipe
    with pytest.raises(Loaded) as loaded:
        module.main(arguments)
    return loaded.value.args[0]


@each_row
def test_checks_are_those_that_can_be_run(row):
    # A pattern of SpeechBrain's runner.
    found = re.fullmatch(r"file_exists=\[(.+?)\]", row["test_debug_checks"])
    assert found and all(found[1].split(","))
